"""Builds of several processes over one database: two at once, and one whose machine loses power."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from coordinator.build import build_lut
from lut_store.store import Store
from tests.coordinator.recorded import record
from tests.e2e.processes import BIN, DEADLINE_S, ROOT, World


def stored(world: World, *runs: str) -> None:
    """The embedded database of the world, with these runs."""
    store = Store(url_of(world))
    for run in runs:
        record(store, run, energy=False)
    store.close()


def url_of(world: World) -> str:
    return f"sqlite:///{world.folder / 'data' / 'edgelut' / 'edgelut.db'}"


def at_once(world: World, *commands: tuple[str, ...]) -> list[dict]:
    """What each command says as JSON; all are started before one is waited for."""
    processes = [
        subprocess.Popen(
            (str(BIN / "coordinator"), "lut", "build", "--run", "one", "--json", *command),
            cwd=world.folder,
            env=world.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    answers = []
    for process in processes:
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
        answers.append(json.loads(out))
    return answers


def test_two_builds_at_once_are_one_version_or_two(tmp_path: Path) -> None:
    world = World(tmp_path)
    stored(world, "one")
    same = ("--latency", "mean")
    first, second, third = at_once(world, same, same, ("--latency", "p10"))
    assert first["digest"] == second["digest"] != third["digest"]
    assert first["version"] == second["version"]
    assert {first["version"], third["version"]} == {1, 2}
    store = Store(url_of(world))
    assert sorted(lut.version for lut in store.luts()) == [1, 2]
    assert store.lut_by_digest(first["digest"]).reference == first["reference"]
    store.close()


def test_a_build_that_is_killed_leaves_no_half_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    stored(world, "one")
    process = subprocess.Popen(
        (sys.executable, "-m", "tests.coordinator.paused_build", url_of(world), "one"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "inside\n"
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
    store = Store(url_of(world))
    assert store.luts() == []
    lut = build_lut(store, "one")
    assert lut.version == 1
    assert store.lut_by_digest(lut.digest) == lut
    store.close()
