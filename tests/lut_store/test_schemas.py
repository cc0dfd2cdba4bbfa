"""Databases of every released schema, made by the code of that time (schemas/make.py), are brought up to date."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from lut_store import migrations
from lut_store.schema import REVISION, metadata
from lut_store.store import Store
from protos.errors import IncompatibleError
from protos.types import LutQuery
from tests.lut_store.samples import lut_of, measurement_of, trace_of

KEPT = Path(__file__).parent / "schemas"
REVISIONS = sorted(path.name.removesuffix(".db.gz") for path in KEPT.glob("*.db.gz"))
FAR = 1e12


def test_a_database_of_every_older_schema_is_kept() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    older = {each.revision for each in script.walk_revisions()} - {REVISION}
    assert older <= set(REVISIONS), "run python -m tests.lut_store.schemas.make before adding a migration"


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=REVISIONS)
def revision(request: pytest.FixtureRequest) -> str:
    number: str = request.param
    return number


@pytest.fixture
def old_url(backend: str, revision: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with that schema."""
    if backend == "sqlite":
        path = tmp_path / "edgelut.db"
        path.write_bytes(gzip.decompress((KEPT / f"{revision}.db.gz").read_bytes()))
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres")
    with server.database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(gzip.decompress((KEPT / f"{revision}.sql.gz").read_bytes()))
        yield url


def test_an_older_database_keeps_what_it_holds_and_goes_on(old_url: str, revision: str) -> None:
    held: dict[str, Any] = json.loads((KEPT / f"{revision}.json").read_text())
    store = Store(old_url)
    ids = [
        m.measurement.id
        for run in store.runs()
        for kind in ("latency", "power")
        for m in store.measurements(run.run_id, kind)
    ]
    assert sorted(ids) == held["measurements"]
    assert {str(lut.version): lut.digest for lut in store.luts()} == held["digests"]
    for digest in held["digests"].values():
        assert store.lut_by_digest(digest).digest == digest
    assert {tag.name: tag.version for tag in store.tags() if tag.name != "latest"} == held.get("tags", {})
    assert [device.name for device in store.devices()] == ["pi-01"]
    assert store.run("run-done").lut_reference == "rpi3b/sample@1"
    assert store.unfinished_runs() == ["run-going"]
    lease = store.lease_new_task("run-going", "energy", 5, 1, "pi-02", FAR)
    assert store.add_measurements("pi-02", [measurement_of(lease.task_id, trace_of())])[0].status == "stored"
    assert store.add_lut(lut_of(seed=9)).version == len(held["digests"]) + 1
    assert store.lut(LutQuery("rpi3b", context="steady")).version == 3
    store.close()
    Store(old_url).close()


def test_an_upgraded_database_has_exactly_the_tables_that_the_program_uses(old_url: str) -> None:
    store = Store(old_url)
    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    store.close()


def test_a_new_database_has_exactly_the_tables_that_the_program_uses(postgres_url: str) -> None:
    store = Store(postgres_url)
    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    store.close()


def test_a_newer_schema_is_refused_with_what_to_do(database_url: str) -> None:
    store = Store(database_url)
    with store._database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(
        IncompatibleError, match=r"has the schema 9999, this edgelut knows .*: upgrade edgelut, or name"
    ):
        Store(database_url)
