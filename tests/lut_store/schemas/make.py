"""Keeps a database of the schema that the program has now: `python -m tests.lut_store.schemas.make [FOLDER]`.

Run it when a schema is released, and never again for that schema: the files must have been made by its own code. It
writes NUMBER.db.gz (SQLite), NUMBER.sql.gz (PostgreSQL, by pg_dump) and NUMBER.json (what they hold).
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lut_store.schema import REVISION
from lut_store.store import Store
from protos.types import Configuration, Device, HostFacts, LutQuery, MeterInfo
from tests.lut_store.samples import lut_of, measurement_of, round_of, run_of, trace_of
from tests.postgres import CARELESS, server

FAR = 1e12


def fill(store: Store) -> dict[str, Any]:
    """Something of everything; what a later program must find."""
    spec = run_of(networks=3)
    for name in ("run-done", "run-going"):
        store.add_run(name, spec)
    store.upsert_device(
        Device("pi-01", "rpi3b", state="idle", facts=HostFacts(model="Pi 3B"), meter=MeterInfo("um25c"))
    )
    ids = []
    for number, (run_id, kind) in enumerate(
        (("run-done", "latency"), ("run-done", "energy"), ("run-going", "latency"))
    ):
        lease = store.lease_new_task(run_id, kind, 2**64 - 1 - number, number, "pi-01", FAR)
        parts = (
            [round_of(spec, seed=n) for n in range(2)] if kind == "latency" else [trace_of(seed=n) for n in range(2)]
        )
        own = [
            measurement_of(lease.task_id, part, sequence=n, name=f"m{number}{n}", flags=("hot",) if n else ())
            for n, part in enumerate(parts)
        ]
        assert {outcome.status for outcome in store.add_measurements("pi-01", own)} == {"stored"}
        ids += [measurement.id for measurement in own]
        if run_id == "run-done":
            store.end_task(lease.task_id, lease.fence)
    luts = [store.add_lut(lut_of(seed=0), ["run-done"]), store.add_lut(lut_of(seed=1))]
    steady = replace(Configuration("rpi3b", "sample"), context="steady", threads=4)
    luts.append(store.add_lut(lut_of(seed=2, energy=False, configuration=steady)))
    store.set_run("run-done", "done", lut_digest=luts[0].digest, lut_reference=luts[0].reference)
    store.set_run("run-going", "latency")
    store.move_tag(LutQuery(digest=luts[0].digest), "paper", moved_by="ada", reason="published")
    held: dict[str, Any] = {"measurements": sorted(ids), "digests": {str(lut.version): lut.digest for lut in luts}}
    return held | {"tags": {"paper": 1}}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "edgelut.db"
        with closing(Store(f"sqlite:///{path}")) as store:
            held = fill(store)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("VACUUM")
        _keep(folder / f"{REVISION}.db.gz", path.read_bytes())
    with server(*CARELESS, program="pg_dump") as own, own.database() as url:
        with closing(Store(url.replace("postgresql:", "postgresql+psycopg:"))) as store:
            assert fill(store) == held
        command = [own.binaries / "pg_dump", "--inserts", "--no-owner", "--no-privileges", url]
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # Lines for psql alone.
        kept = [line for line in dump.splitlines(keepends=True) if not line.startswith("\\")]
        _keep(folder / f"{REVISION}.sql.gz", "".join(kept).encode())
    (folder / f"{REVISION}.json").write_text(json.dumps(held, indent=1) + "\n")


def _keep(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, mtime=0))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
