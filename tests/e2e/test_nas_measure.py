"""From a profile on an emulated Pi to a trained child that an agent measures there: real processes."""

from __future__ import annotations

import json

import pytest

from lut_store.lut import Lut
from tests.e2e.processes import World

TRAIN = ("--set", "data=synthetic", "--set", "samples=64", "--set", "epochs=1", "--set", "lr=0.01")


@pytest.mark.slow
def test_a_trained_child_is_measured_beside_its_prediction(emulated: World) -> None:
    emulated.run("coordinator", "profile", "--device", "rpi3b", "--space", "tiny.toml", "--preset", "quick")
    (emulated.folder / "best.json").write_text('{"choices": [2, 0, 1, 3]}')
    emulated.run("nas", "train", "--lut", "rpi3b/tiny", "--child", "best.json", "--output", "child", *TRAIN)
    (measured,) = emulated.json("nas", "measure", "--device", "rpi3b", "--run", "child", "--json")["children"]
    assert json.loads((emulated.folder / "child" / "measured.json").read_text()) == measured
    lut = Lut.load(emulated.folder / "child" / "lut.lut")
    assert measured["lut_digest"] == lut.digest
    for name, expected in zip(("latency_s", "energy_j"), lut.predict([[2, 0, 1, 3]])[0], strict=True):
        numbers = measured[name]
        assert numbers["predicted"] == pytest.approx(expected)
        assert numbers["measured"] > 0
        assert abs(numbers["error"]) < 0.25  # a quick look at a quick table; how true they are, the benchmarks say
        assert numbers["predicted_interval"][0] < numbers["predicted"] < numbers["predicted_interval"][1]
    assert measured["anchors"] == 3
    failed = emulated.run("nas", "measure", "--device", "rpi9", "--run", "child", "--output", "m.json", status=2)
    assert "no agent of 'rpi9' is connected" in failed.stderr
