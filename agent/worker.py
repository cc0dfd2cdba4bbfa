"""The worker process: it alone loads torch, builds what a run measures and times it.

`python -m agent.worker --parent PID --cores 1,3`: requests come as frames (agent/frames.py) on stdin, answers go to
stdout, words for people to stderr. It dies with its parent, and ends when its stdin does.

Requests: `about`; `prepare` (body: RunSpec; `sweep_bytes`); `round` (`seed`, `round_index`; answer's body:
LatencyRound); `load` (`subject`, `index`, `duration_s`; answer's bodies: two PowerWindows in the head). Between the
parts of a long request the worker sends `{"alive": true}`, at most once a second. A request that fails is answered by
`{"error": …}`, and the worker goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO

from agent import frames
from protos import common_pb2
from protos.convert import from_message, to_message
from protos.types import RunSpec

if TYPE_CHECKING:
    from agent.timing import Bench

ALIVE_EVERY_S = 1.0
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int, how: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the process that started this one dies; exit when it has died already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)


class Worker:
    """Answers requests, one after another."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._bench: Bench | None = None
        self._alive_at_s = 0.0
        self._requests: dict[str, Callable[[Mapping[str, Any], bytes], frames.Frame]] = {
            "about": self._about,
            "prepare": self._prepare,
            "round": self._round,
            "load": self._load,
        }

    def serve(self, requests: BinaryIO) -> None:
        while (frame := frames.read(requests)) is not None:
            head, body = frame
            try:
                answer, payload = self._requests[head["request"]](head, body)
            except Exception as error:  # the daemon decides what a failure means; a broken process would end anyway
                traceback.print_exc()
                answer, payload = {"error": f"{type(error).__name__}: {error}"}, b""
            self._send({**answer, "rss_bytes": resident_bytes()}, payload)

    def _send(self, head: Mapping[str, object], body: bytes = b"") -> None:
        self._out.write(frames.pack(head, body))
        self._out.flush()

    def _alive(self) -> None:
        now_s = time.monotonic()
        if now_s - self._alive_at_s >= ALIVE_EVERY_S:
            self._alive_at_s = now_s
            self._send({"alive": True})

    def _about(self, _head: Mapping[str, Any], _body: bytes) -> frames.Frame:
        import torch

        build = " ".join(torch.__config__.show().split())
        return {"torch_version": torch.__version__, "torch_build": build}, b""

    def _prepare(self, head: Mapping[str, Any], body: bytes) -> frames.Frame:
        from agent.timing import Bench

        self._bench = None  # its memory is needed for the next one
        run = from_message(RunSpec, common_pb2.RunSpec.FromString(body))
        self._bench = Bench(run, head["sweep_bytes"], self._alive)
        return {}, b""

    def _round(self, head: Mapping[str, Any], _body: bytes) -> frames.Frame:
        result = self._ready().latency_round(head["seed"], head["round_index"])
        return {}, to_message(result).SerializeToString()

    def _load(self, head: Mapping[str, Any], _body: bytes) -> frames.Frame:
        windows = self._ready().load(head["subject"], head["index"], head["duration_s"])
        return {"windows": [asdict(window) for window in windows]}, b""

    def _ready(self) -> Bench:
        if self._bench is None:
            raise RuntimeError("nothing is prepared")
        return self._bench


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 — not before torch: pathlib is not loaded
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(prog="agent.worker", description="Started by edgelut-agent; not for people.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--cores", required=True, help="comma-separated")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the daemon, which ends the worker
    os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand between the frames
    import torch  # after the affinity, which its thread pool inherits

    torch.set_num_interop_threads(1)
    # Untrained weights must not cost what arithmetic on denormal numbers costs; trained networks do not meet them.
    torch.set_flush_denormal(True)
    Worker(answers).serve(sys.stdin.buffer)


if __name__ == "__main__":
    main()
