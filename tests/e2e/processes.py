"""Real commands in a world of their own: data, cache and state under one folder, ports that the system gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
DEADLINE_S = 240.0  # of anything; a loaded machine is slow, and nothing here asserts how long it takes
SPEED = "100"  # of emulated boards: their clocks run so much faster

TINY = """
name = "tiny"
input = { channels = 3, height = 16, width = 16 }
stem = [{ kind = "conv", channels = 8, kernel = 3, stride = 2, activation = "none" }]
stages = [
    { channels = 8, repeats = 2 },
    { channels = 16, repeats = 2, stride = 2 },
]
head = [{ kind = "pool_linear", channels = 10 }]

[candidates]
k3_e1 = { kernel = 3, expansion = 1 }
k3_e3 = { kernel = 3, expansion = 3 }
k5_e6 = { kernel = 5, expansion = 6 }
skip = { kind = "skip" }
"""


class World:
    """A folder, an environment and the processes that were started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("EDGELUT_")},
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "COLUMNS": "160",
        }
        self.space = folder / "tiny.toml"
        self.space.write_text(TINY)

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the world's folder; fails with what it said when its status is another."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == status, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *command: str) -> Any:
        return json.loads(self.run(*command).stdout)

    @contextmanager
    def started(self, *command: str, ready: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """A process that has printed a line with `ready`, and that line; ended with SIGTERM when the block ends."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        lines: list[str] = []
        found = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if ready in line:
                    found.set()
            found.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            assert found.wait(DEADLINE_S), f"{command} was not ready: {''.join(lines)}"
            assert process.poll() is None, f"{command} ended: {''.join(lines)}"
            yield process, next(line for line in lines if ready in line)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(10)

    @contextmanager
    def daemon(self) -> Iterator[str]:
        """`coordinator serve`; every later command of the world finds it. Gives its address."""
        with self.started("coordinator", "serve", "--listen", "127.0.0.1:0", ready="listening on") as (_, line):
            address = line.split("listening on ")[1].split(",")[0].strip()
            self.environment["EDGELUT_COORDINATOR"] = address
            try:
                yield address
            finally:
                del self.environment["EDGELUT_COORDINATOR"]

    @contextmanager
    def emulated(self, *options: str) -> Iterator[None]:
        """An emulated Pi 3B that the coordinator knows."""
        command = ("edgelut-agent", "emulate", "--device-type", "rpi3b", "--speed", SPEED, *options)
        with self.started(*command, ready="connected to the coordinator"):
            yield

    def wait_for(self, what: str, *command: str) -> Any:
        """Ask until the JSON answer holds `what` in its text."""
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            answer = self.json(*command)
            if what in json.dumps(answer):
                return answer
            time.sleep(0.2)
        raise AssertionError(f"{' '.join(command)} never said {what}")
