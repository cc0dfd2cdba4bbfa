"""Figure: reading a LUT over gRPC, cold and warm, with 1 and with 10⁴ versions stored, and while a run is ingested.

Cold: a new client with an empty cache, from the connection to the decoded table. Warm: the client asks again, and the
coordinator says that its copy is still the newest. The two databases take turns.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import sqlalchemy as sa

from benchmarks import ingest
from benchmarks.runs import coordinator_process, databases, keep
from coordinator.client import Coordinator
from lut_store.database import Database
from lut_store.schema import luts, series
from lut_store.store import Store
from tests.lut_store.samples import fbnet, lut_of

FEW, MANY = 1, 10_000
READS = 40
CHUNK = 500


def main() -> None:
    record = {}
    with databases() as makers:
        for kind, make in makers.items():
            urls = {count: make(f"reads-{count}") for count in (FEW, MANY)}
            for count, url in urls.items():
                fill(url, count)
            with coordinator_process(urls[FEW]) as few, coordinator_process(urls[MANY]) as many:
                record[kind] = _compare(kind, few.address, many.address)
    keep("reads", record)


def fill(url: str, versions: int) -> None:
    """That many versions of one configuration, each with a document of its usual size; the newest is a real one."""
    with closing(Store(url)) as store:
        store.add_lut(lut_of(fbnet(), seed=0))
        if versions < 2:
            return
        with closing(Database(url)) as database, database.writing() as connection:
            first = connection.execute(sa.select(luts)).mappings().one()
            for start in range(2, versions, CHUNK):
                rows = [
                    {**first, "version": number, "digest": hashlib.sha256(str(number).encode()).hexdigest()}
                    for number in range(start, min(start + CHUNK, versions))
                ]
                connection.execute(luts.insert(), rows)
            connection.execute(series.update().values(last_version=versions - 1))
        newest = store.add_lut(lut_of(fbnet(), seed=1))
        assert newest.version == versions


def cold(address: str) -> float:
    """Seconds."""
    with tempfile.TemporaryDirectory(prefix="edgelut-bench-") as cache:
        started_s = time.perf_counter()
        with Coordinator(address, cache=Path(cache)) as client:
            client.lut("rpi3b", space="fbnet-cifar10")
        return time.perf_counter() - started_s


def _compare(kind: str, few: str, many: str) -> dict[str, float]:
    times: dict[str, list[float]] = {"few": [], "many": [], "warm": [], "busy": []}
    for address in (few, many):
        cold(address)
    for _ in range(READS):
        times["few"].append(cold(few))
        times["many"].append(cold(many))
    times["warm"] = _warm(many)
    times["busy"] = _while_ingesting(many)
    found = {name: median(values) for name, values in times.items()}
    ratio = median(b / a for a, b in zip(times["few"], times["many"], strict=True))
    worst = sorted(times["busy"])[int(0.95 * len(times["busy"]))]
    print(
        f"{kind:10} cold {found['few'] * 1e3:.1f} ms with 1 version, {found['many'] * 1e3:.1f} ms with {MANY}: "
        f"ratio {ratio:.2f} (median of {READS} pairs)"
    )
    print(
        f"{'':10} warm {found['warm'] * 1e3:.2f} ms; cold while a run is ingested as fast as it goes "
        f"{found['busy'] * 1e3:.1f} ms (95th percentile {worst * 1e3:.1f} ms)"
    )
    return {**found, "ratio": ratio, "busy_p95": worst}


def _warm(address: str) -> list[float]:
    times = []
    with (
        tempfile.TemporaryDirectory(prefix="edgelut-bench-") as cache,
        Coordinator(address, cache=Path(cache)) as client,
    ):
        client.lut("rpi3b", space="fbnet-cifar10")
        for _ in range(READS):
            started_s = time.perf_counter()
            client.lut("rpi3b", space="fbnet-cifar10")
            times.append(time.perf_counter() - started_s)
    return times


def _while_ingesting(address: str) -> list[float]:
    spec = ingest.endless_run()
    template = asyncio.run(ingest.round_message(spec))
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            asyncio.run(ingest.stream(address, spec, template, submit=True))

    return _beside(stream, stop, lambda: [cold(address) for _ in range(READS)])


def _beside(work: Callable[[], None], stop: threading.Event, measure: Callable[[], list[float]]) -> list[float]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        time.sleep(1.0)  # until the stream flows
        return measure()
    finally:
        stop.set()
        thread.join()
