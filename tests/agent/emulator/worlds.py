"""What the tests of the device emulator run on it."""

from __future__ import annotations

import random
from functools import cache

import numpy as np

from agent.emulator.device_disturbance import Array
from agent.emulator.device_truth import Truth
from coordinator.plan import plan_items
from nas.space import load_space
from protos.types import MeasurementPlan, Network, RunSpec

SPACE = load_space("fbnet-cifar10")


@cache
def networks(count: int, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Random architectures of fbnet-cifar10."""
    rng = random.Random(seed)
    return tuple(tuple(rng.choice(SPACE.allowed(layer)) for layer in range(22)) for _ in range(count))


def run_of(plan: MeasurementPlan, count: int = 5) -> RunSpec:
    """A run over fbnet-cifar10 with `count` validation networks."""
    chosen = tuple(Network("validation", choices) for choices in networks(count))
    return RunSpec("rpi3b", SPACE, plan_items(SPACE), chosen, plan)


def predicted_s(truth: Truth, choices: tuple[int, ...]) -> float:
    """The sum of the true latencies of a network's operators."""
    return float(truth.fixed_latency_s.sum() + truth.latency_s[np.arange(len(choices)), list(choices)].sum())


def by_cell(values: Array) -> Array:
    """The values of all cells that are allowed and not skips, (cells,)."""
    return values[np.isfinite(values) & (values > 0)]
