"""What only a database server does: it refuses, goes away, comes back, and serves several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from lut_store.database import Database
from lut_store.engines import parse_url, shown
from lut_store.store import Store
from protos.errors import BadInputError, StorageError
from tests.lut_store.samples import lut_of, measurement_of, round_of, run_of
from tests.postgres import Server

ROOT = Path(__file__).parents[2]
FAR = 1e12


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgres"])
def test_the_driver_need_not_be_named(scheme: str) -> None:
    assert parse_url(f"{scheme}://me@db.lab/edgelut").drivername == "postgresql+psycopg"


def test_a_driver_that_is_not_there_is_said() -> None:
    with pytest.raises(BadInputError, match="needs a driver that is not installed"):
        Store("postgresql+asyncpgx://me@127.0.0.1/edgelut")


@pytest.mark.parametrize("url", ["postgresql://me:secret@db/x", "postgresql//me:secret@db/x", "me:secret@db/x"])
def test_a_password_is_not_shown(url: str) -> None:
    try:
        said = shown(url)
    except BadInputError as error:
        said = str(error)
    assert "secret" not in said


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/edgelut: no database server answers there; start it"):
        Store("postgresql://me:secret@127.0.0.1:1/edgelut")


def test_what_the_server_refuses(postgres: Server) -> None:
    with pytest.raises(StorageError, match="there is no such database, table or user on the server; make it first"):
        Store(postgres.url("nowhere"))
    with pytest.raises(StorageError, match="the server refuses this user or password") as refusal:
        Store(postgres.url().replace(postgres.password, "guess"))
    assert "guess" not in str(refusal.value)


def test_a_user_without_rights(postgres: Server) -> None:
    with postgres.database() as url:
        postgres.execute("DROP ROLE IF EXISTS guest")
        postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'x'")
        theirs = url.replace(f"edgelut:{postgres.password}", "guest:x")
        with pytest.raises(StorageError, match="this user may not do that; GRANT it the right to create tables"):
            Store(theirs)
    postgres.execute("DROP ROLE guest")


def test_a_database_of_somebody_else_is_left_alone(postgres: Server) -> None:
    with postgres.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE photos (id INTEGER)")
        with pytest.raises(BadInputError, match=r"holds other tables \(photos\): name another one"):
            Store(url)


def test_readers_see_one_state_and_cannot_write(postgres_url: str) -> None:
    store, database = Store(postgres_url), Database(postgres_url)
    with database.reading() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM runs").scalar()
        store.add_run("run", run_of())
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar() == before == 0
    with pytest.raises(StorageError, match="cannot be written to"), database.reading() as connection:
        connection.exec_driver_sql("DELETE FROM runs")
    assert [run.run_id for run in store.runs()] == ["run"]
    database.close()
    store.close()


def test_a_nul_in_a_reason_is_stored_as_a_sign(postgres_url: str) -> None:
    """PostgreSQL has no NUL in text; an agent may send one."""
    store = Store(postgres_url)
    store.add_run("run", run_of())
    lease = store.lease_new_task("run", "latency", 0, 0, "pi", FAR)
    store.end_task(lease.task_id, lease.fence, "worker\0died")
    store.end_task(lease.task_id, lease.fence, "worker\0died")
    assert [task.reason for task in store.tasks("run")] == ["worker\N{REPLACEMENT CHARACTER}died"]
    store.set_run("run", "failed", "a\0b")
    assert store.run("run").reason == "a\N{REPLACEMENT CHARACTER}b"
    store.close()


# ---- processes ----

PRELUDE = """
import sys
from lut_store.store import Store
from tests.lut_store.samples import *
url, name = sys.argv[1:3]
"""


def outputs(code: str, url: str, names: list[str]) -> list[str]:
    """The lines that all the processes print, which run at the same time."""
    started = [
        subprocess.Popen([sys.executable, "-c", PRELUDE + code, url, name], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for name in names
    ]
    lines = []
    for process in started:
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        lines += out.split()
    return lines


def test_processes_that_make_one_database_at_the_same_moment(postgres: Server) -> None:
    code = "store = Store(url); store.add_run(name, run_of()); print(len(store.runs()) > 0)"
    with postgres.database() as url:
        assert outputs(code, url, ["a", "b"]) == ["True"] * 2
        store = Store(url)
        assert {run.run_id for run in store.runs()} == {"a", "b"}
        store.close()


def test_two_processes_never_get_the_same_lease_or_the_same_version(postgres_url: str) -> None:
    store = Store(postgres_url)
    store.add_run("run", run_of())
    for seed in range(40):
        store.add_task("run", "latency", seed, 0)
    code = """
store = Store(url)
offset = 0 if name == "a" else 100
for index in range(1000):
    lease = store.lease_task("run", name, 1e12)
    if lease is None:
        break
    print(lease.task_id)
    if index < 10:
        print(store.add_lut(lut_of(seed=offset + index)).version)
"""
    lines = outputs(code, postgres_url, ["a", "b"])
    leases = [line for line in lines if len(line) == 32]
    versions = sorted(int(line) for line in lines if len(line) < 32)
    assert len(leases) == len(set(leases)) == 40
    assert versions == list(range(1, len(versions) + 1))
    assert {task.fence for task in store.tasks("run")} == {1}
    store.close()


def test_two_processes_that_offer_the_same_measurements_store_each_once(postgres_url: str) -> None:
    """An agent that changed its coordinator sends again what the first one has not acknowledged."""
    store = Store(postgres_url)
    store.add_run("run", run_of())
    lease = store.lease_new_task("run", "latency", 0, 0, "pi", FAR)
    code = f"""
store = Store(url)
part = round_of(store.run("run").spec)
order = range(600) if name == "a" else range(599, -1, -1)
for start in range(0, 600, 50):
    batch = [
        measurement_of({lease.task_id!r}, part, sequence=n, name=f"m{{n}}") for n in order[start : start + 50]
    ]
    for outcome in store.add_measurements("pi", batch):
        print(outcome.status)
"""
    lines = outputs(code, postgres_url, ["a", "b"])
    assert len(lines) == 1200
    assert set(lines) <= {"stored", "duplicate"}
    assert [m.measurement.sequence for m in store.measurements("run", "latency")] == list(range(600))
    store.close()


# ---- a server that goes away ----


def test_a_server_that_is_restarted(postgres: Server, postgres_url: str) -> None:
    store = Store(postgres_url)
    store.add_run("run", run_of())
    lease = store.lease_new_task("run", "latency", 0, 0, "pi", FAR)
    first = measurement_of(lease.task_id, round_of(lease.run))
    assert store.add_measurements("pi", [first])[0].status == "stored"
    lut = store.add_lut(lut_of())
    postgres.stop()
    try:
        with pytest.raises(StorageError, match=r"no database server answers there|went away"):
            store.add_run("other", run_of())
    finally:
        postgres.start()
    assert [m.measurement for m in store.measurements("run", "latency")] == [first]
    assert store.add_lut(lut) == lut
    assert [run.run_id for run in store.runs()] == ["run"]
    store.close()
