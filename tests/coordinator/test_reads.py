"""Reads while a run is being ingested: each is of one whole state, and none is older than the one before."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.client import Coordinator as Client
from coordinator.server import running
from lut_store.store import Store
from tests.coordinator.scripted import SPACE, Agent, Clock, FakeMethods, evidence_of, play, spec_of, url_of
from tests.lut_store.samples import lut_of

MESSAGES = 400
VERSIONS = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return url_of(tmp_path)
    found: str = request.getfixturevalue("postgres_url")
    return found


def test_reads_are_whole_and_never_go_back_while_a_run_is_ingested(url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        methods = FakeMethods()
        async with running("127.0.0.1:0", url, methods=methods, clock=Clock()) as own, Agent(own.address) as agent:
            with closing(Store(url)) as store, Client(own.address, cache=tmp_path / "operator") as operator:
                expected = {1: store.add_lut(lut_of(SPACE, seed=0))}
                await asyncio.to_thread(operator.submit, spec_of(rounds_per_task=1000), "run-1")
                lease = await agent.expect("lease")
                first = evidence_of(lease)[0]
                for number in range(MESSAGES):
                    await agent.offer(replace(first, id=f"m{number}", sequence=number, flags=("hot",)))
                reads, settled = [], asyncio.create_task(agent.settled(MESSAGES))
                for version in range(2, VERSIONS + 1):
                    reads.append(await asyncio.to_thread(cold, own.address, tmp_path / f"cache-{version}"))
                    lut = await asyncio.to_thread(store.add_lut, lut_of(SPACE, seed=version))
                    expected[lut.version] = lut
                    reads.append(await asyncio.to_thread(operator.lut, "rpi3b"))
                    assert reads[-1] == lut
                    assert [s.version for s in await asyncio.to_thread(operator.luts)] == list(range(version, 0, -1))
                    assert [d.name for d in await asyncio.to_thread(operator.devices)] == ["pi-01"]
                await settled
                assert agent.refused == []
                assert all(read == expected[read.version] for read in reads)
                assert [read.version for read in reads] == sorted(read.version for read in reads)
                assert (await asyncio.to_thread(operator.run, "run-1")).rounds_flagged == MESSAGES

    def cold(address: str, cache: Path) -> object:
        with Client(address, cache=cache) as client:
            return client.lut("rpi3b")

    play(scene())
