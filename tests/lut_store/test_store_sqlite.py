"""What only the embedded database does: files, processes that die, disks that are full, schemas of other versions."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from lut_store import migrations
from lut_store.schema import REVISION, metadata
from lut_store.store import Store
from protos.errors import BadInputError, IncompatibleError, StorageError
from protos.types import LutQuery
from tests.lut_store.samples import lut_of, measurement_of, round_of, run_of

FAR = 1e12


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edgelut.db"


# ---- schema ----


def test_the_migrations_make_exactly_the_tables_that_the_program_uses(path: Path) -> None:
    Store(url_of(path)).close()
    engine = sa.create_engine(url_of(path))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        made = indexes(connection)
    fresh = sa.create_engine(url_of(path.with_name("fresh.db")))
    metadata.create_all(fresh)
    with fresh.connect() as connection:
        assert indexes(connection) == made
    engine.dispose()
    fresh.dispose()


def indexes(connection: sa.Connection) -> set[object]:
    """Indexes, unique constraints and foreign keys, which compare_metadata looks at loosely."""
    found: set[object] = set()
    inspector = sa.inspect(connection)
    for table in metadata.tables:
        found |= {(table, i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(table)}
        found |= {(table, u["name"], tuple(u["column_names"])) for u in inspector.get_unique_constraints(table)}
        found |= {(table, f["referred_table"], tuple(f["referred_columns"])) for f in inspector.get_foreign_keys(table)}
    return found


def test_the_program_knows_the_newest_migration() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [REVISION]


def test_a_newer_schema_is_refused_with_what_to_do(path: Path) -> None:
    Store(url_of(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(
        IncompatibleError, match=r"has the schema 9999, this edgelut knows .*: upgrade edgelut, or name"
    ):
        Store(url_of(path))


def test_a_database_of_somebody_else_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    connection.close()
    with pytest.raises(BadInputError, match=r"holds other tables \(photos\): name another one"):
        Store(url_of(path))


def test_the_database_is_in_wal_with_full_sync_and_foreign_keys(path: Path) -> None:
    store = Store(url_of(path))
    with store._database.reading() as connection:
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    assert values == ["wal", 2, 1]
    store.close()


PRAGMAS = ("journal_mode", "synchronous", "foreign_keys")


# ---- files that cannot be ----


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("edgelut.db", BadInputError, "is not a database URL; write for example sqlite:"),
        ("mysql://x/y", BadInputError, "'mysql' is not supported; use sqlite:///FILE or postgresql://"),
        ("sqlite://", BadInputError, "in memory would be lost"),
        ("sqlite:///:memory:", BadInputError, "in memory would be lost"),
        ("sqlite:////proc/edgelut/x.db", StorageError, "the folder of /proc/edgelut/x.db cannot be made"),
        ("sqlite:////proc/x.db", StorageError, "cannot be opened"),
    ],
)
def test_urls_that_cannot_be(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Store(url)


def test_folders_are_made(tmp_path: Path) -> None:
    Store(url_of(tmp_path / "a" / "b" / "edgelut.db")).close()
    assert (tmp_path / "a" / "b" / "edgelut.db").exists()


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"a letter to my aunt, which is long enough to be read as a database" * 20)
    with pytest.raises(StorageError, match=r"edgelut\.db: this file is no database; name another one"):
        Store(url_of(path))


def test_a_password_is_not_shown() -> None:
    with pytest.raises((BadInputError, StorageError)) as refusal:
        Store("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(refusal.value)


# ---- storage that fails ----


def on_every_connection(store: Store, pragma: str) -> None:
    """From now on, as if the file system had become so: the errors are SQLite's own."""
    store._database.engine.dispose()

    @sa.event.listens_for(store._database.engine, "connect")
    def _limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(pragma)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(path: Path) -> None:
    spec = run_of()
    store = Store(url_of(path))
    store.add_run("run", spec)
    store.add_task("run", "latency", 0, 0)
    lease = store.lease_task("run", "pi", FAR)
    assert lease is not None
    first = measurement_of(lease.task_id, round_of(spec))
    assert store.add_measurements("pi", [first])[0].status == "stored"
    pages = sqlite3.connect(path).execute("PRAGMA page_count").fetchone()[0]
    on_every_connection(store, f"PRAGMA max_page_count = {pages + 2}")
    many = [measurement_of(lease.task_id, round_of(spec, paths=40), sequence=index) for index in range(40)]
    with pytest.raises(StorageError, match=r"the disk is full and nothing of this was stored; free some space"):
        store.add_measurements("pi", many)
    with pytest.raises(StorageError, match="disk is full"):
        store.add_lut(lut_of(provenance={"large": [str(index) for index in range(20_000)]}))
    assert [each.measurement for each in store.measurements("run", "latency")] == [first]
    assert store.luts() == []
    store.close()
    again = Store(url_of(path))  # with room again, everything goes on
    assert {outcome.status for outcome in again.add_measurements("pi", many)} == {"stored"}
    assert again.add_lut(lut_of()).version == 1
    again.close()


