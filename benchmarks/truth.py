"""Figure 2: latency and energy from the emulated Pi 3B against its truth, which the estimators never see.

A 2 Hz meter with 0.5 s of lag, 5 mA of noise, a drifting idle current and bursts of other work; over several seeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.emulated import Profile, profile
from benchmarks.runs import keep
from coordinator.plan import draw_networks, make_run
from nas.space import load_space
from protos.types import RunSpec

SPACE, TYPE, CONTEXT = "fbnet-cifar10", "rpi3b", "cold"
NETWORKS = 60
SEEDS_FULL, SEEDS_SHORT = 12, 3
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """Of every item (I, 2) and of fresh networks (N, 2): latency_s, energy_j."""

    items: Array
    choices: NDArray[np.int64]
    networks: Array


def truth_of(found: Profile) -> Truth:
    space, device = found.spec.space, found.device
    items = np.array([device.true_operator(space, item.spec, CONTEXT) for item in found.spec.items])
    fresh = draw_networks(space, seed=999, fit=0, validation=NETWORKS, anchors=0)
    choices = np.array([n.choices for n in fresh])
    return Truth(items, choices, np.array([device.true_network(space, n.choices, CONTEXT) for n in fresh]))


def compare(found: Profile) -> dict[str, list[float]]:
    """Relative errors and whether the 95 % interval covers the truth, for operators and for networks the run never
    saw.
    """
    truth, lut = truth_of(found), found.lut
    record: dict[str, list[float]] = {}
    for column, metric in ((0, lut.latency), (1, lut.energy)):
        name = ("latency", "energy")[column]
        assert metric is not None
        values, errors = (
            _of_items(found, metric.value, metric.fixed_value),
            _of_items(found, metric.se, metric.fixed_se),
        )
        record[f"operator {name}"] = list(values / truth.items[:, column] - 1)
        record[f"operator {name} covered"] = list(
            (np.abs(values - truth.items[:, column]) <= 1.96 * errors).astype(float)
        )
        predicted = lut.predict(truth.choices)[:, column]
        low, high = lut.predict_interval(truth.choices)[:, column].T
        true = truth.networks[:, column]
        record[f"network {name}"] = list(predicted / true - 1)
        record[f"network {name} covered"] = list(((low <= true) & (true <= high)).astype(float))
    return record


def _of_items(found: Profile, cells: Array, fixed: Array) -> Array:
    """(items,) from the first cell of each."""
    first = [item.cells[0] for item in found.spec.items]
    return np.array([fixed[c.op] if c.layer < 0 else cells[c.layer, c.op] for c in first])


def standard_run() -> RunSpec:
    return make_run(load_space(SPACE), TYPE, preset="standard", context=CONTEXT)


def main(full: bool = False) -> None:
    spec = standard_run()
    records = []
    for seed in range(SEEDS_FULL if full else SEEDS_SHORT):
        found = profile(spec, TYPE, seed)
        records.append(compare(found))
        spent = found.lut.provenance
        minutes = [spent[name] / 60 for name in ("latency_device_s", "energy_device_s")]
        energy = np.median(np.abs(records[-1]["operator energy"]))
        print(
            f"seed {seed}: latency {minutes[0]:.1f} min, energy {minutes[1]:.1f} min; operator energy {energy:.2%}",
            flush=True,
        )
    print(table(records))
    print(f"raw figures: {keep('truth', records)}")


def table(records: list[dict[str, list[float]]]) -> str:
    """Medians over all subjects of all seeds."""
    lines = [f"{'':18} {'median':>8} {'95th':>8} {'bias':>8} {'covered by 95 %':>16}"]
    for name in ("operator latency", "operator energy", "network latency", "network energy"):
        error = _joined(r[name] for r in records)
        covered = _joined(r[f"{name} covered"] for r in records)
        size, bias = np.abs(error), np.mean(error)
        numbers = f"{np.median(size):8.2%} {np.percentile(size, 95):8.2%} {bias:+8.2%} {np.mean(covered):16.1%}"
        lines.append(f"{name:18} {numbers}")
    return "\n".join(lines)


def _joined(parts: Iterable[list[float]]) -> Array:
    return np.array([value for part in parts for value in part])
