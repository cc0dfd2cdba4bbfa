"""Coordinators that are killed, stopped, or meet another one over the same database."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator import runs
from coordinator.client import Coordinator as Client
from coordinator.server import listen_address, running
from lut_store.store import Store
from protos import agent_pb2
from protos.errors import BadInputError, ConflictError, UnavailableError
from tests.coordinator.scripted import Agent, Clock, coordinator, evidence_of, play, spec_of, stage, until, url_of

ROOT = Path(__file__).parents[2]


@contextmanager
def daemon(folder: Path, listen: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A coordinator process and its address, a free one unless it is named."""
    command = [sys.executable, "-m", "tests.coordinator.daemon", str(folder), *([listen] if listen else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stored(folder: Path, run_id: str) -> list[str]:
    store = Store(url_of(folder))
    try:
        return [m.measurement.id for kind in ("latency", "power") for m in store.measurements(run_id, kind)]
    finally:
        store.close()


def test_kill_9_loses_nothing_that_was_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        offered: list[str] = []
        acknowledged: list[str] = []
        with daemon(tmp_path) as (process, address), Client(address) as client:
            agent = Agent(address)
            await agent.greet()
            await asyncio.to_thread(client.submit, spec_of(rounds_per_task=20, target_rel_halfwidth=0.02), "run-1")
            lease = await agent.expect("lease")
            evidence = evidence_of(lease)
            await agent.offer(*evidence[:12])
            await agent.settled(5)
            process.kill()  # the rest may be anywhere between the socket and the disk
            process.wait()
            acknowledged += agent.acknowledged
            offered += [m.id for m in evidence]
        on_disk = stored(tmp_path, "run-1")
        assert set(acknowledged) <= set(on_disk) <= set(offered)
        with daemon(tmp_path) as (process, address), Client(address) as client:
            held = [agent_pb2.HeldTask(task_id=lease.task_id, fence=lease.fence)]
            async with Agent(address, held=held) as again:
                await again.offer(*evidence)
                await again.settled(len(evidence))
                assert again.refused == []
                await again.task_ended(lease)
                work = asyncio.create_task(again.work())
                done = await until(client, "run-1", "done", "failed")
                work.cancel()
            assert (done.state, done.rounds) == ("done", 60)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 60) == 0
        on_disk = stored(tmp_path, "run-1")
        assert len(on_disk) == len(set(on_disk)) == 60
        assert {m.id for m in evidence} <= set(on_disk)

    play(scene())


def test_a_coordinator_that_stops_says_so_and_its_runs_go_on_later(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client):
            agent = Agent(address)
            await agent.greet()
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
            lease = await agent.expect("lease")
        assert await agent.end() == "UNAVAILABLE: the coordinator stops; it goes on when it is back"
        async with stage(tmp_path) as (address, client):
            waiting = await asyncio.to_thread(client.run, "run-1")
            assert waiting.state == "latency"
            held = [agent_pb2.HeldTask(task_id=lease.task_id, fence=lease.fence)]
            async with Agent(address, held=held) as again:
                await again.perform(lease)
                await again.perform(await again.expect("lease"))
                assert (await until(client, "run-1", "done")).rounds == 4

    play(scene())


def test_a_build_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    async def scene() -> None:
        store = Store(url_of(tmp_path))
        store.add_run("run-1", spec_of())
        store.set_run("run-1", "building")
        store.close()
        async with stage(tmp_path) as (_, client):
            assert (await until(client, "run-1", "done")).lut_reference == "rpi3b/sample@1"

    play(scene())


def test_two_coordinators_over_one_database_drive_each_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "ADOPT_EVERY_S", 0.1)
    monkeypatch.setattr(runs, "WATCH_FOREIGN_EVERY_S", 0.05)

    async def scene() -> None:
        clock = Clock()
        async with stage(tmp_path, clock=clock) as (other_address, other):
            async with stage(tmp_path) as (address, client), Agent(address) as agent, Agent(other_address, "pi-02"):
                await asyncio.to_thread(client.submit, spec_of(), "run-1")
                await agent.perform(await agent.expect("lease"))
                foreign = await asyncio.to_thread(other.run, "run-1")
                assert foreign.reason == "another coordinator process drives it"
                with pytest.raises(ConflictError, match="run-1 is driven by another coordinator process; ask that one"):
                    await asyncio.to_thread(other.cancel, "run-1")
                watching = asyncio.create_task(asyncio.to_thread(lambda: list(other.watch_run("run-1"))))
            # The driver is gone, and so are both boards, of which pi-01 had a lease.
            while "drives it" in (await asyncio.to_thread(other.run, "run-1")).reason:
                await asyncio.sleep(0.02)
            clock.now_s += 16
            async with Agent(other_address, "pi-03") as heir:
                work = asyncio.create_task(heir.work())
                assert (await until(other, "run-1", "done")).rounds == 4
                assert (await watching)[-1].state == "done"
                work.cancel()

    play(scene())


def test_a_coordinator_that_lives_for_one_command_takes_up_only_what_it_is_asked_for(tmp_path: Path) -> None:
    async def scene() -> None:
        async with stage(tmp_path) as (address, client), Agent(address):
            await asyncio.to_thread(client.submit, spec_of(), "run-1")
        async with stage(tmp_path, adopt=False) as (address, client), Agent(address) as agent:
            left = await asyncio.to_thread(client.run, "run-1")
            assert left.reason == "no coordinator drives it; resume it to go on"
            await asyncio.to_thread(client.resume, "run-1")
            work = asyncio.create_task(agent.work())
            assert (await until(client, "run-1", "done")).rounds == 4
            work.cancel()

    play(scene())


@pytest.mark.parametrize("listen", ["0.0.0.0:7443", "192.168.1.5:0", "[::]:0", "pi.example:7443", ":7443"])
def test_without_tls_only_loopback_is_served(listen: str) -> None:
    with pytest.raises(BadInputError, match="there is no TLS"):
        listen_address(listen)


@pytest.mark.parametrize("listen", ["", "7443", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x", "unix:/tmp/x"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(BadInputError, match="is no address to listen on; write HOST:PORT, for example 127"):
        listen_address(listen)


def test_loopback_addresses() -> None:
    assert listen_address("localhost:0") == "127.0.0.1:0"
    assert listen_address("[::1]:7443") == "[::1]:7443"
    assert listen_address("127.0.0.2:1") == "127.0.0.2:1"


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(ConflictError, match=f"cannot listen on {listen}: the port is taken"):
                async with running(listen, url_of(tmp_path)):
                    pass
        async with coordinator(tmp_path) as first:
            with pytest.raises(ConflictError, match="the port is taken, probably by another coordinator"):
                async with running(first.address, url_of(tmp_path)):
                    pass

    play(scene())


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with Client(address, cache=tmp_path) as client:
        with pytest.raises(UnavailableError, match=f"no coordinator answers at {address} .*`coordinator serve`"):
            client.devices()
        with pytest.raises(UnavailableError, match="--coordinator or EDGELUT_COORDINATOR"):
            list(client.watch_run("run-1"))
