"""Raw measurements that may go, and those that may never."""

from __future__ import annotations

from contextlib import closing

import pytest

from lut_store.database import Database
from lut_store.retention import NEEDED, RECENT, TAGGED, UNFINISHED, Needs, prune, reason_to_keep, tags_of
from lut_store.schema import measurements, tag_moves
from lut_store.store import Store
from protos.types import RunSpec
from tests.lut_store.samples import lut_of, measurement_of, round_of, run_of

FAR = 1e12
OLD, NEW = 1000.0, 2000.0
BETWEEN = 1500.0
VERSION, STABLE = Needs(1), Needs(2, frozenset({"stable"}))


@pytest.mark.parametrize(
    ("state", "needs", "newest", "untagged", "reason"),
    [
        ("done", Needs(), OLD, False, ""),
        ("failed", Needs(), OLD, False, ""),
        ("cancelled", Needs(), OLD, False, ""),
        ("latency", Needs(), OLD, True, UNFINISHED),
        ("building", VERSION, OLD, True, UNFINISHED),
        ("done", Needs(), NEW, False, RECENT),
        ("done", Needs(), BETWEEN, False, RECENT),
        ("done", VERSION, OLD, False, NEEDED),
        ("done", VERSION, OLD, True, ""),
        ("done", VERSION, NEW, True, RECENT),
        ("done", STABLE, OLD, False, TAGGED),
        ("done", STABLE, OLD, True, TAGGED),
    ],
)
def test_why_a_run_keeps_what_it_measured(state: str, needs: Needs, newest: float, untagged: bool, reason: str) -> None:
    assert reason_to_keep(state, needs, newest, BETWEEN, untagged=untagged) == reason


@pytest.fixture
def spec() -> RunSpec:
    return run_of(networks=3)


def measured(store: Store, database: Database, spec: RunSpec, run_id: str, state: str, when_s: float) -> None:
    """A run with two measurements that arrived then."""
    store.add_run(run_id, spec)
    lease = store.lease_new_task(run_id, "latency", 0, 0, "pi", FAR)
    own = [measurement_of(lease.task_id, round_of(spec, seed=n), sequence=n) for n in range(2)]
    assert {outcome.status for outcome in store.add_measurements("pi", own)} == {"stored"}
    with database.writing() as connection:
        mine = measurements.c.task_id == lease.task_id
        connection.execute(measurements.update().where(mine).values(received_wall_s=when_s))
    store.set_run(run_id, state)


def count(store: Store, run_id: str) -> int:
    return sum(1 for _ in store.messages(run_id, "latency"))


def tag(database: Database, digest: str, name: str, number: int) -> None:
    with database.writing() as connection:
        values = {"configuration_id": 1, "name": name, "digest": digest, "previous_version": 0, "moved_wall_s": 1.0}
        values |= {"number": number, "moved_by": "me", "forced": False, "reason": "", "objections": "[]"}
        connection.execute(tag_moves.insert().values(values))


def test_only_what_nothing_needs_goes(database_url: str, spec: RunSpec) -> None:
    with closing(Store(database_url)) as store, closing(Database(database_url)) as database:
        for run_id, state, when_s in (
            ("failed", "failed", OLD),
            ("recent", "cancelled", NEW),
            ("going", "energy", OLD),
            ("first", "done", OLD),
            ("stable", "done", OLD),
            ("checked", "done", OLD),
            ("latest", "done", OLD),
        ):
            measured(store, database, spec, run_id, state, when_s)
        store.add_run("empty", spec)
        store.set_run("empty", "failed", "no board")
        built = {name: store.add_lut(lut_of(seed=n), [name]) for n, name in enumerate(("first", "stable", "latest"))}
        store.set_run("checked", "done", lut_digest=built["stable"].digest)  # it validated that version
        tag(database, built["first"].digest, "stable", 1)
        tag(database, built["stable"].digest, "stable", 2)
        with database.reading() as connection:
            assert tags_of(connection) == {built["stable"].digest: {"stable"}, built["latest"].digest: {"latest"}}

        planned = prune(database, BETWEEN, dry_run=True)
        assert count(store, "failed") == 2
        done = prune(database, BETWEEN)
        assert done == planned
        assert [(run.run_id, run.measurements) for run in done.removed] == [("failed", 2)]
        assert done.removed[0].body_bytes > 100
        assert done.kept == {UNFINISHED: 1, TAGGED: 3, NEEDED: 1, RECENT: 1}
        assert count(store, "failed") == 0
        assert "its raw measurements were removed on 20" in store.run("failed").reason
        assert store.run("empty").reason == "no board"

        again = prune(database, BETWEEN, untagged=True)
        assert [run.run_id for run in again.removed] == ["first"]
        kept = {run_id: count(store, run_id) for run_id in ("recent", "going", "stable", "checked", "latest")}
        assert set(kept.values()) == {2}
        assert store.lut_by_digest(built["first"].digest) == built["first"]  # the numbers stay for ever
        assert prune(database, BETWEEN, untagged=True).removed == ()
