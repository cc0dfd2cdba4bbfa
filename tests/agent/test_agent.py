"""The daemon as a process against a coordinator on a real socket: killed, stopped and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.__main__ import main
from agent.daemon import Agent, Identity
from agent.emulator.device import EmulatedDevice
from agent.emulator.runner import EmulatedRunner, ScaledClock
from agent.metering import Meters
from agent.spool import Spool
from protos import agent_pb2
from protos.convert import to_message
from protos.types import LatencyRound, Lease
from tests.agent.coordinator import Desk, coordinator
from tests.agent.spaces import lease_of, tiny_run, wait
from tests.agent.test_runner import CORES, gone
from tests.agent.test_spool import measurement


@pytest.fixture
def quick_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that loads at once, for tests in which nothing is measured."""
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "torch.py").write_text(
        "__version__ = '2.0'\n"
        "class __config__:\n    show = staticmethod(lambda: 'none')\n"
        "set_num_interop_threads = set_flush_denormal = lambda _: None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "quick"))


@contextmanager
def agent(port: int, folder: Path, *options: str, command: str = "run") -> Iterator[subprocess.Popen[str]]:
    """A running `edgelut-agent`; what it says goes to folder/log."""
    arguments = [sys.executable, "-m", "agent", command, "--coordinator", f"127.0.0.1:{port}", *options]
    if command == "run":
        arguments += ["--device-type", "testboard", "--name", "board", "--state-dir", str(folder / "state")]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(arguments, stderr=log, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def patched(statement: str, port: int, state_dir: Path, *options: str) -> subprocess.Popen[bytes]:
    """An agent with a constant that would make a test long."""
    code = f"import sys, agent.__main__, agent.spool\n{statement}\nsys.exit(agent.__main__.main())"
    where = ["--state-dir", str(state_dir), "--coordinator", f"127.0.0.1:{port}"]
    command = [sys.executable, "-c", code, "run", "-t", "x", "-n", "board", *where, *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


async def ended(process: subprocess.Popen[Any], limit_s: float = 60.0) -> int:
    deadline_s = time.monotonic() + limit_s
    while process.poll() is None:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)
    return process.returncode


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = stat.read_text()
            if int(text.rpartition(")")[2].split()[1]) == pid:
                found.append(int(text.split()[0]))
    return found


def rounds_of(desk: Desk, task_id: str) -> list[int]:
    rounds = [m.latency.round_index for m in desk.measurements.values() if m.latency and m.task_id == task_id]
    return sorted(set(rounds))  # a disturbed machine repeats some


def test_tasks_are_done_one_after_another_through_broken_streams_and_dead_workers(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(forget_every=5)
        run = tiny_run(rounds_per_task=3)
        desk.leases += [lease_of(run, task_id=f"t{n}", first_round=3 * n) for n in range(3)]
        desk.leases.append(lease_of(tiny_run(threads=512), task_id="too much"))
        async with coordinator(desk) as port:
            with agent(port, tmp_path) as process:
                await desk.until(lambda: bool(desk.received))
                for pid in children_of(process.pid):
                    os.kill(pid, signal.SIGKILL)  # the worker, whatever it is doing
                await desk.until(lambda: len(desk.ended) == 4)
                assert len(list((tmp_path / "state").glob("*.measurement"))) == 0
        assert [rounds_of(desk, f"t{n}") for n in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        assert {task: reason for task, reason in desk.ended.items() if reason} == {
            "too much": f"the run measures 512 threads, but this board has {len(CORES)} cores for them"
        }
        hello = desk.hellos[0]
        assert (hello.device, hello.device_type, hello.emulation) == ("board", "testboard", "none")
        assert hello.facts.torch_version
        assert not hello.HasField("meter")
        assert all(not status.broken_reason for status in desk.statuses)

    wait(work())


def test_a_killed_agent_delivers_what_it_had_measured_and_gives_the_task_back(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(mute=True)
        desk.leases.append(lease_of(tiny_run(rounds_per_task=1000), task_id="t", fence=9))
        async with coordinator(desk) as port:
            with agent(port, tmp_path) as process:
                await desk.until(lambda: len(desk.received) >= 4)
                workers = children_of(process.pid)
                process.kill()
                process.wait()
            await desk.until(lambda: all(map(gone, workers)))
            waiting = sorted(path.name.partition("-")[2] for path in (tmp_path / "state").glob("*.measurement"))
            assert len(waiting) >= 4
            desk.mute = False
            desk.leased = None
            with agent(port, tmp_path):
                await desk.until(lambda: "t" in desk.ended)
                assert desk.ended["t"] == "the agent was started again"
                assert [(held.task_id, held.fence) for held in desk.hellos[-1].held] == [("t", 9)]
                await desk.until(lambda: not list((tmp_path / "state").glob("*.measurement")))
        assert set(waiting) <= {f"{number}.measurement" for number in desk.measurements}

    wait(work())


def test_a_new_lease_takes_the_place_of_the_old_and_sigterm_gives_it_back(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        desk.leases.append(lease_of(tiny_run(rounds_per_task=100_000), task_id="old"))
        endless = lease_of(tiny_run(paths_per_round=20_000), task_id="new")  # one round outlasts the patience
        async with coordinator(desk) as port:
            with agent(port, tmp_path) as process:
                await desk.until(lambda: len(desk.received) > 2)
                desk.leased = endless
                desk.say.put_nowait(agent_pb2.CoordinatorMessage(lease=to_message(endless)))
                await desk.until(
                    lambda: (s := desk.statuses[-1]).task_id == "new" and s.activity.startswith("latency round")
                )
                process.terminate()
                assert await ended(process) == 0
        assert desk.ended == {"new": "the agent is stopping"}
        assert "Traceback" not in log_of(tmp_path)

    wait(work())


class EndlessBoard(EmulatedRunner):
    """An emulated board in the middle of a round, which nothing can break off."""

    async def latency_round(self, lease: Lease, round_index: int) -> LatencyRound:
        await asyncio.sleep(3600)
        return await super().latency_round(lease, round_index)


def test_a_round_that_cannot_be_broken_off_is_given_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.daemon.STOP_WORK_S", 0.1)

    async def work() -> None:
        desk = Desk()
        desk.leases.append(lease_of(tiny_run(), task_id="t"))
        runner = EndlessBoard(EmulatedDevice("rpi3b"), ScaledClock())
        async with coordinator(desk) as port:
            where = Spool(tmp_path), f"127.0.0.1:{port}"
            board = Agent(Identity("board", "rpi3b", emulated=True), runner, Meters("none", runner.clock), *where)
            running = asyncio.create_task(board.run())
            await desk.until(lambda: any(s.activity.startswith("latency round") for s in desk.statuses))
            board.stop()
            await running
        assert desk.ended == {"t": "the agent is stopping"}

    wait(work())


def test_energy_with_an_emulated_meter_on_a_real_port(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        plan = {"energy_budget_s": 5.0, "segment_s": 5.0, "window_s": 0.5, "idle_s": 0.5, "network_window_s": 1.0}
        desk.leases.append(lease_of(replace(tiny_run(**plan), meter=""), "energy", task_id="e"))
        desk.leases.append(lease_of(replace(tiny_run(**plan), meter="none"), "energy", task_id="none"))
        async with coordinator(desk) as port:
            with agent(port, tmp_path, "--meter", "emulated"):
                await desk.until(lambda: len(desk.ended) == 2)
        assert desk.ended["e"] == ""
        assert "this board has no meter" in desk.ended["none"]
        assert desk.hellos[0].emulation == "meter"
        assert desk.hellos[0].meter.emulated
        traces = [m.power for m in desk.measurements.values() if m.power]
        assert traces
        assert all(trace.meter.emulated and trace.meter.kind == "um25c" for trace in traces)
        currents_a = [a for trace in traces for a in trace.samples.current_a]
        assert len(currents_a) > 50
        assert max(currents_a) - min(currents_a) > 0.1  # it follows the worker's CPU time

    wait(work())


def test_emulated_boards_are_devices_like_any_other(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        plan = {"energy_budget_s": 60.0, "segment_s": 60.0, "rounds_per_task": 2}
        run = replace(tiny_run(**plan), meter="")
        desk.leases += [lease_of(run, task_id="l"), lease_of(run, "energy", task_id="e")]
        async with coordinator(desk) as port:
            options = ("--device-type", "rpi4", "--count", "2", "--speed", "20")
            with agent(port, tmp_path, *options, command="emulate") as process:
                await desk.until(lambda: {"l", "e"} <= set(desk.ended) and len(desk.hellos) == 2)
                process.send_signal(signal.SIGINT)
                assert await ended(process) == 0
        assert sorted(hello.device for hello in desk.hellos) == ["rpi4-emu-1", "rpi4-emu-2"]
        assert {hello.emulation for hello in desk.hellos} == {"device"}
        assert all(hello.meter.kind == "um25c" and hello.meter.emulated for hello in desk.hellos)
        assert desk.ended == {"l": "", "e": ""}
        samples = [len(m.power.samples.t_ns) for m in desk.measurements.values() if m.power]
        assert sum(samples) > 60  # of 60 s at 2.5 Hz, on however busy a machine

    wait(work())


@pytest.mark.usefixtures("quick_torch")
def test_once_ends_with_the_parent(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "print(subprocess.Popen([sys.executable, '-m', 'agent', *sys.argv[1:]]).pid, flush=True)\n"
        "time.sleep(600)\n"
    )

    async def work() -> None:
        desk = Desk()
        async with coordinator(desk) as port:
            options = ["run", "-t", "x", "-n", "board", "--state-dir", str(tmp_path / "s"), "--once"]
            options += ["--coordinator", f"127.0.0.1:{port}"]
            command = [sys.executable, "-c", code, *options]
            parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            await desk.until(lambda: bool(desk.statuses))
            parent.kill()
            parent.communicate()
            await desk.until(lambda: gone(child))

    wait(work())


@pytest.mark.usefixtures("quick_torch")
def test_once_ends_with_the_coordinator(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        async with coordinator(desk) as port:
            process = patched("agent.__main__.ONCE_PATIENCE_S = 1.0", port, tmp_path / "s", "--once")
            await desk.until(lambda: bool(desk.statuses))
        assert await ended(process) == 0
        process = patched("agent.__main__.ONCE_PATIENCE_S = 1.0", port, tmp_path / "s", "--once")
        assert await ended(process) == 2  # there never was one

    wait(work())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line that cannot be says; with exit status 2."""
    try:
        status = main(arguments)
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    assert status == 2
    return capsys.readouterr().err


def test_bad_input_gets_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = ("run", "--device-type", "rpi3b", "--state-dir", str(tmp_path / "s"))
    for words, sentence in (
        ((), "usage: edgelut-agent"),
        (("run",), "required: -t/--device-type"),
        (("rum",), "did you mean 'run'"),
        ((*board, "--metr", "x"), "did you mean '--meter'"),
        ((*board, "--meter", "um26c"), "did you mean 'um25c'"),
        ((*board, "--coordinator", "pi"), "write HOST:PORT"),
        ((*board, "--name", "a b"), "--name is 'a b'"),
        (("emulate", "--device-type", "rpi5"), "did you mean 'rpi4'"),
        (("emulate", "--device-type", "rpi4", "--speed", "0"), "it must be above 0"),
        (("emulate", "--device-type", "rpi4", "--count", "0"), "--count must be at least 1"),
        (("emulate", "--device-type", "rpi4", "--meter", "tc66c:/dev/x"), "unknown emulated meter"),
        (("emulate", "--device-type", "rpi4", "--meter", "um25c?update_s=0"), "update_s=0 is not a number from 0.001"),
        (("emulate", "--device-type", "rpi4", "--meter", "um25c?garbage=3"), "garbage=3 is not a number from 0 to 1"),
        (("emulate-meter", "um26c"), "invalid choice: 'um26c'"),
        (("emulate-meter", "um25c", "--update-s", "0"), "update_s=0 is not a number from 0.001"),
        (("emulate-meter", "um25c", "--rate-hz", "0"), "rate_hz=0 is not a number from 0.1 to 1000"),
        (("emulate-meter", "um25c", "--garbage", "3"), "garbage=3 is not a number from 0 to 1"),
        (("emulate-meter", "um25c", "--noise-a", "nan"), "noise_a=nan is not a number"),
        (("emulate-meter", "um25c", "--voltage-v", "-5"), "voltage_v=-5 is not a number"),
        (("emulate-meter", "um25c", "--follow-pid", "999999999"), "there is no process 999999999 to follow"),
    ):
        assert sentence in refused(capsys, *words)
    spool = Spool(tmp_path / "s")
    assert "another agent uses the state directory" in refused(capsys, *board)
    spool.close()
    with pytest.raises(SystemExit) as help_:
        main(["run", "--help"])
    assert not help_.value.code
    assert "examples:" in capsys.readouterr().out


def test_a_meter_that_is_not_there_ends_the_agent_with_a_sentence(tmp_path: Path) -> None:
    async def work() -> None:
        with agent(9, tmp_path, "--meter", "um25c:/dev/nowhere") as process:
            assert await ended(process) == 2
        assert "edgelut-agent: meter um25c:/dev/nowhere: /dev/nowhere does not exist" in log_of(tmp_path)
        assert "Traceback" not in log_of(tmp_path)

    wait(work())


@pytest.mark.usefixtures("quick_torch")
def test_a_coordinator_that_refuses_this_agent(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(refusal=(grpc.StatusCode.INVALID_ARGUMENT, "the device type is unknown"))
        async with coordinator(desk) as port:
            with agent(port, tmp_path) as process:
                assert await ended(process) == 2
        assert "edgelut-agent: the device type is unknown" in log_of(tmp_path)

    wait(work())


def test_a_full_spool_pauses_the_task(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(mute=True)
        desk.leases.append(lease_of(tiny_run(rounds_per_task=16), task_id="t"))
        async with coordinator(desk) as port:
            process = patched("agent.spool.Spool.__init__.__defaults__ = (4000,)", port, tmp_path / "s")
            try:
                await desk.until(lambda: any(s.activity == "waiting: the spool is full" for s in desk.statuses))
                assert desk.ended == {}
                assert len(list((tmp_path / "s").glob("*.measurement"))) < 16
                desk.mute = False
                acknowledge = agent_pb2.Acknowledge(measurement_ids=list(desk.received))
                desk.say.put_nowait(agent_pb2.CoordinatorMessage(acknowledge=acknowledge))
                await desk.until(lambda: "t" in desk.ended)
                assert desk.ended["t"] == ""
                assert rounds_of(desk, "t") == list(range(16))
            finally:
                process.kill()
                process.wait()

    wait(work())


@pytest.mark.usefixtures("quick_torch")
def test_a_left_over_spool_is_sent_before_anything_is_measured(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "state")
    for number in range(3):
        spool.put(measurement(number, "earlier"))
    spool.close()

    async def work() -> None:
        desk = Desk()
        async with coordinator(desk) as port:
            with agent(port, tmp_path):
                await desk.until(lambda: "earlier" in desk.ended)
        assert [word for word in desk.order if word.startswith("meas")] == [f"measurement id-{n:04d}" for n in range(3)]

    wait(work())
