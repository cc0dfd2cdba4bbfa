"""Runs over real sockets: from a submission to a LUT, and all that can come between."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import dispatch
from lut_store.store import Store
from protos import common_pb2
from protos.errors import BadInputError, ConflictError, NotFoundError
from protos.types import Run
from tests.coordinator.scripted import (
    Agent,
    FakeMethods,
    evidence_of,
    play,
    spec_of,
    stage,
    until,
    until_device,
    url_of,
)

METER = common_pb2.MeterInfo(kind="um25c")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "RETRY_PAUSE_S", 0.0)


def test_a_run_becomes_a_lut(tmp_path: Path) -> None:
    async def scene() -> None:
        methods = FakeMethods()
        async with stage(tmp_path, methods) as (address, client), Agent(address) as agent:
            run = await asyncio.to_thread(client.submit, spec_of(), "run-1")
            assert run.state in ("queued", "latency")
            first = await agent.expect("lease")
            assert (first.kind, first.first_round, first.fence, first.run_id) == ("latency", 0, 1, "run-1")
            await agent.perform(first)
            second = await agent.expect("lease")
            assert second.first_round == 2
            assert second.seed != first.seed
            await agent.perform(second)
            done = await until(client, "run-1", "done", "failed")
            assert (done.state, done.rounds, done.rel_halfwidth) == ("done", 4, 0.25)
            assert [operator.n for operator in done.operators] == [4] * len(spec_of().items)
            assert methods.looks == [2, 4]
            lut = await asyncio.to_thread(client.lut, "rpi3b")
            assert (lut.reference, lut.digest) == (done.lut_reference, done.lut_digest)

    play(scene())


def test_energy_follows_in_segments_where_there_is_a_meter(tmp_path: Path) -> None:
    async def scene() -> None:
        spec = spec_of(energy_budget_s=250.0, segment_s=100.0)
        async with stage(tmp_path) as (address, client):
            async with Agent(address, meter=METER) as agent:
                await asyncio.to_thread(client.submit, spec, "metered")
                kinds = []
                for _ in range(5):
                    lease = await agent.expect("lease")
                    kinds.append(lease.kind)
                    await agent.perform(lease)
                done = await until(client, "metered", "done")
                assert kinds == ["latency", "latency", "energy", "energy", "energy"]
                assert done.energy_device_s == pytest.approx(3 * 2 * 2.0)
            async with Agent(address) as bare:
                await asyncio.to_thread(client.submit, spec, "bare")
                work = asyncio.create_task(bare.work())
                assert (await until(client, "bare", "done")).energy_device_s == 0
                work.cancel()

    play(scene())


def test_flagged_rounds_cost_time_but_are_no_evidence(tmp_path: Path) -> None:
    async def scene() -> None:
        methods = FakeMethods()
        async with stage(tmp_path, methods) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(latency_budget_s=20000.0), "run-1")
            lease = await agent.expect("lease")
            await agent.offer(*[replace(m, flags=("hot",)) for m in evidence_of(lease)])
            await agent.task_ended(lease)
            await agent.perform(await agent.expect("lease"))
            third = await agent.expect("lease")
            run = await asyncio.to_thread(client.run, "run-1")
            assert (run.rounds, run.rounds_flagged, round(run.latency_device_s)) == (2, 2, 4000)
            assert methods.looks == [2]
            await agent.perform(third)
            assert (await until(client, "run-1", "done")).rounds == 4

    play(scene())


# ---- what cannot be ----


def test_an_unknown_device_is_answered_with_what_there_is(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client):
            with pytest.raises(NotFoundError, match="nor any other; start one with `edgelut-agent run`"):
                await asyncio.to_thread(client.submit, spec_of(), "run-1")
            async with Agent(address) as agent:
                with pytest.raises(NotFoundError, match=r"but these are: pi-01 \(rpi3b\); did you mean 'rpi3b'\?"):
                    await asyncio.to_thread(client.submit, spec_of("rpi3"), "run-1")
                await agent.status(broken_reason="no meter")
                await until_device(client, "pi-01", "broken")
                with pytest.raises(NotFoundError, match="every agent of 'rpi3b' is broken: pi-01: no meter"):
                    await asyncio.to_thread(client.submit, spec_of(), "run-1")
            assert await asyncio.to_thread(client.runs) == []

    play(scene())


def test_bad_submissions_are_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address):
            with pytest.raises(BadInputError, match=r"the run's id is '\.\./x'"):
                await asyncio.to_thread(client.submit, spec_of(), "../x")
            with pytest.raises(BadInputError, match="latency_budget_s is 0"):
                await asyncio.to_thread(client.submit, spec_of(latency_budget_s=0.0), "run-1")
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            same = await asyncio.to_thread(client.submit, spec_of(), "run-1")
            assert same.run_id == "run-1"
            with pytest.raises(ConflictError, match="asks for something else"):
                await asyncio.to_thread(client.submit, spec_of(threads=2), "run-1")
            for ask in (client.run, client.cancel, client.resume, lambda run_id: list(client.watch_run(run_id))):
                with pytest.raises(NotFoundError, match="there is no run run-2"):
                    await asyncio.to_thread(ask, "run-2")

    play(scene())


# ---- failures ----


def test_a_task_that_keeps_failing_fails_the_run_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            tasks = set()
            for _ in range(4):
                lease = await agent.expect("lease")
                tasks.add(lease.task_id)
                await agent.task_ended(lease, "the worker died")
            failed = await until(client, "run-1", "failed")
            assert len(tasks) == 1
            assert failed.reason == "a latency task failed 4 times: the worker died"
            await asyncio.to_thread(client.resume, "run-1")
            await agent.perform(await agent.expect("lease"))
            await agent.perform(await agent.expect("lease"))
            assert (await until(client, "run-1", "done", "failed")).state == "done"
            with pytest.raises(ConflictError, match="run run-1 is done: its LUT is rpi3b/sample@1"):
                await asyncio.to_thread(client.resume, "run-1")
            with pytest.raises(ConflictError, match="run run-1 is done; there is nothing to cancel"):
                await asyncio.to_thread(client.cancel, "run-1")

    play(scene())


def test_a_task_that_fails_after_it_gave_rounds_is_not_counted_as_a_failure(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(target_rel_halfwidth=0.1), "run-1")
            for _ in range(6):
                lease = await agent.expect("lease")
                await agent.offer(evidence_of(lease)[0])
                await agent.task_ended(lease, "the agent was started again")
            while (run := await asyncio.to_thread(client.run, "run-1")).state != "done":
                await agent.perform(await agent.expect("lease"))
                await asyncio.sleep(0.2)
            assert run.rounds >= 10

    play(scene())


def test_a_build_that_fails_says_why_and_can_be_resumed(tmp_path: Path) -> None:
    async def scene() -> None:
        methods = FakeMethods(fail=BadInputError("there is nothing to build a LUT from"))
        async with stage(tmp_path, methods) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            await agent.perform(await agent.expect("lease"))
            await agent.perform(await agent.expect("lease"))
            failed = await until(client, "run-1", "failed")
            assert failed.reason == "building failed: there is nothing to build a LUT from"
            methods.fail = ZeroDivisionError()
            await asyncio.to_thread(client.resume, "run-1")
            assert (await until(client, "run-1", "failed")).reason == "building failed: ZeroDivisionError"
            methods.fail = None
            await asyncio.to_thread(client.resume, "run-1")
            assert (await until(client, "run-1", "done")).lut_reference == "rpi3b/sample@1"

    play(scene())


def test_a_cancelled_run_revokes_its_leases_and_keeps_its_evidence(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            await agent.perform(await agent.expect("lease"))
            lease = await agent.expect("lease")
            cancelled = await asyncio.to_thread(client.cancel, "run-1")
            assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled by an operator")
            revoked = await agent.expect("revoke")
            assert (revoked.task_id, revoked.reason) == (lease.task_id, "the run was cancelled")
            assert (await asyncio.to_thread(client.cancel, "run-1")).state == "cancelled"
            await asyncio.to_thread(client.resume, "run-1")
            again = await agent.expect("lease")
            assert (again.task_id, again.fence) == (lease.task_id, lease.fence + 1)
            await agent.perform(again)
            assert (await until(client, "run-1", "done")).rounds == 4

    play(scene())


# ---- many boards, many runs ----


def test_real_boards_and_emulated_ones_never_share_a_run(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            stage(tmp_path) as (address, client),
            Agent(address, "emulated", emulation="device") as emulated,
            Agent(address, "real") as real,
        ):
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            await real.perform(await real.expect("lease"))
            run = await asyncio.to_thread(client.run, "run-1")
            assert run.reason == "the run uses real boards only; left out: emulated"
            await real.perform(await real.expect("lease"))
            await until(client, "run-1", "done")
            await asyncio.to_thread(client.submit, replace(spec_of(), device="emulated"), "run-2")
            assert (await emulated.expect("lease")).run_id == "run-2"

    play(scene())


def test_one_board_does_one_thing_at_a_time(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            for run_id in ("run-1", "run-2"):
                await asyncio.to_thread(client.submit, spec_of(), run_id)
            runs = []
            for _ in range(4):
                lease = await agent.expect("lease")
                runs.append(lease.run_id)
                waiting = await asyncio.to_thread(client.run, "run-2" if lease.run_id == "run-1" else "run-1")
                assert waiting.devices == ()
                await agent.perform(lease)
            assert sorted(runs) == ["run-1", "run-1", "run-2", "run-2"]
            assert (await until(client, "run-1", "done")).rounds == 4
            assert (await until(client, "run-2", "done")).rounds == 4

    play(scene())


def test_many_boards_share_a_run(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client):
            agents = [Agent(address, f"pi-{n:02}") for n in range(8)]
            for agent in agents:
                await agent.greet()
            await asyncio.to_thread(client.submit, spec_of(target_rel_halfwidth=0.02), "run-1")
            work = [asyncio.create_task(agent.work()) for agent in agents]
            done = await until(client, "run-1", "done")
            assert done.rounds >= 50
            for task in work:
                task.cancel()
        store = Store(url_of(tmp_path))
        tasks = store.tasks("run-1")
        store.close()
        assert len({task.device for task in tasks}) > 4
        assert len({task.first_round for task in tasks}) == len(tasks)

    play(scene())


# ---- watching ----


def test_watching_shows_every_state_until_the_end(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            lease = await agent.expect("lease")
            seen: list[Run] = []
            first = asyncio.Event()
            loop = asyncio.get_running_loop()

            def watch() -> None:
                for run in client.watch_run("run-1"):
                    seen.append(run)
                    loop.call_soon_threadsafe(first.set)

            watching = asyncio.create_task(asyncio.to_thread(watch))
            await first.wait()
            await agent.perform(lease)
            await agent.perform(await agent.expect("lease"))
            await watching
            assert seen[0].state == "latency"
            assert seen[-1].state == "done"
            assert all(run.spec == spec_of() for run in seen)
            assert [run.state for run in (await asyncio.to_thread(lambda: list(client.watch_run("run-1"))))] == ["done"]

    play(scene())


def test_an_ended_run_is_counted_anew_after_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address, meter=METER) as agent:
            await asyncio.to_thread(client.submit, spec_of(energy_budget_s=50.0), "run-1")
            work = asyncio.create_task(agent.work())
            before = await until(client, "run-1", "done")
            work.cancel()
        async with stage(tmp_path) as (_, client):
            (listed,) = await asyncio.to_thread(client.runs)
            after = await asyncio.to_thread(client.run, "run-1")
            for name in ("state", "rounds", "latency_device_s", "energy_device_s", "lut_reference", "lut_digest"):
                assert getattr(before, name) == getattr(after, name) == getattr(listed, name), name

    play(scene())


def test_lists_leave_out_what_makes_them_long(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address):
            for number in range(3):
                await asyncio.to_thread(client.submit, spec_of(), f"run-{number}")
            runs = await asyncio.to_thread(client.runs, 2)
            assert [run.run_id for run in runs] == ["run-2", "run-1"]
            assert runs[0].spec == replace(spec_of(), items=())

    play(scene())


def test_a_validation_run_ends_with_a_report(tmp_path: Path) -> None:
    async def scene() -> None:
        spec = replace(spec_of(latency_budget_s=4000.0), items=(), purpose="validate", lut_digest="0" * 64)
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec, "run-1")
            work = asyncio.create_task(agent.work())
            done = await until(client, "run-1", "done")
            work.cancel()
            assert json.loads(done.report) == {"rounds": 4}
            assert (done.lut_digest, done.lut_reference) == ("0" * 64, "")
        async with stage(tmp_path) as (_, client):
            later = await asyncio.to_thread(client.run, "run-1")
            assert (later.report, later.rounds) == (done.report, 4)

    play(scene())
