"""A process that loads the board on command: threads that hash, as `calibrate` and `doctor` need them.

`python -m agent.load --threads N --parent PID`: a line `busy N` or `idle` on standard input is answered, once it is so,
by the monotonic time in ns. Hashing leaves Python's global lock, so that each thread keeps one core busy.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from agent.emulator.cpu import process_time_ns
from agent.worker import die_with_parent
from protos.errors import UnavailableError

BLOCK = bytes(1 << 15)  # some 0.1 ms of hashing on a server, 1 ms on a Pi 3: how late a thread notices the end
ANSWER_S = 20.0
END_S = 5.0


class Load:
    """The process, from here. It ends with `close`, or when this process does."""

    def __init__(self, threads: int) -> None:
        """threads: the most that can be busy at a time."""
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        command = [sys.executable, "-m", "agent.load", "--threads", str(threads), "--parent", str(os.getpid())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the command, which then ends this
        )
        self.threads = threads
        self.pid = self._process.pid
        self.idle()  # it has started

    def busy(self, threads: int | None = None) -> int:
        """Keep so many cores busy, by default all threads; since when, monotonic ns."""
        return self._ask(f"busy {threads or self.threads}\n")

    def idle(self) -> int:
        """Rest; since when, monotonic ns."""
        return self._ask("idle\n")

    @property
    def used_s(self) -> float:
        """CPU time of all threads so far."""
        return (process_time_ns(self.pid) or 0) * 1e-9

    def _ask(self, command: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = b""
        try:
            self._process.stdin.write(command.encode())
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
            answer = self._process.stdout.readline() if ready else b""
        except BrokenPipeError:
            pass
        if not answer:
            self.close()
            raise UnavailableError("the process that loads the board has ended or does not answer.")
        return int(answer)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Hasher(threading.Thread):
    """Hashes from `begin` until `end` has returned."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._changed = threading.Condition()
        self._wanted = self._hashing = False

    def begin(self) -> None:
        with self._changed:
            self._wanted = True
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._wanted = False
            while self._hashing:
                self._changed.wait()

    def run(self) -> None:
        while True:
            with self._changed:
                self._hashing = False
                self._changed.notify_all()
                while not self._wanted:
                    self._changed.wait()
                self._hashing = True
            while self._wanted:
                hashlib.sha256(BLOCK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(options.parent)
    hashers = [_Hasher() for _ in range(options.threads)]
    for hasher in hashers:
        hasher.start()
    for line in sys.stdin:
        word, _, count = line.partition(" ")
        busy = int(count) if word == "busy" else 0
        began_ns = time.perf_counter_ns()  # a thread needs no time to begin, but ends after its block
        for hasher in hashers[:busy]:
            hasher.begin()
        for hasher in hashers[busy:]:
            hasher.end()
        print(began_ns if busy else time.perf_counter_ns(), flush=True)


if __name__ == "__main__":
    main()
