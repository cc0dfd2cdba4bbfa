"""A board that changes while it is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lut_store.estimate.run_drift import latency_drift
from protos.types import LatencyRound, NetworkTimings, RunSpec
from tests.lut_store.samples import run_of


def rounds(
    spec: RunSpec, factor_at_end: float, *, count: int = 30, noise: float = 0.02, seed: int = 0
) -> Sequence[LatencyRound]:
    """Each network takes a time of its own, which grows evenly to `factor_at_end` times as much."""
    rng, networks = np.random.default_rng(seed), len(spec.networks)
    own = rng.uniform(1e6, 4e6, networks)
    made = []
    for index in range(count):
        level = factor_at_end ** (index / (count - 1))
        order = rng.permutation(networks)
        total = own * level * np.exp(noise * rng.standard_normal(networks))
        made.append(
            LatencyRound(
                index, 1 + index, 2 + index,
                networks=NetworkTimings(1, tuple(range(networks)), tuple(int(t) for t in total)),
                order=tuple(int(o) for o in order), probe_ns=(100_000,) * (networks + 1),
            )
        )  # fmt: skip
    return made


def test_a_board_that_becomes_slower_is_measured() -> None:
    spec = run_of()
    found = latency_drift([rounds(spec, 1.15)])
    assert found is not None
    assert found["latency"] == pytest.approx(1.15 ** (2 / 3) - 1, abs=0.02)  # between the middles of the thirds
    assert 0 < found["latency_se"] < 0.02


def test_a_steady_board_drifts_within_its_error() -> None:
    spec = run_of()
    within = 0
    for seed in range(20):
        found = latency_drift([rounds(spec, 1.0, seed=seed)])
        assert found is not None
        within += abs(found["latency"]) <= 3 * found["latency_se"]
    assert within >= 19


def test_the_worst_board_counts_and_too_little_says_nothing() -> None:
    spec = run_of()
    found = latency_drift([rounds(spec, 1.0), rounds(spec, 0.8)])
    assert found is not None
    assert found["latency"] < -0.08
    assert latency_drift([rounds(spec, 1.2, count=2)[:1]]) is None
    assert latency_drift([]) is None
