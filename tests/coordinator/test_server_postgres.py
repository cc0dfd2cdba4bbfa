"""Two coordinators, as processes of their own, over one PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from coordinator.claims import Claims
from coordinator.client import Coordinator as Client
from lut_store.store import Store
from protos.errors import ConflictError, StorageError
from tests.coordinator.scripted import Agent, play, spec_of, until
from tests.postgres import Server

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


@contextmanager
def daemon(url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A coordinator process and its address."""
    command = [sys.executable, "-m", "tests.coordinator.daemon", url]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


async def submitted(client: Client, run_id: str, device: str) -> None:
    await asyncio.to_thread(client.submit, spec_of(device), run_id)


def test_runs_through_both_coordinators_and_one_takes_over_when_the_other_dies(
    postgres_url: str, tmp_path: Path
) -> None:
    async def scene() -> None:
        with (
            daemon(postgres_url) as (first, one),
            daemon(postgres_url) as (_, two),
            Client(one, cache=tmp_path / "one") as a,
            Client(two, cache=tmp_path / "two") as b,
        ):
            async with Agent(one, "pi-01") as left, Agent(two, "pi-02") as right:
                work = [asyncio.create_task(agent.work()) for agent in (left, right)]
                await asyncio.gather(submitted(a, "run-a", "pi-01"), submitted(b, "run-b", "pi-02"))
                done = await asyncio.gather(until(a, "run-a", "done"), until(b, "run-b", "done"))
                for task in work:
                    task.cancel()
            assert sorted(run.lut_reference for run in done) == ["rpi3b/sample@1", "rpi3b/sample@2"]
            for client in (a, b):  # both see everything
                assert {run.run_id: run.state for run in client.runs()} == {"run-a": "done", "run-b": "done"}
                assert [lut.version for lut in client.luts()] == [2, 1]
                assert (
                    client.lut("rpi3b", version=1).digest
                    == {r.lut_reference: r for r in done}["rpi3b/sample@1"].lut_digest
                )

            async with Agent(one, "pi-01") as left:
                await submitted(a, "run-c", "pi-01")
                await left.perform(await left.expect("lease"))
                foreign = await asyncio.to_thread(b.run, "run-c")
                assert foreign.reason == "another coordinator process drives it"
                with pytest.raises(ConflictError, match="run-c is driven by another coordinator process"):
                    await asyncio.to_thread(b.cancel, "run-c")
                first.kill()
                first.wait()
            async with Agent(two, "pi-01") as heir:
                work = [asyncio.create_task(heir.work())]
                assert (await until(b, "run-c", "done", "failed")).state == "done"
                work[0].cancel()
            assert (await asyncio.to_thread(b.run, "run-c")).rounds == 4

    play(scene())
    store = Store(postgres_url)
    assert len({summary.version for summary in store.luts()}) == 3
    store.close()


# ---- claims ----


def test_a_claim_is_one_coordinator_s_until_it_lets_go(postgres_url: str) -> None:
    mine, theirs = Claims(postgres_url), Claims(postgres_url)
    assert mine.take("run")
    assert mine.take("run")
    assert not theirs.take("run")
    assert theirs.taken("run")
    assert not mine.taken("run")
    assert not theirs.taken("other")
    mine.drop("run")
    assert not theirs.taken("run")
    assert theirs.take("run")
    theirs.close()
    assert until_true(lambda: mine.take("run"))
    mine.close()


def until_true(found: object) -> bool:
    """Whether `found` becomes true: the server notices the end of a session a little later."""
    assert callable(found)
    deadline_s = time.monotonic() + DEADLINE_S
    while not found():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def test_claims_that_a_restarted_server_has_forgotten(postgres: Server, postgres_url: str) -> None:
    mine, theirs = Claims(postgres_url), Claims(postgres_url)
    assert all(mine.take(run_id) for run_id in ("kept", "lost"))
    assert mine.lost() == []
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
    assert until_true(lambda: theirs.take("lost"))
    with pytest.raises(StorageError, match="the locks of the runs cannot be reached"):
        mine.lost()
    assert mine.lost() == ["lost"]
    assert mine.lost() == []
    assert not mine.take("lost")
    assert not theirs.take("kept")
    theirs.drop("lost")
    assert mine.take("lost")
    mine.close()
    theirs.close()


def test_a_coordinator_over_a_server_that_is_not_there_says_so() -> None:
    command = [sys.executable, "-m", "coordinator", "serve", "--listen", "127.0.0.1:0", "--db"]
    done = subprocess.run(
        [*command, "postgresql://me:secret@127.0.0.1:1/edgelut"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "no database server answers there" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
