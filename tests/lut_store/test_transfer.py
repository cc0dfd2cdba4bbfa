"""Whole databases: copied, backed up, checked, and what happens when that cannot be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from lut_store.backup import backup
from lut_store.database import Database
from lut_store.inspection import check
from lut_store.schema import luts, measurements
from lut_store.store import Store
from lut_store.transfer import copy
from protos.errors import BadInputError, ConflictError, StorageError
from protos.types import LutQuery
from tests.lut_store.conftest import BACKENDS
from tests.lut_store.samples import lut_of, measurement_of, round_of
from tests.lut_store.schemas.make import fill

ROOT = Path(__file__).parents[2]
FAR = 1e12


@pytest.fixture
def full(database_url: str) -> Iterator[Database]:
    """A database with something of everything."""
    with closing(Store(database_url)) as store:
        fill(store)
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(params=sorted(BACKENDS))
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of either kind."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'target.db'}")
        yield database
        database.close()
        return
    with request.getfixturevalue("postgres").database() as url:
        database = Database(url)
        yield database
        database.close()


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def everything(database: Database) -> dict[str, list[tuple[object, ...]]]:
    with database.reading() as connection:
        return {
            name: sorted(tuple(map(repr, row)) for row in connection.exec_driver_sql(f"SELECT * FROM {name}"))
            for name in ("runs", "tasks", "devices", "series", "configurations", "lut_runs", "luts", "measurements")
        }


def test_a_copy_is_the_same_to_the_digest_and_goes_on(full: Database, empty: Database) -> None:
    told: list[tuple[str, int]] = []
    rows = copy(full, empty, lambda table, count: told.append((table, count)))
    assert rows["measurements"] == 6
    assert ("luts", 3) in told
    with closing(Store(url_of(full))) as there, closing(Store(url_of(empty))) as here:
        assert here.luts() == there.luts()
        for summary in there.luts():
            query = LutQuery(digest=summary.digest)
            assert here.lut_document(query) == there.lut_document(query)
        for kind in ("latency", "power"):
            assert list(here.measurements("run-done", kind)) == list(there.measurements("run-done", kind))
        assert here.runs() == there.runs()
        assert here.devices() == there.devices()
        assert here.tasks("run-going") == there.tasks("run-going")
        # What counts rows goes on where it was.
        assert here.add_lut(lut_of(seed=9)).version == 4
        lease = here.lease_new_task("run-going", "latency", 1, 1, "pi-02", FAR)
        assert (
            here.add_measurements("pi-02", [measurement_of(lease.task_id, round_of(lease.run))])[0].status == "stored"
        )
    assert check(empty).problems == []


def test_a_copy_of_one_state_while_runs_go_on(full: Database, empty: Database) -> None:
    with closing(Store(url_of(full))) as store:
        grown = []

        def grow(table: str, _: int) -> None:
            if not grown:
                grown.append(table)
                store.add_lut(lut_of(seed=77), ["run-done"])

        rows = copy(full, empty, grow)
        assert len(store.luts()) == 4
    assert (rows["luts"], rows["lut_runs"], rows["series"]) == (3, 1, 1)
    assert check(empty).problems == []


def test_a_target_that_is_not_empty_is_left_as_it_is(full: Database, empty: Database) -> None:
    with closing(Store(url_of(empty))) as store:
        store.add_lut(lut_of(seed=5))
    before = everything(empty)
    with pytest.raises(ConflictError, match=r"is not empty \(.*1 luts.*\): name an empty data"):
        copy(full, empty)
    assert everything(empty) == before


def test_a_source_that_fails_half_way_leaves_the_target_empty(tmp_path: Path, empty: Database) -> None:
    path = tmp_path / "source.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        fill(store)
    spoil(path, "measurements")
    with (
        closing(Database(f"sqlite:///{path}")) as source,
        pytest.raises(StorageError, match=r"source\.db: the database is"),
    ):
        copy(source, empty)
    assert all(rows == [] for rows in everything(empty).values())


def spoil(path: Path, table: str) -> None:
    """Overwrite the first page of a table, as a dying disk does."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


# ---- backup ----


def test_a_backup_opens_like_any_other_database_and_can_be_restored(
    full: Database, empty: Database, tmp_path: Path
) -> None:
    output = tmp_path / "backup.db"
    rows = backup(full, output)
    assert rows["luts"] == 3
    assert sorted(path.name for path in tmp_path.glob("backup*")) == ["backup.db"]
    with closing(Database(f"sqlite:///{output}")) as kept:
        assert everything(kept)["luts"] == everything(full)["luts"]
        assert check(kept).problems == []
        copy(kept, empty)
    with closing(Store(url_of(empty))) as store, closing(Store(url_of(full))) as origin:
        assert {lut.digest for lut in store.luts()} == {lut.digest for lut in origin.luts()}


