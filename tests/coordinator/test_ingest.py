"""Measurements on their way into the database: refusals, repeats, group commits, back-pressure, a full disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import ingest
from coordinator.ingest import Ingest
from coordinator.received import receive
from coordinator.sessions import Session
from lut_store.records import Encoded, Outcome
from protos import agent_pb2, common_pb2, raw_pb2
from protos.convert import to_message
from protos.errors import StorageError
from protos.types import Device, Measurement
from tests.coordinator.scripted import Agent, evidence_of, play, spec_of, stage, until
from tests.lut_store.samples import measurement_of, round_of, trace_of

ROUND = round_of(spec_of())


def message_of(measurement: Measurement) -> common_pb2.Measurement:
    message: common_pb2.Measurement = to_message(measurement)
    return message


# ---- over the wire ----


def test_what_cannot_be_is_refused_with_a_sentence_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent, Agent(address, "pi-02") as thief:
            await asyncio.to_thread(client.submit, spec_of("pi-01"), "run-1")
            lease = await agent.expect("lease")
            good = evidence_of(lease)[0]
            bad = {name: message_of(replace(good, id=name)) for name in bad_ones}
            for name, spoil in bad_ones.items():
                spoil(bad[name])
                await agent.call.write(agent_pb2.AgentMessage(measurement=bad[name]))
            await agent.offer(good)
            await agent.settled(len(bad_ones) + 1)
            assert agent.acknowledged == [good.id]
            said = {refusal.measurement_id: (refusal.code, refusal.message) for refusal in agent.refused}
            assert set(said) == set(bad_ones) - {"no id"} | {""}
            assert said["no time"] == (
                "INVALID_ARGUMENT",
                "total_ns holds 0 ns; a time must be positive and below 13 days",
            )
            assert said["not a number"][1] == "meter samples: current_a holds a value that is not finite"
            assert said["huge fence"][0] == "PERMISSION_DENIED"
            assert said["unknown task"] == ("NOT_FOUND", "there is no task 'elsewhere'")
            assert "not allowed" in said["operator that is not there"][1] or "out of range" in str(said)
            await thief.offer(replace(good, id="stolen"))
            await thief.settled(1)
            assert (thief.refused[0].code, "not to pi-02" in thief.refused[0].message) == ("PERMISSION_DENIED", True)

    def spoil_trace(message: common_pb2.Measurement) -> None:
        message.ClearField("latency")
        message.power.CopyFrom(to_message(trace_of()))
        message.power.samples.current_a[3] = float("nan")

    bad_ones: dict[str, Any] = {
        "no time": lambda m: m.latency.paths.total_ns.__setitem__(0, 0),
        "not a number": spoil_trace,
        "huge fence": lambda m: setattr(m, "fence", 2**64 - 1),
        "unknown task": lambda m: setattr(m, "task_id", "elsewhere"),
        "operator that is not there": lambda m: m.latency.paths.choices.__setitem__(0, 77),
        "no id": lambda m: m.ClearField("id"),
        "backwards": lambda m: setattr(m.latency, "ended_ns", 1),
        "neither": lambda m: m.ClearField("latency"),
        "no state": lambda m: m.ClearField("before"),
    }
    play(scene())


def test_a_repeat_is_acknowledged_and_stored_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            lease = await agent.expect("lease")
            evidence = evidence_of(lease)
            await agent.offer(*evidence, *evidence, *evidence)
            await agent.settled(6)
            assert agent.acknowledged == [m.id for m in evidence] * 3
            assert (await asyncio.to_thread(client.run, "run-1")).rounds == 2
            await agent.offer(replace(evidence[0], flags=("hot",)))  # the same id, another content
            await agent.settled(7)
            assert agent.refused[0].code == "ALREADY_EXISTS"

    play(scene())


def test_whatever_is_sent_a_session_ends_in_words_and_the_others_go_on(tmp_path: Path) -> None:
    """Messages made from arbitrary bytes, through one coordinator that must still work afterwards."""

    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address, "good") as good:

            async def fuzz(bodies: list[bytes]) -> None:
                async with Agent(address, "fuzz") as agent:
                    for body in bodies:
                        try:
                            message = agent_pb2.AgentMessage.FromString(body)
                        except DecodeError:
                            continue
                        await agent.call.write(message)
                    await agent.call.done_writing()
                    status = await agent.end()
                    assert status.partition(":")[0] in ("OK", "INVALID_ARGUMENT"), status

            loop = asyncio.get_running_loop()
            bodies = st.one_of(
                st.binary(max_size=60),
                st.sampled_from((b"\x12", b"\x1a", b"\x22")).flatmap(  # a status, a measurement, the end of a task
                    lambda tag: st.binary(max_size=60).map(lambda body: tag + bytes([len(body)]) + body)
                ),
            )

            @settings(max_examples=60, deadline=None)
            @given(st.lists(bodies, max_size=5))
            def examples(chosen: list[bytes]) -> None:
                asyncio.run_coroutine_threadsafe(fuzz(chosen), loop).result(60)

            await asyncio.to_thread(examples)
            await asyncio.to_thread(client.submit, spec_of("good"), "run-1")
            work = asyncio.create_task(good.work())
            assert (await until(client, "run-1", "done")).rounds == 4
            work.cancel()

    play(scene())


@given(st.binary(max_size=200), st.binary(max_size=6))
def test_the_bytes_of_a_measurement_are_those_that_were_sent(ids: bytes, more: bytes) -> None:
    message = message_of(measurement_of("task", ROUND, name="m" + ids.hex()[:63]))
    raw = agent_pb2.AgentMessage(measurement=message).SerializeToString()
    encoded = receive(raw).measurement()
    assert encoded.body == message.SerializeToString()
    assert encoded.message == raw_pb2.Measurement.FromString(encoded.body)
    try:
        received = receive(raw + more)  # whatever stands after it, message and bytes belong together
    except DecodeError:
        return
    if received.message.WhichOneof("body") == "measurement":
        encoded = received.measurement()
        assert raw_pb2.Measurement.FromString(encoded.body) == encoded.message


# ---- the queue alone ----


class Disk:
    """Where batches go: held back while `gate` is closed, full when told so."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.full = False
        self.batches: list[list[str]] = []

    def write(self, pairs: Sequence[tuple[str, Encoded]]) -> list[Outcome]:
        self.gate.wait(60)
        if self.full:
            raise StorageError("the disk is full")
        self.batches.append([offer.message.id for _, offer in pairs])
        return [Outcome(offer.message.id, "stored") for _, offer in pairs]


