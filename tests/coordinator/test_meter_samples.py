"""A cell whose energy rests on fewer fresh values of the meter than its preset asks for says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from coordinator.build import BuildRequest, build
from coordinator.plan import PRESETS
from lut_store.lut import Lut
from lut_store.store import Store
from tests.coordinator.recorded import record, spec_of

WORD = "few meter samples"


def flagged(store: Store, preset: str) -> tuple[int, Lut]:
    """How many operators of a run of two minutes of energy say it."""
    record(store, preset, spec=replace(spec_of(), preset=preset))
    lut = build(store, BuildRequest((preset,)))
    return sum(WORD in own for own in lut.flags.values()), lut


def test_the_preset_says_how_many_are_asked_for(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/edgelut.db")
    try:
        few, _ = flagged(store, "quick")
        all_of_them, lut = flagged(store, "thorough")
    finally:
        store.close()
    assert few == 0
    assert lut.energy is not None
    under = np.count_nonzero(lut.energy.n < PRESETS["thorough"].meter_samples)
    assert all_of_them == under > 0


def test_more_evidence_is_asked_of_a_better_preset() -> None:
    asked = [PRESETS[name].meter_samples for name in ("quick", "standard", "thorough")]
    assert asked == sorted(set(asked))