def test_a_backup_replaces_nothing(full: Database, tmp_path: Path) -> None:
    output = tmp_path / "backup.db"
    output.write_text("precious")
    with pytest.raises(BadInputError, match=r"backup\.db exists already, and a backup never replaces anything"):
        backup(full, output)
    assert output.read_text() == "precious"
    with pytest.raises(BadInputError, match=r"there is no folder .*nowhere: make it first"):
        backup(full, tmp_path / "nowhere" / "backup.db")


def test_a_backup_of_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        fill(store)
    spoil(path, "measurements")
    with (
        closing(Database(f"sqlite:///{path}")) as source,
        pytest.raises(StorageError, match="damaged, and no backup can"),
    ):
        backup(source, tmp_path / "backup.db")
    assert list(tmp_path.glob("backup*")) == []


LIMIT = 200 << 10  # bytes of a file: less than the database


CROWDED = """
import resource, sys
from pathlib import Path
from lut_store.backup import backup, discard
from lut_store.database import Database
from lut_store.transfer import copy
from protos.errors import StorageError
source, output = Database(sys.argv[1]), Path(sys.argv[2])
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for attempt in (lambda: backup(source, output), lambda: copy(source, Database(f"sqlite:///{output}.copy"))):
    try:
        attempt()
    except StorageError as error:
        print(error)
"""


def test_a_disk_that_fills_up_leaves_no_half_backup(full: Database, tmp_path: Path) -> None:
    """Files that may not grow stand for the disk: the same errors, without the right to mount one."""
    with closing(Store(url_of(full))) as store:
        lease = store.lease_new_task("run-going", "latency", 1, 1, "pi-02", FAR)
        large = [measurement_of(lease.task_id, round_of(lease.run, paths=300), sequence=n) for n in range(20)]
        assert {outcome.status for outcome in store.add_measurements("pi-02", large)} == {"stored"}
    output = tmp_path / "backup.db"
    command = [sys.executable, "-c", CROWDED, url_of(full), str(output), str(LIMIT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 2, said
    assert all("disk" in sentence for sentence in said), said
    assert [path.name for path in tmp_path.glob("backup.db*") if ".copy" not in path.name] == []
    with closing(Database(f"sqlite:///{output}.copy")) as crowded:  # where there is room again
        copy(full, crowded)
        assert check(crowded).problems == []


# ---- check ----


def test_a_whole_database_has_no_problems(full: Database) -> None:
    report = check(full)
    assert report.problems == []
    assert (report.rows["luts"], report.rows["measurements"]) == (3, 6)
    assert report.size_bytes > 1000


def test_what_does_not_fit_together_is_named(full: Database) -> None:
    with full.writing() as connection:
        digests = list(connection.execute(sa.select(luts.c.digest).order_by(luts.c.version)).scalars())
        other = connection.execute(sa.select(luts.c.document).where(luts.c.digest == digests[1])).scalar_one()
        connection.execute(luts.update().where(luts.c.digest == digests[0]).values(document=other))
        connection.execute(luts.update().where(luts.c.digest == digests[2]).values(document=b"not a document"))
        connection.execute(measurements.update().where(measurements.c.id == "m01").values(body=b"\xff\xff"))
        body = connection.execute(sa.select(measurements.c.body).where(measurements.c.id == "m20")).scalar_one()
        connection.execute(measurements.update().where(measurements.c.id == "m21").values(body=body))
        connection.exec_driver_sql("UPDATE series SET last_version = 7")
    problems = check(full).problems
    for words in (
        "rpi3b/sample: 3 versions are there up to 3; 7 have been numbered",
        f"LUT {digests[0][:16]} holds numbers whose digest is {digests[1][:16]}",
        f"LUT {digests[0][:16]} is version 1 in the database and 2 in itself",
        f"LUT {digests[2][:16]} is not a .lut file, or is damaged",
        "measurement m01 cannot be read",
        "measurement m21 holds another one (m20)",
    ):
        assert any(words in problem for problem in problems), (words, problems)
    assert not any("measurement" in problem for problem in check(full, quick=True).problems)


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    path = tmp_path / "edgelut.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        fill(store)
    spoil(path, "ix_measurements_task_id_sequence")
    with closing(Database(f"sqlite:///{path}")) as database:
        problems = check(database).problems
    assert any("damaged" in problem for problem in problems), problems


@pytest.mark.parametrize("keep", [0.2, 0.6])
def test_a_file_that_was_cut_off(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "edgelut.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        fill(store)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) // 4096 * 4096])
    try:
        with closing(Database(f"sqlite:///{path}")) as database:
            problems = check(database).problems
    except StorageError as error:
        problems = [str(error)]
    assert any("damaged" in problem for problem in problems), problems
