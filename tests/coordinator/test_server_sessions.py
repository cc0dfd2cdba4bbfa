"""Sessions of agents over real sockets: who is let in, leases that survive a break, and agents that fall silent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.sessions import OWN_VERSION
from protos import agent_pb2, common_pb2
from tests.coordinator.scripted import Agent, Clock, coordinator, evidence_of, play, spec_of, stage, until, until_device


@pytest.mark.parametrize(
    ("hello", "status", "sentence"),
    [
        ({"version": "99.0.1"}, "UNIMPLEMENTED", "update the coordinator"),
        ({"version": "soon"}, "UNIMPLEMENTED", "'soon', which is not a version"),
        ({"device_type": "../etc"}, "INVALID_ARGUMENT", "the device type is '../etc'"),
        ({"device_type": ""}, "INVALID_ARGUMENT", "the device type is ''"),
        ({"emulation": "dream"}, "INVALID_ARGUMENT", "emulation is 'dream'; it must be one of none, meter, device"),
    ],
)
def test_an_agent_that_cannot_be_served_is_told_why(
    tmp_path: Path, hello: dict[str, Any], status: str, sentence: str
) -> None:
    async def scene() -> None:
        async with coordinator(tmp_path) as server:
            with pytest.raises((ConnectionError, grpc.aio.AioRpcError)) as caught:
                await Agent(server.address, **hello).greet()
            assert status in str(caught.value)
            assert sentence in str(caught.value)

    play(scene())


def test_a_session_begins_with_hello(tmp_path: Path) -> None:
    async def scene() -> None:
        async with coordinator(tmp_path) as server:
            agent = Agent(server.address)
            await agent.status()
            assert await agent.end() == "INVALID_ARGUMENT: the first message of a session must be Hello"
            silent = Agent(server.address)
            await silent.call.done_writing()
            assert "must be Hello" in await silent.end()

    play(scene())


def test_a_second_hello_ends_the_session(tmp_path: Path) -> None:
    async def scene() -> None:
        async with coordinator(tmp_path) as server, Agent(server.address) as agent:
            await agent.call.write(agent_pb2.AgentMessage(hello=agent_pb2.Hello(device="pi-01")))
            assert "a session has one Hello" in await agent.end()

    play(scene())


def test_the_newer_of_two_agents_with_one_name_wins(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as older, Agent(address):
            assert await older.end() == (
                "ALREADY_EXISTS: another agent named pi-01 has connected, and the newer session wins; "
                "if these are two boards, give one of them another --name"
            )
            assert [d.state for d in await asyncio.to_thread(client.devices)] == ["idle"]

    play(scene())


def test_devices_show_what_they_do(tmp_path: Path) -> None:
    async def scene() -> None:
        facts = common_pb2.HostFacts(model="Raspberry Pi 3 Model B", cpu_count=4)
        meter = common_pb2.MeterInfo(kind="um25c", rate_hz=2.0)
        async with stage(tmp_path) as (address, client):
            async with Agent(address, facts=facts, meter=meter) as agent:
                await agent.status(host=common_pb2.HostState(monotonic_ns=5, temp_c=51.5))
                while (idle := await until_device(client, "pi-01", "idle")).host is None:
                    await asyncio.sleep(0.02)
                assert idle.host.temp_c == 51.5
                assert idle.facts.cpu_count == 4
                assert idle.meter is not None
                assert idle.meter.kind == "um25c"
                assert idle.version == OWN_VERSION
                await asyncio.to_thread(client.submit, spec_of(), "run-1")
                lease = await agent.expect("lease")
                await agent.status(lease.task_id, activity="latency round 0", current_a=0.41)
                await until_device(client, "pi-01", "busy")
                while not (run := await asyncio.to_thread(client.run, "run-1")).devices[0].activity:
                    await asyncio.sleep(0.02)
                assert (run.devices[0].device, run.devices[0].activity) == ("pi-01", "latency round 0")
                assert run.devices[0].current_a == 0.41
            gone = await until_device(client, "pi-01", "gone")
            assert gone.facts.model == "Raspberry Pi 3 Model B"
            assert gone.last_seen_s > 1e9

    play(scene())


def test_a_broken_device_gets_no_work_until_it_is_well(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as sick, Agent(address, "pi-02") as well:
            await sick.status(broken_reason="the meter does not answer")
            assert (await until_device(client, "pi-01", "broken")).reason == "the meter does not answer"
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            await well.perform(await well.expect("lease"))
            await well.expect("lease")
            await sick.status()
            await until_device(client, "pi-01", "busy")
            assert (await sick.expect("lease")).kind == "latency"

    play(scene())


def test_an_impossible_status_is_not_the_end_of_a_session(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address) as agent:
            await agent.status(host=common_pb2.HostState(temp_c=float("nan")))
            await agent.status(broken_reason="hot")
            assert (await until_device(client, "pi-01", "broken")).host is None

    play(scene())


def test_a_lease_survives_a_break_of_the_link(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client):
            async with Agent(address) as agent:
                await asyncio.to_thread(client.submit, spec_of(), "run-1")
                lease = await agent.expect("lease")
                first, second = evidence_of(lease)
                await agent.offer(first)
                await agent.settled(1)
            held = [agent_pb2.HeldTask(task_id=lease.task_id, fence=lease.fence)]
            async with Agent(address, held=held) as again:
                await again.offer(first, second)
                await again.settled(2)
                assert again.refused == []
                await again.task_ended(lease)
                await again.perform(await again.expect("lease"))
            done = await until(client, "run-1", "done")
            assert done.rounds == 4

    play(scene())


def test_a_lease_that_the_agent_has_forgotten_is_given_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client):
            async with Agent(address) as agent:
                await asyncio.to_thread(client.submit, spec_of(), "run-1")
                lease = await agent.expect("lease")
            async with Agent(address) as again:
                new = await again.expect("lease")
                assert (new.task_id, new.fence) == (lease.task_id, lease.fence + 1)
                await again.offer(*evidence_of(lease)[:1], *evidence_of(new)[:1])
                await again.settled(2)
                assert [refusal.code for refusal in again.refused] == ["PERMISSION_DENIED"]
                assert "has ended" in again.refused[0].message

    play(scene())


def test_a_silent_agent_loses_its_lease_and_its_late_results_are_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        async with stage(tmp_path, clock=clock) as (address, client):
            async with Agent(address) as frozen:
                await asyncio.to_thread(client.submit, spec_of(), "run-1")
                lease = await frozen.expect("lease")
                clock.now_s += 16
                assert await frozen.end() == "UNAVAILABLE: pi-01 was silent for 15 s (3 heartbeats)"
            async with Agent(address, "pi-02") as other:
                moved = await other.expect("lease")
                assert (moved.task_id, moved.fence) == (lease.task_id, lease.fence + 1)
                held = [agent_pb2.HeldTask(task_id=lease.task_id, fence=lease.fence)]
                async with Agent(address, held=held) as thawed:
                    revoked = await thawed.expect("revoke")
                    assert (revoked.task_id, revoked.fence) == (lease.task_id, lease.fence)
                    await thawed.offer(*evidence_of(lease))
                    await thawed.settled(2)
                    assert {refusal.code for refusal in thawed.refused} == {"PERMISSION_DENIED"}

    play(scene())


def test_a_status_renews_the_lease_that_it_names(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        async with stage(tmp_path, clock=clock) as (address, client), Agent(address) as agent:
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            lease = await agent.expect("lease")

            async def beat(task_id: str, activity: str) -> None:
                clock.now_s += 5
                await agent.status(task_id, activity=activity)
                while (await asyncio.to_thread(client.run, "run-1")).devices[0].activity != activity:
                    await asyncio.sleep(0.01)

            for n in range(30):  # also beyond the deadline that the database has
                await beat(lease.task_id, f"latency round {n}")
            await agent.perform(lease)
            assert agent.refused == []
            forgotten = await agent.expect("lease")
            await beat("", "idle 1")  # alive, but not at work on its task
            await beat("", "idle 2")
            clock.now_s += 5
            await agent.status(activity="idle 3")
            assert (await agent.expect("revoke")).task_id == forgotten.task_id

    play(scene())


def test_the_end_of_a_task_may_be_said_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client):
            async with Agent(address) as agent:
                await asyncio.to_thread(client.submit, spec_of(), "run-1")
                lease = await agent.expect("lease")
                await agent.perform(lease)
                await agent.expect("lease")
            held = [agent_pb2.HeldTask(task_id=lease.task_id, fence=lease.fence)]
            async with Agent(address, held=held) as again:
                await again.task_ended(lease)
                assert (await again.expect("lease")).task_id != lease.task_id

    play(scene())
