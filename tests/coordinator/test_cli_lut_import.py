"""`coordinator lut import`, as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lut_store.formats import hanna
from lut_store.lut import Lut
from lut_store.store import Store
from nas.space import load_space
from protos.types import LutQuery


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "speed.txt", tmp_path / "energy.txt"
    rng = np.random.default_rng(0)
    for path in paths:
        path.write_text(hanna.format_grid(rng.uniform(0.1, 1, load_space("fbnet-cifar10").shape)))
    return paths


def call(home: Path, tables: tuple[Path, Path], *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coordinator", "lut", "import", "--format", "hanna", "--device-type", "theirs"]
    command += ["--space", "fbnet-cifar10", "--latency", str(tables[0]), "--energy", str(tables[1]), *more]
    environment = {k: v for k, v in os.environ.items() if k != "EDGELUT_COORDINATOR"}
    environment |= {"XDG_DATA_HOME": str(home), **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_to_a_file_and_no_database(tmp_path: Path, tables: tuple[Path, Path]) -> None:
    out = tmp_path / "theirs.lut"
    done = call(tmp_path / "home", tables, "--output", str(out))
    assert done.returncode == 0, done.stderr
    assert "stem and head not included (no number of stem0, " in done.stdout
    assert "A hanna table does not say whether its numbers are from hardware" in done.stderr
    assert Lut.load(out).configuration.device_type == "theirs"
    assert not (tmp_path / "home").exists()


def test_to_the_database_twice_is_one_version(tmp_path: Path, tables: tuple[Path, Path]) -> None:
    for _ in range(2):
        done = call(tmp_path / "home", tables, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["reference"] == "theirs/fbnet-cifar10@1"
    with closing(Store(f"sqlite:///{tmp_path / 'home' / 'edgelut' / 'edgelut.db'}")) as store:
        assert not store.lut(LutQuery("theirs")).fixed_included


def test_bad_input_is_a_sentence_and_status_2(tmp_path: Path, tables: tuple[Path, Path]) -> None:
    tables[1].write_text(tables[1].read_text().replace("0.", "x.", 1))
    done = call(tmp_path / "home", tables)
    assert done.returncode == 2
    assert "energy.txt, line 1, column 1: 'x." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_coordinator_elsewhere_takes_no_import(tmp_path: Path, tables: tuple[Path, Path]) -> None:
    done = call(tmp_path / "home", tables, EDGELUT_COORDINATOR="127.0.0.1:1")
    assert done.returncode == 2
    assert "--output" in done.stderr


def test_what_is_emulated_is_not_asked_again(tmp_path: Path, tables: tuple[Path, Path]) -> None:
    out = tmp_path / "theirs.lut"
    done = call(tmp_path / "home", tables, "--output", str(out), "--emulation", "device")
    assert (done.returncode, done.stderr) == (0, "")
    assert Lut.load(out).configuration.emulation == "device"
