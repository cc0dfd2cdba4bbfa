"""`coordinator db` as a user types it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.cli.app import main
from coordinator.cli.db import age_s
from coordinator.sources import read_sources
from lut_store.store import Store
from protos.errors import BadInputError
from tests.lut_store.schemas.make import fill

Run = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`coordinator db …` in this process, which spares a start of Python each."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def command(*arguments: str, status: int = 0) -> Done:
        monkeypatch.setattr("sys.argv", ["coordinator", "db", *arguments])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        assert code == status, said
        return Done(said.out, said.err)

    return command


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with something of everything."""
    path = tmp_path / "edgelut.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        fill(store)
    return f"sqlite:///{path}"


def test_from_sqlite_to_postgresql_the_digest_is_the_same(run: Run, url: str, postgres_url: str) -> None:
    done = run("copy", "--from", url, "--to", postgres_url)
    assert "6 measurements" in done.stdout
    assert "***" in done.stdout
    assert json.loads(run("check", "--db", postgres_url, "--json").stdout)["problems"] == []
    with closing(Store(url)) as there, closing(Store(postgres_url)) as here:
        assert {lut.digest for lut in there.luts()} == {lut.digest for lut in here.luts()}
    again = run("copy", "--from", url, "--to", postgres_url, status=2)
    assert "is not empty (" in again.stderr
    assert "3 luts" in again.stderr


def test_backup_check_and_restore(run: Run, url: str, tmp_path: Path) -> None:
    output = tmp_path / "kept.db"
    assert f"{output} holds what sqlite:///" in run("backup", "--db", url, "--output", str(output)).stdout
    assert "No problem was found." in run("check", "--db", f"sqlite:///{output}").stdout
    assert "exists already" in run("backup", "--db", url, "--output", str(output), status=2).stderr
    record = json.loads(
        run("copy", "--from", f"sqlite:///{output}", "--to", f"sqlite:///{tmp_path}/new.db", "--json").stdout
    )
    assert record["rows"]["luts"] == 3


def test_a_problem_gives_status_1(run: Run, url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE luts SET document = x'00' WHERE version = 2")
    done = run("check", "--db", url, status=1)
    assert "PROBLEM: LUT" in done.stdout
    assert "1 problem was found." in done.stdout


def test_prune_says_what_it_would_do_and_does_it(run: Run, url: str) -> None:
    with closing(Store(url)) as store:
        store.set_run("run-going", "cancelled", "cancelled by an operator")
    planned = run("prune", "--db", url, "--older-than", "0s", "--dry-run").stdout
    assert "2 measurements of 1 runs" in planned
    assert "would be removed" in planned
    assert "1 needed by a tagged version" in planned or "1 needed by a version" in planned
    record = json.loads(run("prune", "--db", url, "--older-than", "0s", "--json").stdout)
    assert [each["run_id"] for each in record["removed"]] == ["run-going"]
    assert "0 measurements of 0 runs" in run("prune", "--db", url, "--older-than", "0s").stdout


def test_a_run_without_its_measurements_cannot_be_built_from(run: Run, url: str) -> None:
    with closing(Store(url)) as store:
        store.set_run("run-going", "failed", "the board died")
    run("prune", "--db", url, "--older-than", "0s")
    words = r"run-going cannot be built from any more: the board died; its raw measurements were removed on 20"
    with closing(Store(url)) as store, pytest.raises(BadInputError, match=words):
        read_sources(store, ["run-going"])


def test_a_newer_schema_is_refused_with_what_to_do(run: Run, url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "upgrade edgelut, or name another database" in run("check", "--db", url, status=2).stderr


def test_a_database_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    for command in (
        ["check", "--db", f"sqlite:///{missing}"],
        ["backup", "--db", f"sqlite:///{missing}", "--output", str(tmp_path / "out.db")],
        ["prune", "--db", f"sqlite:///{missing}", "--older-than", "1d"],
        ["copy", "--from", f"sqlite:///{missing}", "--to", f"sqlite:///{tmp_path}/to.db"],
    ):
        assert f"there is no database {missing}" in run(*command, status=2).stderr
    assert f"there is no database {tmp_path}/data/edgelut/edgelut.db" in run("check", status=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_leaves_nothing_behind(run: Run, url: str, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("Dear aunt, " * 1000)
    assert "this file is no database" in run("copy", "--from", url, "--to", f"sqlite:///{text}", status=2).stderr
    assert text.read_text() == "Dear aunt, " * 1000
    assert "is not a database URL" in run("copy", "--from", url, "--to", "edgelut.db", status=2).stderr
    assert "no age" in run("prune", "--db", url, "--older-than", "soon", status=2).stderr


@pytest.mark.parametrize(("text", "seconds"), [("90d", 90 * 86400), ("1.5h", 5400), ("2w", 1209600), ("0s", 0)])
def test_ages(text: str, seconds: float) -> None:
    assert age_s(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "1e9d", "nan", "90", "90 days", "1d2h"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(BadInputError, match="is no age; write for example 90d"):
        age_s(text)