def ignore(_: object) -> None:
    """Nobody counts the evidence."""


def offers(count: int) -> list[Encoded]:
    messages = [message_of(measurement_of("task", ROUND, name=f"m{n}")) for n in range(count)]
    bodies = [message.SerializeToString() for message in messages]
    return [Encoded(raw_pb2.Measurement.FromString(body), body) for body in bodies]


def acknowledged(session: Session) -> list[str]:
    """What has been said to the session so far."""
    ids: list[str] = []
    while not session.outbox.empty():
        message = session.outbox.get_nowait()
        if message is not None:
            ids += message.acknowledge.measurement_ids
    return ids


def test_what_arrives_during_a_commit_is_committed_together() -> None:
    async def scene() -> None:
        disk, fresh = Disk(), []
        queue = Ingest(disk.write, fresh.extend)
        running = asyncio.create_task(queue.run())
        one, two = (Session(Device(name, "rpi3b"), 0.0) for name in ("pi-01", "pi-02"))
        disk.gate.clear()
        first, *rest = offers(9)
        await queue.offer(one, first)
        await asyncio.sleep(0.05)  # the writer has it
        for number, message in enumerate(rest):
            await queue.offer(two if number % 2 else one, message)
        assert acknowledged(one) == []
        disk.gate.set()
        await queue.settle()
        assert disk.batches == [["m0"], [f"m{n}" for n in range(1, 9)]]
        assert acknowledged(one) == ["m0", "m1", "m3", "m5", "m7"]
        assert acknowledged(two) == ["m2", "m4", "m6", "m8"]
        assert [message.id for message in fresh] == [f"m{n}" for n in range(9)]
        queue.close()
        await running

    play(scene())


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BATCH_MESSAGES", 3)

    async def scene() -> None:
        disk = Disk()
        queue = Ingest(disk.write, ignore)
        for message in offers(8):
            await queue.offer(Session(Device("pi-01", "rpi3b"), 0.0), message)
        queue.close()
        await queue.run()
        assert [len(batch) for batch in disk.batches] == [3, 3, 2]

    play(scene())


def test_a_slow_disk_holds_the_agents_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "WAITING_BYTES", 10_000)

    async def scene() -> None:
        disk = Disk()
        disk.gate.clear()
        queue = Ingest(disk.write, ignore)
        running = asyncio.create_task(queue.run())
        session = Session(Device("pi-01", "rpi3b"), 0.0)
        taken = 0

        async def send() -> None:
            nonlocal taken
            for message in offers(100):
                await queue.offer(session, message)
                taken += 1

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.1)
        assert 0 < taken < 20
        assert session.held_up
        disk.gate.set()
        await sending
        await queue.settle()
        assert not session.held_up
        assert sorted(acknowledged(session)) == sorted(f"m{n}" for n in range(100))
        queue.close()
        await running

    play(scene())


def test_a_full_disk_ends_the_sessions_and_nothing_is_acknowledged() -> None:
    async def scene() -> None:
        disk = Disk()
        disk.full = True
        queue = Ingest(disk.write, ignore)
        running = asyncio.create_task(queue.run())
        session = Session(Device("pi-01", "rpi3b"), 0.0)
        await queue.offer(session, offers(1)[0])
        with pytest.raises(StorageError, match="the disk is full"):
            await queue.settle()
        assert isinstance(session.error, StorageError)
        assert acknowledged(session) == []
        disk.full = False
        again = Session(Device("pi-01", "rpi3b"), 0.0)
        await queue.offer(again, offers(1)[0])
        await queue.settle()
        assert acknowledged(again) == ["m0"]
        queue.close()
        await running

    play(scene())


def test_one_measurement_that_makes_the_store_fail_harms_its_session_alone() -> None:
    async def scene() -> None:
        disk = Disk()

        def write(pairs: Sequence[tuple[str, Encoded]]) -> list[Outcome]:
            if any(offer.message.id == "m1" for _, offer in pairs):
                raise OverflowError("int too large")
            return disk.write(pairs)

        queue = Ingest(write, ignore)
        sessions = [Session(Device(f"pi-{n}", "rpi3b"), 0.0) for n in range(3)]
        for session, message in zip(sessions, offers(3), strict=True):
            await queue.offer(session, message)
        queue.close()
        await queue.run()
        assert disk.batches == [["m0"], ["m2"]]
        assert [acknowledged(session) for session in sessions] == [["m0"], [], ["m2"]]
        assert [session.ended for session in sessions] == [False, True, False]
        assert "int too large" in str(sessions[1].error)

    play(scene())


def test_what_was_received_is_stored_before_the_end() -> None:
    async def scene() -> None:
        disk = Disk()
        queue = Ingest(disk.write, ignore)
        for message in offers(5):
            await queue.offer(Session(Device("pi-01", "rpi3b"), 0.0), message)
        queue.close()
        await queue.run()
        assert [name for batch in disk.batches for name in batch] == [f"m{n}" for n in range(5)]

    play(scene())
