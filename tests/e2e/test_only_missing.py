"""`coordinator profile --only-missing` on an emulated Pi: versions completed, operators of another space reused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lut_store.lut import Lut
from tests.e2e.processes import TINY, World

pytestmark = pytest.mark.slow

PROFILE = ("coordinator", "profile", "--device", "rpi3b", "--preset", "quick", "--json")
LARGER = TINY.replace('name = "tiny"', 'name = "larger"') + "k3_e6 = { kernel = 3, expansion = 6 }\n"


@pytest.fixture(scope="module")
def completed(emulated: World) -> dict[str, Any]:
    """A version without energy, completed with a meter."""
    emulated.run(*PROFILE, "--space", "tiny.toml", "--meter", "none")
    done = emulated.run(*PROFILE, "--space", "tiny.toml", "--only-missing")
    assert "rpi3b/tiny@1 lacks the latency or energy of 11 operators: these are measured." in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_version_is_completed_from_the_evidence_of_both_runs(completed: dict[str, Any]) -> None:
    assert completed["reference"] == "rpi3b/tiny@2"
    assert [parent["reference"] for parent in completed["provenance"]["parents"]] == ["rpi3b/tiny@1"]
    assert len(completed["provenance"]["runs"]) == 2
    assert completed["energy"] is not None
    assert completed["validation"]["energy"]["uncorrected"]["n"] > 0


@pytest.mark.usefixtures("completed")
def test_what_lacks_nothing_is_left_alone(emulated: World) -> None:
    done = emulated.run(*PROFILE, "--space", "tiny.toml", "--only-missing")
    assert json.loads(done.stdout)["reference"] == "rpi3b/tiny@2"
    assert json.loads(done.stdout)["missing"] == 0
    assert "lacks nothing" in emulated.run(*PROFILE[:-1], "--space", "tiny.toml", "--only-missing").stdout
    assert len(emulated.json("coordinator", "runs", "list", "--json")) == 2


@pytest.mark.usefixtures("completed")
def test_operators_of_another_space_are_reused_and_say_so(emulated: World) -> None:
    (emulated.folder / "larger.toml").write_text(LARGER)
    done = emulated.run(*PROFILE, "--space", "larger.toml", "--only-missing")
    assert (
        "rpi3b/tiny@2 holds 11 operators of larger: their energies are reused, 3 of them measured again" in done.stderr
    )
    found = json.loads(done.stdout)
    reused = found["provenance"]["reused"]
    assert reused["reference"] == "rpi3b/tiny@2"
    assert reused["metrics"] == ["energy"]
    assert len(reused["operators"]) == 8
    assert reused["measured_again"]["energy"]["operators"] == 3
    assert reused["measured_again"]["latency"]["operators"] == 11
    assert found["validation"]["latency"]["uncorrected"]["n"] > 0
    assert found["validation"]["energy"]["uncorrected"]["n"] > 0
    emulated.run("coordinator", "lut", "export", "rpi3b/larger", "--output", "larger.lut")
    emulated.run("coordinator", "lut", "export", "rpi3b/tiny@2", "--output", "tiny.lut")
    larger, tiny = (Lut.load(emulated.folder / f"{name}.lut") for name in ("larger", "tiny"))
    assert larger.coverage == {"latency": 1.0, "energy": 1.0}
    cells = [cell for cell, words in larger.flags.items() if "reused" in words and cell.layer >= 0]
    assert cells
    for cell in cells:
        assert larger.energy_j[cell.layer, cell.op] in tiny.energy_j
    assert not np.isnan(larger.predict([[4, 4, 4, 4]])).any()
    shown = emulated.run("coordinator", "lut", "show", "rpi3b/larger", "--view", "none").stdout
    assert "REUSED: energy of" in shown
