"""`coordinator profile` with each kind of meter on an emulated Pi, and with one that is unplugged midway."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lut_store.lut import Lut
from tests.e2e.processes import World

FAST, CAREFUL, BUSY = "20", "5", "1"  # speeds of the board: a fast meter's line must not need a whole core
UNPLUGGED = "unplug_after_s=40&replug_after_s=10&unplugs=0"  # so also while energy is measured
FAULTS = "garbage=0.01&lost_byte=0.01&flipped_bit=0.01&half_frame=0.01&doubled=0.01"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    with world.daemon():
        yield world


def profiled(world: World, meter: str, speed: str) -> dict[str, Any]:
    """What `coordinator profile --json` says of a board with this meter."""
    command = ("edgelut-agent", "emulate", "--device-type", "rpi3b", "--speed", speed, "--meter", meter)
    with world.started(*command, ready="connected to the coordinator"):
        profile = ("coordinator", "profile", "--device", "rpi3b", "--space", "tiny.toml", "--preset", "quick", "--json")
        found: dict[str, Any] = json.loads(world.run(*profile).stdout)
    return found


def check(found: dict[str, Any], model: str) -> None:
    assert found["configuration"]["emulation"] == "device"
    assert found["validation"]["energy"]["uncorrected"]["n"] > 0
    assert np.isfinite(found["validation"]["energy"]["corrected"]["mape"])
    assert model in json.dumps(found)


@pytest.mark.slow
def test_a_meter_that_is_unplugged_again_and_again_still_gives_every_energy(world: World) -> None:
    found = profiled(world, f"csv?rate_hz=100&{UNPLUGGED}&{FAULTS}", CAREFUL)
    check(found, "csv")
    assert "losses" in world.run("coordinator", "lut", "show", found["reference"]).stdout
    world.run("coordinator", "lut", "export", found["reference"], "--output", "pi.lut")
    lut = Lut.load(world.folder / "pi.lut")
    assert np.isfinite(lut.energy_j[lut.allowed]).all()
    assert lut.provenance["meter_losses"] > 0
    assert not any(word in own for own in lut.flags.values() for word in ("no energy", "few meter samples"))


@pytest.mark.skipif(not os.environ.get("EDGELUT_ALL_METERS"), reason="takes minutes; EDGELUT_ALL_METERS=1 runs it")
@pytest.mark.parametrize(
    ("meter", "model", "speed"),
    [
        (f"um25c?{UNPLUGGED}", "UM25C", FAST),
        (f"tc66c?{FAULTS}", "TC66", FAST),
        (f"avhzy?{FAULTS}", "avhzy", FAST),
        (f"smartpower3?rate_hz=50&{FAULTS}", "smartpower3", CAREFUL),
        ("ppk2", "PPK2", BUSY),
    ],
)
def test_every_kind(world: World, meter: str, model: str, speed: str) -> None:
    check(profiled(world, meter, speed), model)


def test_a_meter_that_cannot_be_emulated_is_a_sentence(tmp_path: Path) -> None:
    world = World(tmp_path)
    emulate = ("edgelut-agent", "emulate", "--device-type", "rpi3b")
    said = world.run(*emulate, "--meter", "um26c", status=2).stderr
    assert "um26c" in said
    assert "um25c" in said
    said = world.run(*emulate, "--meter", "tc66c?colour=1", status=2).stderr
    assert "there is no option 'colour'" in said
    said = world.run(*emulate, "--meter", "ppk2?silence=0.1", "--speed", "50", status=2).stderr
    assert "faults need a port" in said
