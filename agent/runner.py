"""The one door to the measured machine: clocks, the Runner interface, and the real runner with its worker process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from agent import frames
from agent.host import HostReader, sweep_bytes
from nas.opstats import run_memory_bytes
from protos import common_pb2
from protos.convert import from_message, to_message
from protos.errors import EdgelutError
from protos.types import HostFacts, HostState, LatencyRound, Lease, PowerWindow, RunSpec

log = logging.getLogger(__name__)

START_S = 180.0  # torch alone takes 14 s to load on a slow board
SILENCE_S = 60.0  # the worker says every second that it is alive; one call of a large network takes a few seconds
IDLE_STOP_S = 120.0  # a board at rest needs no process with torch in it
ENDING_S = 2.0  # from a closed pipe to the end of the process
STDERR_LINES = 12
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class RunnerError(EdgelutError):
    """The runner failed; it can be prepared again and the work repeated."""


class UnfitError(RunnerError):
    """This board cannot do what the run asks for: to try again does not help."""


class Clock(Protocol):
    """Time as the measured device has it; an emulated one may run faster than the wall clock."""

    def now_ns(self) -> int:
        """Monotonic, from anywhere."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    """CLOCK_MONOTONIC, the same in every process of this machine."""

    def now_ns(self) -> int:
        return time.perf_counter_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Runner(Protocol):
    """Whatever can be asked to run blocks and networks. All times are of `clock`. Methods raise RunnerError."""

    clock: Clock

    async def facts(self) -> HostFacts: ...

    async def state(self) -> HostState: ...

    async def prepare(self, run: RunSpec) -> None:
        """Build what the run measures; cheap when it is there already."""

    async def latency_round(self, lease: Lease, round_index: int) -> LatencyRound: ...

    async def load(self, subject: str, index: int, duration_s: float) -> tuple[PowerWindow, ...]:
        """Run an item or a network back to back: a gap (set-up), then the window."""
        ...

    async def idle(self, duration_s: float) -> PowerWindow: ...

    async def close(self) -> None: ...


def measured_cores(available: Iterable[int], threads: int) -> tuple[int, ...]:
    """The cores that the worker gets: the last ones, because interrupts and system services live on core 0.

    Raises UnfitError when there are fewer cores than threads.
    """
    cores = sorted(available)
    if threads > len(cores):
        raise UnfitError(f"the run measures {threads} threads, but this board has {len(cores)} cores for them")
    return tuple(cores[-threads:])


def check_memory(run: RunSpec, sweep: int, available_bytes: int | None) -> None:
    """Raises UnfitError, with the sizes, when a new worker for this run would not fit into the memory that is free."""
    needed_bytes = run_memory_bytes(run, sweep)
    if available_bytes is not None and needed_bytes > available_bytes:
        raise UnfitError(
            f"the worker would need {needed_bytes / 1e6:.0f} MB for {run.space.name} with {len(run.networks)} networks "
            f"and {available_bytes / 1e6:.0f} MB are free on this board; end other programs, or take a smaller preset"
        )


class WorkerRunner:
    """The real runner: a worker process, pinned to the measured cores, with this process on the others.

    A worker that has not said for silence_s that it is alive, or died, costs a RunnerError with its last words on
    stderr; the next `prepare` starts another one. After idle_stop_s without a request the worker is ended.
    """

    def __init__(
        self,
        host: HostReader | None = None,
        *,
        silence_s: float = SILENCE_S,
        idle_stop_s: float = IDLE_STOP_S,
    ) -> None:
        self.clock: Clock = RealClock()
        self.own_pids: set[int] = set()  # processes besides daemon and worker that are the agent's: an emulated meter
        self._available = os.sched_getaffinity(0)
        self._host = host or HostReader(own_pids=self._pids, core=max(self._available))
        self._silence_s = silence_s
        self._idle_stop_s = idle_stop_s
        self._process: Process | None = None
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._stderr_reader: asyncio.Task[None] | None = None
        self._threads = 0
        self._prepared: RunSpec | None = None
        self._busy = asyncio.Lock()
        self._idle_stop: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._torch: tuple[str, str] | None = None  # version, build
        self.worker_rss_bytes = 0

    @property
    def worker_pid(self) -> int | None:
        """The process whose CPU time is what is measured; None when there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def facts(self) -> HostFacts:
        """Starts the worker once, to ask which torch it has."""
        facts = await asyncio.to_thread(self._host.facts)
        async with self._busy:
            if self._torch is None:
                await self._start(threads=1)
            assert self._torch is not None  # a worker that started has said it
        return replace(facts, torch_version=self._torch[0], torch_build=self._torch[1])

    async def state(self) -> HostState:
        return await asyncio.to_thread(self._host.state)

    async def prepare(self, run: RunSpec) -> None:
        async with self._busy:
            if self.worker_pid is not None and self._prepared == run:
                return
            facts = await asyncio.to_thread(self._host.facts)
            sweep = run.plan.sweep_bytes or sweep_bytes(facts.l2_bytes, facts.llc_bytes)
            if self._prepared is not None:
                await self._end_worker()  # what it holds is needed for the next one
            check_memory(run, sweep, self._host.memory_available_bytes())
            await self._start(run.plan.threads)
            head, _ = await self._ask({"request": "prepare", "sweep_bytes": sweep}, to_message(run).SerializeToString())
            self._prepared = run
            log.info(
                "worker %s: %s built, %d operators and %d networks, %.0f MB",
                self.worker_pid,
                run.space.name,
                len(run.items),
                len(run.networks),
                head["rss_bytes"] / 1e6,
            )

    async def latency_round(self, lease: Lease, round_index: int) -> LatencyRound:
        async with self._busy:
            _, body = await self._ask({"request": "round", "seed": lease.seed, "round_index": round_index})
        return from_message(LatencyRound, common_pb2.LatencyRound.FromString(body))

    async def load(self, subject: str, index: int, duration_s: float) -> tuple[PowerWindow, ...]:
        request = {"request": "load", "subject": subject, "index": index, "duration_s": duration_s}
        async with self._busy:
            head, _ = await self._ask(request, expected_s=duration_s)
        return tuple(PowerWindow(**window) for window in head["windows"])

    async def idle(self, duration_s: float) -> PowerWindow:
        started_ns = self.clock.now_ns()
        await self.clock.sleep(duration_s)
        return PowerWindow("idle", started_ns, self.clock.now_ns())

    async def close(self) -> None:
        """End the worker and leave this process on all its cores again; `prepare` may start another worker."""
        if self._idle_stop is not None:
            self._idle_stop.cancel()
        await self._end_worker()
        _pin_self(self._available)

    # ---- the worker

    def _pids(self) -> Iterable[int]:
        worker = [self.worker_pid] if self.worker_pid is not None else []
        return (os.getpid(), *worker, *self.own_pids)

    async def _start(self, threads: int) -> None:
        """A worker for this number of threads: the one that runs, or a new one."""
        if self.worker_pid is not None and self._threads == threads:
            return
        await self._end_worker()
        cores = measured_cores(self._available, threads)
        _pin_self(self._available - set(cores) or self._available)
        command = [sys.executable, "-m", "agent.worker", "--parent", str(os.getpid())]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "--cores",
            ",".join(map(str, cores)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )
        self._threads = threads
        self._stderr.clear()
        self._stderr_reader = asyncio.create_task(self._read_stderr(self._process))
        head, _ = await self._ask({"request": "about"}, expected_s=START_S)
        self._torch = head["torch_version"], head["torch_build"]

    async def _read_stderr(self, process: Process) -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(1 << 16):
            for line in data.decode(errors="replace").splitlines():
                self._stderr.append(line)
                log.debug("worker %d: %s", process.pid, line)

    async def _ask(self, head: Mapping[str, object], body: bytes = b"", expected_s: float = 0.0) -> frames.Frame:
        """The answer to a request. Whatever goes wrong on the way ends the worker: its pipes would not be in step."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RunnerError("no worker runs; prepare the run again")
        if self._idle_stop is not None:
            self._idle_stop.cancel()
        try:
            process.stdin.write(frames.pack(head, body))
            await process.stdin.drain()
            while True:
                limit_s = self._silence_s + expected_s
                answer = await asyncio.wait_for(frames.read_async(process.stdout), limit_s)
                if "alive" not in answer[0]:
                    break
        except TimeoutError:
            await self._end_worker()
            raise RunnerError(f"the worker hung: silent for {limit_s:.0f} s in {head['request']!r}") from None
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            reason = await self._last_words(process)
            raise RunnerError(f"the worker died in {head['request']!r}: {reason}") from None
        except BaseException:
            await self._end_worker()
            raise
        self._idle_stop = asyncio.get_running_loop().call_later(self._idle_stop_s, self._stop_idle)
        self.worker_rss_bytes = answer[0]["rss_bytes"]
        if "error" in answer[0]:
            raise RunnerError(f"the worker failed in {head['request']!r}: {answer[0]['error']}")
        return answer

    def _stop_idle(self) -> None:
        self._stopping = asyncio.create_task(self._end_idle())

    async def _end_idle(self) -> None:
        async with self._busy:
            if self._idle_stop is None or not self._idle_stop.cancelled():  # nothing was asked meanwhile
                log.info("worker %s: ended after %.0f s without work", self.worker_pid, self._idle_stop_s)
                await self.close()

    async def _last_words(self, process: Process) -> str:
        """How the worker ended, and what it said last."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), ENDING_S)
        await self._end_worker()
        status = await process.wait()
        how = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        return ": ".join([how, *(["; ".join(self._stderr)] if self._stderr else [])])

    async def _end_worker(self) -> None:
        process, self._process, self._prepared = self._process, None, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        if self._stderr_reader is not None:
            await self._stderr_reader


def _pin_self(cores: Iterable[int]) -> None:
    """Move every thread of this process to `cores`; threads that it starts later inherit them."""
    wanted = set(cores)
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), wanted)