def test_a_read_only_database_is_said_and_can_be_read(path: Path) -> None:
    store = Store(url_of(path))
    lut = store.add_lut(lut_of())
    on_every_connection(store, "PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="cannot be written to; give this user the right to"):
        store.add_run("run", run_of())
    assert store.lut(LutQuery("rpi3b")) == lut
    store.close()


# ---- processes ----

PRELUDE = """
import sys
from lut_store.store import Store
from tests.lut_store.samples import *
url, name = sys.argv[1:3]
"""


def start(code: str, path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + code, url_of(path), name]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=root)


def outputs(code: str, path: Path, names: list[str]) -> list[str]:
    """The lines that all the processes print, which run at the same time."""
    started = [start(code, path, name) for name in names]
    lines = []
    for process in started:
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        lines += out.split()
    return lines


def test_processes_that_make_one_database_at_the_same_moment(path: Path) -> None:
    code = "store = Store(url); store.add_run(name, run_of()); print(len(store.runs()) > 0)"
    assert outputs(code, path, ["a", "b", "c"]) == ["True"] * 3
    store = Store(url_of(path))
    assert {run.run_id for run in store.runs()} == {"a", "b", "c"}
    store.close()


def test_two_processes_never_get_the_same_lease_or_the_same_version(path: Path) -> None:
    store = Store(url_of(path))
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
    lines = outputs(code, path, ["a", "b"])
    leases = [line for line in lines if len(line) == 32]
    versions = sorted(int(line) for line in lines if len(line) < 32)
    assert len(leases) == len(set(leases)) == 40
    assert versions == list(range(1, len(versions) + 1))
    assert len(store.luts()) == len(versions)
    assert {task.fence for task in store.tasks("run")} == {1}
    store.close()


WRITER = """
store = Store(url)
spec = store.run("run").spec
part = round_of(spec)
for index in range(100_000):
    batch = [measurement_of(name, part, sequence=3 * index + k, name=f"m{3 * index + k}") for k in range(3)]
    assert all(outcome.status == "stored" for outcome in store.add_measurements("pi", batch))
    print(index, flush=True)
"""


def test_a_killed_process_loses_nothing_it_has_acknowledged(path: Path) -> None:
    store = Store(url_of(path))
    store.add_run("run", run_of())
    store.add_task("run", "latency", 0, 0)
    lease = store.lease_task("run", "pi", FAR)
    assert lease is not None
    process = start(WRITER, path, lease.task_id)
    assert process.stdout is not None
    last = -1
    for line in process.stdout:
        last = int(line)
        if last >= 20:
            process.send_signal(signal.SIGKILL)
            break
    last = max([last, *(int(line) for line in process.stdout.read().split())])  # it may have done more before it died
    process.wait(timeout=60)
    process.stdout.close()
    stored = [each.measurement.sequence for each in store.measurements("run", "latency")]
    assert stored == list(range(len(stored)))
    assert len(stored) >= 3 * (last + 1)
    assert len(stored) % 3 == 0  # a batch is there as a whole or not at all
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_writer_waits_for_another_process_and_readers_do_not(path: Path) -> None:
    store = Store(url_of(path))
    store.add_lut(lut_of())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.lut(LutQuery("rpi3b")).version == 1
    finished: list[bool] = []
    thread = in_thread(lambda: finished.append(store.add_run("run", run_of())))
    thread.join(timeout=0.3)
    assert finished == []
    other.execute("COMMIT")
    thread.join(timeout=60)
    assert finished == [True]
    other.close()
    store.close()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread
