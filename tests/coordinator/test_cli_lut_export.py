"""`coordinator lut export` and `import`, each format there and back as a user does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli.app import app
from lut_store.lut import Lut
from lut_store.store import Store
from nas.space import load_space
from protos.errors import EdgelutError
from tests.lut_store.samples import lut_of


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line in this process: what `main` would print, and the status it would exit with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGELUT_COORDINATOR", raising=False)

    def run(*words: object) -> Done:
        result = CliRunner().invoke(app, ["lut", *map(str, words)])
        if isinstance(result.exception, EdgelutError):
            return Done(2, result.stdout, str(result.exception))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def mine(tmp_path: Path) -> Lut:
    lut = lut_of(load_space("fbnet-cifar10"), flags={})
    lut.save(tmp_path / "mine.lut")
    return lut


def test_a_pair_of_tables_out_and_in(call: Call, tmp_path: Path, mine: Lut) -> None:
    done = call("export", "mine.lut", "--format", "hanna", "--output", "s.txt", "--energy", "e.txt")
    assert done.returncode == 0, done.stderr
    assert "is in s.txt and e.txt" in done.stdout
    assert "stem and head are not in the files" in done.stderr
    words = ("--format", "hanna", "--device-type", "rpi3b", "--space", "fbnet-cifar10", "--threads", 4)
    done = call("import", *words, "--latency", "s.txt", "--energy", "e.txt", "-o", "back.lut", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["coverage"] == {"latency": 1.0, "energy": 1.0}
    assert not said["fixed_included"]
    back = Lut.load(tmp_path / "back.lut")
    assert (back.latency_s[mine.allowed] == mine.latency_s[mine.allowed]).all()
    assert back.configuration.threads == 4


def test_one_file_out_and_in(call: Call, tmp_path: Path, mine: Lut) -> None:
    done = call("export", "mine.lut", "--output", "mine.csv")
    assert done.returncode == 0, done.stderr
    done = call("import", "mine.csv", "--device-type", "rpi3b", "--space", "fbnet-cifar10", "-o", "b.lut")
    assert done.returncode == 0, done.stderr
    assert "latency: 100% of the cells; energy: 100% of the cells)" in done.stdout
    assert (Lut.load(tmp_path / "b.lut").energy_j[mine.allowed] == mine.energy_j[mine.allowed]).all()


def test_a_file_goes_into_the_database_that_is_named(call: Call, tmp_path: Path, mine: Lut) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    said = json.loads(call("import", "mine.lut", "--db", url, "--json").stdout)
    assert (said["version"], said["digest"]) == (1, mine.digest)
    assert not (tmp_path / "home").exists()
    with closing(Store(url)) as store:
        assert store.lut_by_digest(mine.digest).provenance["origin"]["files"] == {"lut": "mine.lut"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("export", "mine.lut", "--output", "x.yaml", "--format", "ofa"), "say with --energy FILE"),
        (("export", "mine.lut", "--output", "x.lut", "--energy", "e"), "--energy is for a pair of tables"),
        (("export", "mine.lut", "--output", "x.y", "--format", "yaml"), "unknown format 'yaml'"),
        (("import",), "what is to be imported"),
        (("import", "mine.txt"), "its ending is no format"),
        (("import", "mine.csv"), "name --device-type and --space"),
        (("import", "mine.lut", "--format", "ofa"), "one file per quantity"),
        (("import", "--format", "csv", "--latency", "x"), "one file with both quantities"),
        (("import", "mine.lut", "--db", "sqlite:///x.db", "-o", "x.lut"), "goes to one place"),
        (("import", "mine.lut", "--space", "fbnet-imagenet"), "which is not fbnet-imagenet"),
    ],
)
def test_bad_input_is_a_sentence(call: Call, tmp_path: Path, mine: Lut, words: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "mine.csv").write_text("layer,op,latency_s\n0,k3_e1,1\n")
    done = call(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "home").exists()
    assert mine.fixed_included
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.csv", "mine.lut"]
