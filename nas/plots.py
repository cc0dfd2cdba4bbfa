"""Pictures of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lut_store.lut import Lut
from nas.pareto import ParetoFront
from protos.errors import StorageError

DPI = 150
INK, FAINT, FRONT = "#1f2933", "#9aa5b1", "#2563a8"
SAMPLE = 2000  # random architectures behind the front, to show what there is besides
SAMPLE_SEED = 0


def draw_front(lut: Lut, front: ParetoFront, path: Path) -> None:
    """The exact front as a stair over random architectures, PNG or SVG by the ending. Raises StorageError."""
    rng = np.random.default_rng(SAMPLE_SEED)
    choices = np.stack([rng.choice(np.flatnonzero(row), SAMPLE) for row in lut.allowed], axis=1)  # (SAMPLE, L)
    latency_s, energy_j = lut.predict(choices).T
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(latency_s, energy_j, s=4, color=FAINT, alpha=0.5, linewidths=0, label=f"{SAMPLE} random architectures")
    axes.step(front.latency_s, front.energy_j, where="post", color=FRONT, linewidth=1)
    label = f"exact front: {len(front.latency_s)} architectures"
    axes.plot(front.latency_s, front.energy_j, "o", color=FRONT, markersize=3.5, label=label)
    if energy_j.min() > 0 and front.energy_j.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.6)))
    axes.set_xlabel("latency, s per inference", color=INK)
    axes.set_ylabel("energy above idle, J per inference", color=INK)
    notes = [] if lut.fixed_included else ["stem and head not included"]
    notes += [] if lut.configuration.emulation == "none" else [f"emulated: {lut.configuration.emulation}"]
    axes.set_title(lut.reference + (f" ({', '.join(notes)})" if notes else ""), color=INK)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
