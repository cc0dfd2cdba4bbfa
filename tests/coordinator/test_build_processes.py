"""Builds of several processes over one database: at once, and one whose machine loses power."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.build import build_lut
from lut_store.store import Store
from tests.coordinator.recorded import record
from tests.e2e.processes import BIN, DEADLINE_S, ROOT, World


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that holds a run."""
    name = f"sqlite:///{tmp_path / 'edgelut.db'}"
    name = name if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with closing(Store(name)) as store:
        record(store, "one", energy=False)
    return name


def started(url: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-m", "tests.coordinator.one_build", url, "one", *words),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_same_build_twice_at_once_is_one_version(url: str) -> None:
    processes = [started(url, "mean") for _ in range(2)]
    said = [process.communicate(timeout=DEADLINE_S)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with closing(Store(url)) as store:
        (lut,) = store.luts()
    assert said[0] == said[1] == ["1", lut.digest]


def test_a_build_that_is_killed_leaves_no_half_version(url: str) -> None:
    process = started(url, "median", "pause")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "inside\n"
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        process.stdout.close()
    with closing(Store(url)) as store:
        assert store.luts() == []
        lut = build_lut(store, "one")  # waits for nobody: the lock went with the process
        assert lut.version == 1
        assert store.lut_by_digest(lut.digest) == lut


def test_two_commands_at_once_are_two_versions_of_the_embedded_database(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = world.folder / "data" / "edgelut" / "edgelut.db"
    with closing(Store(f"sqlite:///{path}")) as store:
        record(store, "one", energy=False)
    command = (str(BIN / "coordinator"), "lut", "build", "--run", "one", "--json", "--latency")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen((*command, latency), cwd=world.folder, env=world.environment, **pipes)  # type: ignore[call-overload]
        for latency in ("mean", "p10")
    ]
    versions = []
    for process in processes:
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
        versions.append(json.loads(out)["version"])
    assert sorted(versions) == [1, 2]
