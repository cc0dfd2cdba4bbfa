"""What several figures need: a coordinator and an agent of their own for one run on this machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordinator.cli.connect import Link
from coordinator.cli.local import local_agent
from coordinator.cli.profile import new_run_id
from coordinator.client import Coordinator
from coordinator.embedded import serving
from protos.types import Run, RunSpec

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
        for run in link.client.watch(run_id):
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
