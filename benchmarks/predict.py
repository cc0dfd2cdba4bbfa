"""Figure: predictions a second, both costs on one core, against what others do with the same table.

A random table of fbnet-cifar10 and 10^6 random architectures (the numbers themselves do not matter). `numpy` is plain
indexing, table[layers, choices].sum(axis=1) per cost; `dictionary` sums the entries of a table by (layer, candidate) in
Python, one cost, as the look-up tables of several projects do. The ways alternate in one process; a second is one of
the core's, so that other work on the machine counts little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.runs import keep
from lut_store.lut import Lut
from lut_store.metric import Metric
from nas.space import load_space
from protos.types import Configuration, SearchSpace

SPACE = "fbnet-cifar10"
ARCHITECTURES = 1_000_000
OF_DICTIONARY = 20_000  # it is slow, and each costs the same
ROUNDS = 7
Choices = NDArray[np.integer]


def table_of(space: SearchSpace) -> Lut:
    rng = np.random.default_rng(0)
    allowed = np.array([[cell.spec is not None for cell in layer.cells] for layer in space.layers])

    def metric(scale: float) -> Metric:
        value = np.where(allowed, rng.uniform(0.1, 1, space.shape) * scale, np.nan)
        fixed = rng.uniform(0.1, 1, len(space.stem) + len(space.head)) * scale
        unknown, nothing = np.full(space.shape, np.nan), np.full(fixed.shape, np.nan)
        return Metric(value, unknown, np.zeros(space.shape, np.int64), value, fixed, nothing, fixed)

    return Lut(Configuration("none", space.name), space, metric(1e-2), metric(2e-2))


def draw(space: SearchSpace, count: int) -> Choices:
    rng = np.random.default_rng(1)
    return np.stack([rng.choice(space.allowed(layer), count) for layer in range(len(space.layers))], axis=1)


def main() -> None:
    space = load_space(SPACE)
    lut = table_of(space)
    choices = draw(space, ARCHITECTURES)  # int64, what numpy's generators give
    small = choices.astype(np.uint8)
    layers = np.arange(choices.shape[1])
    entries = {(layer, op): float(v) for (layer, op), v in np.ndenumerate(lut.latency_corrected_s)}
    few = [tuple(row) for row in choices[:OF_DICTIONARY].tolist()]
    grids = (lut.latency_corrected_s, lut.energy_corrected_j)
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "lut.predict, int64": (ARCHITECTURES, lambda: lut.predict(choices)),
        "lut.predict, uint8": (ARCHITECTURES, lambda: lut.predict(small)),
        "numpy indexing": (ARCHITECTURES, lambda: [grid[layers, choices].sum(axis=1) for grid in grids]),
        "dictionary, one cost": (OF_DICTIONARY, lambda: [sum(entries[at] for at in enumerate(row)) for row in few]),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _, call in ways.values():
        call()  # builds what is built once
    for _ in range(ROUNDS):
        for name, (count, call) in ways.items():
            start = time.process_time()
            call()
            rates[name].append(count / (time.process_time() - start))
    for name, own in rates.items():
        print(f"{name:22} {median(own) / 1e6:8.3f} million/s ({min(own) / 1e6:.3f} … {max(own) / 1e6:.3f})")
    for name in ("lut.predict, int64", "lut.predict, uint8"):
        ratios = {
            other: median(a / b for a, b in zip(rates[name], rates[other], strict=True))
            for other in ("numpy indexing", "dictionary, one cost")
        }
        print(f"{name} ÷ " + "; ÷ ".join(f"{other}: {ratio:.1f}" for other, ratio in ratios.items()))
    print(f"raw figures: {keep('predict', rates)}")
