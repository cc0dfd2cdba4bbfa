"""What several figures need: a coordinator and an agent of their own for one run on this machine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from coordinator.cli.connect import Link
from coordinator.cli.local import local_agent
from coordinator.cli.profile import new_run_id
from coordinator.client import Coordinator
from coordinator.embedded import serving
from protos.types import Run, RunSpec
from tests import postgres

OUT = Path("benchmarks/out")


@contextmanager
def private_coordinator() -> Iterator[Link]:
    """A coordinator over a database that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgelut-bench-") as folder:
        database = Path(folder) / "edgelut.db"
        with serving(f"sqlite:///{database}") as address, Coordinator(address, cache=Path(folder) / "cache") as client:
            yield Link(client, embedded=True, where=str(database))


def run_here(link: Link, spec: RunSpec, meter: str = "none") -> Run:
    """Perform a run on this machine with a new agent and a new worker. Raises RuntimeError when it does not come to
    its end.
    """
    with local_agent(link, meter, Path(link.where).parent / "agent"):
        run_id = new_run_id()
        link.client.submit(spec, run_id)
        last = None
        for run in link.client.watch_run(run_id):
            last = run
    if last is None or last.state != "done":
        raise RuntimeError(f"run {run_id} {last.state if last else 'vanished'}: {last.reason if last else ''}")
    return last


def keep(name: str, record: Any) -> Path:
    """Write what a figure was made of to benchmarks/out/NAME.json."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(record, indent=1))
    return path


class Serving(NamedTuple):
    """A server process."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """CPU time that it has used so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def server_process(command: list[str]) -> Iterator[Serving]:
    """A server that prints its address on its first line; ended afterwards."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        words = server.stdout.readline().split()
        yield Serving(next(word.rstrip(",") for word in words if word.startswith("127.0.0.1:")), server.pid)
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()


@contextmanager
def coordinator_process(url: str) -> Iterator[Serving]:
    """`coordinator serve` over a database, as users run it."""
    command = [sys.executable, "-m", "coordinator", "serve", "--listen", "127.0.0.1:0", "--db", url]
    with server_process(command) as serving:
        yield serving


@contextmanager
def databases() -> Iterator[dict[str, Callable[[str], str]]]:
    """By kind, what makes the URL of a new empty database: an embedded one and, where there is a binary, one of a
    PostgreSQL server, whose commits are as durable as they usually are.
    """
    with tempfile.TemporaryDirectory(prefix="edgelut-bench-") as folder, contextlib.ExitStack() as stack:
        makers: dict[str, Callable[[str], str]] = {"sqlite": lambda name: f"sqlite:///{folder}/{name}.db"}
        if postgres.binaries() is None:
            print(f"no PostgreSQL {postgres.OLDEST} or newer was found: SQLite alone")
        else:
            server = stack.enter_context(postgres.server("shared_buffers=256MB", "max_wal_size=4GB"))
            makers["postgresql"] = lambda _: stack.enter_context(server.database())
        yield makers
