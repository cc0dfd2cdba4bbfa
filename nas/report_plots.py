"""Figures 6 to 10 of HANNA (arXiv 1906.07214) for a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lut_store.metric import Array
from nas.plots import DPI, FAINT, INK
from nas.report import Result, chosen, costs, on_front
from protos.errors import StorageError

COLOURS = {"energy": "#2563a8", "latency": "#c2571a"}  # which term dominates before training
MARK = "#1f2933"
SMALLEST, LARGEST = 70.0, 520.0  # areas of bubbles in square points
ENDINGS = (".png", ".svg")


@dataclass(frozen=True)
class Words:
    """What must be said of all results."""

    accuracy: str  # whose accuracy it is
    notice: str  # "" when there is nothing to notice


def draw_all(results: Sequence[Result], words: Words, folder: Path) -> dict[str, str]:
    """Write fig6 … fig10 as PNG and SVG; captions by file stem. Raises StorageError."""
    figures: Mapping[str, tuple[Callable[[Figure, Sequence[Result], Words], None], str]] = {
        "fig6": (_curves, f"Accuracy, latency and energy over the epochs of trial {chosen(results).number}"),
        "fig7": (_tradeoff, "Latency, energy and accuracy of every child; the rings are the latency-energy front"),
        "fig8": (_ratio, "α and β against accuracy ÷ latency"),
        "fig9": (_latency, "α and β against latency"),
        "fig10": (_energy, "γ and δ against energy"),
    }
    for stem, (draw, _) in figures.items():
        figure = Figure(figsize=(7.2, 7.6 if stem == "fig6" else 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, results, words)
        if words.notice:
            figure.supxlabel(words.notice, fontsize=8, color=FAINT)
        for ending in ENDINGS:
            path = folder / f"{stem}{ending}"
            try:
                figure.savefig(path, dpi=DPI)
            except OSError as error:
                raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    return {stem: caption for stem, (_, caption) in figures.items()}


def _curves(figure: Figure, results: Sequence[Result], words: Words) -> None:  # noqa: ARG001 - one signature
    """Figure 6: the chosen trial."""
    best = chosen(results)
    panels = (
        (
            "accuracy in the supernet, %",
            (("weight_accuracy", "images of the weights"), ("theta_accuracy", "images of θ")),
        ),
        ("latency, s", (("expected_latency_s", "expected"), ("argmax_latency_s", "most probable child"))),
        ("energy, J", (("expected_energy_j", "expected"), ("argmax_energy_j", "most probable child"))),
    )
    grid = figure.subplots(len(panels), 1, sharex=True)
    for axes, (label, lines) in zip(grid, panels, strict=True):
        for (name, meaning), colour in zip(lines, COLOURS.values(), strict=True):
            known = [(epoch["epoch"], epoch[name]) for epoch in best.epochs if epoch[name] is not None]
            x, y = np.array(known, np.float64).reshape(-1, 2).T
            axes.plot(x, y * (100 if "accuracy" in name else 1), color=colour, linewidth=1.4, label=meaning)
        axes.set_ylabel(label, color=INK)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
        _plain(axes)
    grid[-1].set_xlabel("epoch", color=INK)


def _tradeoff(figure: Figure, results: Sequence[Result], words: Words) -> None:
    """Figure 7."""
    axes = figure.add_subplot()
    points = costs(results)
    accuracy = np.array([result.best_accuracy for result in results])
    _bubbles(axes, results, points[:, 0], points[:, 1], accuracy * 100, f"{words.accuracy}, %")
    ring = points[on_front(points)]
    axes.step(ring[:, 0], ring[:, 1], where="post", color=MARK, linewidth=0.8, zorder=1)
    axes.scatter(ring[:, 0], ring[:, 1], s=LARGEST * 1.25, facecolors="none", edgecolors=MARK, linewidths=0.8, zorder=1)
    axes.set_xlabel("latency, s per inference", color=INK)
    axes.set_ylabel("energy above idle, J per inference", color=INK)


def _ratio(figure: Figure, results: Sequence[Result], words: Words) -> None:
    """Figure 8."""
    ratio = np.array([100 * result.best_accuracy / result.latency_s for result in results])
    _knob_plane(figure, results, ("alpha", "beta"), ("α", "β"), ratio, f"{words.accuracy} in % ÷ latency in s")


def _latency(figure: Figure, results: Sequence[Result], words: Words) -> None:  # noqa: ARG001 - one signature
    """Figure 9."""
    _knob_plane(figure, results, ("alpha", "beta"), ("α", "β"), costs(results)[:, 0], "latency, s")


def _energy(figure: Figure, results: Sequence[Result], words: Words) -> None:  # noqa: ARG001 - one signature
    """Figure 10."""
    _knob_plane(figure, results, ("gamma", "delta"), ("γ", "δ"), costs(results)[:, 1], "energy, J")


def _knob_plane(
    figure: Figure, results: Sequence[Result], names: tuple[str, str], signs: tuple[str, str], size: Array, meaning: str
) -> None:
    axes = figure.add_subplot()
    x, y = (np.array([getattr(result.setting.knobs, name) for result in results]) for name in names)
    _bubbles(axes, results, x, y, size, meaning)
    if (x > 0).all():
        axes.set_xscale("log")
        ticks = sorted(set(x.tolist()))
        if len(ticks) <= 12:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45, fontsize=8)
            axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{signs[0]}, weight", color=INK)
    axes.set_ylabel(f"{signs[1]}, power", color=INK)
    axes.margins(0.12, 0.16)


def _bubbles(axes: Axes, results: Sequence[Result], x: Array, y: Array, size: Array, meaning: str) -> None:
    """One bubble a trial, its area by `size`, with its number; a legend of sizes and of what dominates."""
    known = size[np.isfinite(size)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)

    def area(value: Array | float) -> Array:
        share = (np.nan_to_num(np.asarray(value, np.float64), nan=low) - low) / ((high - low) or 1.0)
        return SMALLEST + (LARGEST - SMALLEST) * share

    for name, colour in COLOURS.items():
        own = [index for index, result in enumerate(results) if result.setting.dominant == name]
        axes.scatter(x[own], y[own], s=area(size[own]), color=colour, alpha=0.45, linewidths=0)
        axes.scatter([], [], s=60, color=colour, alpha=0.45, linewidths=0, label=f"{name} dominates before training")
    for value in (low, high):
        axes.scatter([], [], s=area(value), color=FAINT, alpha=0.6, linewidths=0, label=f"{meaning}: {value:.4g}")
    for index, result in enumerate(results):
        axes.annotate(str(result.number), (x[index], y[index]), ha="center", va="center", fontsize=7, color=INK)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2, labelspacing=1.0)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
