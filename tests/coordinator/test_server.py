"""The daemon over real sockets: sessions, runs, and what happens when things break."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import Coordinator
from protos.errors import NotFoundError
from protos.types import Run, RunSpec
from tests.coordinator.scripted import Agent, FakeMethods, coordinator, spec_of


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 120))


async def until(client: Coordinator, run_id: str, *states: str) -> Run:
    """Wait until the run is in one of the states."""
    while True:
        run = await asyncio.to_thread(client.run, run_id)
        if run.state in states:
            return run
        await asyncio.sleep(0.02)


def test_a_run_becomes_a_lut(tmp_path: Path) -> None:
    async def scene() -> None:
        methods = FakeMethods()
        async with coordinator(tmp_path, methods) as server, Agent(server.address) as agent:
            with Coordinator(server.address, cache=tmp_path / "cache") as client:
                run = await asyncio.to_thread(client.submit, spec_of(), "run-1")
                assert run.state in ("queued", "latency")
                first = await agent.expect("lease")
                assert (first.kind, first.first_round, first.fence, first.run_id) == ("latency", 0, 1, "run-1")
                await agent.perform(first)
                second = await agent.expect("lease")
                assert second.first_round == 2
                assert second.seed != first.seed
                await agent.perform(second)
                done = await until(client, "run-1", "done", "failed")
                assert (done.state, done.rounds, done.rel_halfwidth) == ("done", 4, 0.25)
                assert methods.looks == [2, 4]
                lut = await asyncio.to_thread(client.lut, "rpi3b")
                assert (lut.reference, lut.digest) == (done.lut_reference, done.lut_digest)

    play(scene())
