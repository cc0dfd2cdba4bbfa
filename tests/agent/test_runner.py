"""The real runner and its worker: what a worker is given, and what becomes of one that dies or hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.runner import RunnerError, UnfitError, WorkerRunner, check_memory, measured_cores
from tests.agent.spaces import lease_of, tiny_run, wait

CORES = os.sched_getaffinity(0)
LONG = 20_000  # paths in a round that does not end by itself


@asynccontextmanager
async def runner(silence_s: float = 60.0, idle_stop_s: float = 120.0) -> AsyncIterator[WorkerRunner]:
    made = WorkerRunner(silence_s=silence_s, idle_stop_s=idle_stop_s)
    try:
        yield made
    finally:
        await made.close()


def pid_of(made: WorkerRunner) -> int:
    assert made.worker_pid is not None
    return made.worker_pid


async def until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    """Ended, though its parent may not have asked yet."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_a_round_from_the_worker() -> None:
    async def work() -> None:
        async with runner() as made:
            run = tiny_run()
            await made.prepare(run)
            result = await made.latency_round(lease_of(run), 3)
            assert result.round_index == 3
            assert result.ended_ns <= made.clock.now_ns()  # one clock in both processes
            gap, window = await made.load("item", 0, 0.01)
            assert gap.ended_ns == window.started_ns
            idle = await made.idle(0.01)
            assert idle.ended_ns - idle.started_ns >= 10_000_000
            facts = await made.facts()
            assert facts.torch_version.startswith("2.")
            assert "\n" not in facts.torch_build
            assert made.worker_rss_bytes > 50e6
            with pytest.raises(RunnerError, match="item 99 does not exist"):  # which leaves the worker alive
                await made.load("item", 99, 0.01)
            pid = pid_of(made)
            await made.prepare(tiny_run())
            assert pid_of(made) == pid  # an equal run is there already
        assert gone(pid)

    wait(work())


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_the_worker_has_its_cores_and_threads_and_the_daemon_the_others() -> None:
    async def work() -> None:
        async with runner() as made:
            await made.prepare(tiny_run())
            last = max(CORES)
            assert os.sched_getaffinity(pid_of(made)) == {last}
            assert os.sched_getaffinity(0) == CORES - {last}
            assert environment(pid_of(made))["OMP_NUM_THREADS"] == "1"
            one = pid_of(made)
            await made.prepare(tiny_run(threads=2))
            assert pid_of(made) != one
            assert len(os.sched_getaffinity(pid_of(made))) == 2
            assert environment(pid_of(made))["OMP_NUM_THREADS"] == "2"
        assert os.sched_getaffinity(0) == CORES

    wait(work())


def test_measured_cores_spare_core_0() -> None:
    assert measured_cores({0, 1, 2, 3}, 1) == (3,)
    assert measured_cores({0, 1, 2, 3}, 3) == (1, 2, 3)
    assert measured_cores({0}, 1) == (0,)
    with pytest.raises(UnfitError, match="5 threads, but this board has 4 cores"):
        measured_cores(range(4), 5)


def test_a_worker_that_is_killed_or_frozen_is_named_and_another_takes_its_place() -> None:
    async def work() -> None:
        async with runner(silence_s=3.0) as made:
            endless = tiny_run(paths_per_round=LONG)
            await made.prepare(endless)
            round_ = asyncio.create_task(made.latency_round(lease_of(endless), 0))
            await asyncio.sleep(0.2)
            os.kill(pid_of(made), signal.SIGKILL)
            with pytest.raises(RunnerError, match=r"the worker died in 'round': killed by SIGKILL"):
                await round_
            with pytest.raises(RunnerError, match="prepare the run again"):
                await made.latency_round(lease_of(endless), 0)
            short = tiny_run()
            await made.prepare(short)
            assert (await made.latency_round(lease_of(short), 0)).paths is not None
            pid = pid_of(made)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(RunnerError, match=r"the worker hung: silent for 3 s in 'round'"):
                await made.latency_round(lease_of(short), 0)
            assert gone(pid)

    wait(work())


def test_a_long_round_that_says_that_it_is_alive_does_not_hang() -> None:
    async def work() -> None:
        async with runner(silence_s=3.0) as made:
            run = tiny_run(paths_per_round=LONG)
            await made.prepare(run)
            round_ = asyncio.create_task(made.latency_round(lease_of(run), 0))
            done, _ = await asyncio.wait({round_}, timeout=4.5)
            assert not done
            round_.cancel()
            with pytest.raises(asyncio.CancelledError):
                await round_
            assert made.worker_pid is None  # its answer would have come to the next request

    wait(work())


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def work() -> None:
        async with runner() as made:
            with pytest.raises(RunnerError, match=r"exit status 1: .*libcudart\.so\.12"):
                await made.facts()

    wait(work())


def test_more_threads_than_cores() -> None:
    async def work() -> None:
        async with runner() as made:
            with pytest.raises(UnfitError, match="1000 threads"):
                await made.prepare(tiny_run(threads=1000))

    wait(work())


@pytest.mark.parametrize("method", ["paths", "isolated"])
def test_a_run_that_does_not_fit_the_free_memory_is_refused_with_the_sizes(method: str) -> None:
    run = tiny_run(method=method)
    check_memory(run, 1 << 20, 200_000_000)
    check_memory(run, 1 << 20, None)  # a board that does not say
    with pytest.raises(UnfitError, match=r"19\d MB for tiny with 4 networks and 100 MB are free"):
        check_memory(run, 1 << 20, 100_000_000)


def test_a_worker_without_work_is_ended_and_comes_back() -> None:
    async def work() -> None:
        async with runner(idle_stop_s=0.1) as made:
            await made.prepare(tiny_run())
            pid = pid_of(made)
            await until(lambda: gone(pid))
            await made.prepare(tiny_run())
            assert pid_of(made) != pid

    wait(work())


def test_the_worker_dies_with_its_parent() -> None:
    code = (
        "import asyncio, os\n"
        "from agent.runner import WorkerRunner\n"
        "async def main():\n"
        "    runner = WorkerRunner()\n"
        "    await runner.facts()\n"
        "    print(runner.worker_pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    worker = int(done.stdout)
    wait(until(lambda: gone(worker)))


def test_the_daemon_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, agent.__main__, agent.daemon, agent.runner, agent.task\n"
        "print([name for name in ('torch', 'numpy', 'typer', 'rich', 'coordinator') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
