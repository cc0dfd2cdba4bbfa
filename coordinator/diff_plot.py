"""A picture of how two LUTs differ: the relative change of every cell, and which changes are beyond the uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Patch, Rectangle

from coordinator import plots
from coordinator.record import configuration_line
from coordinator.units import percent
from lut_store.metric import Array, BoolArray
from protos.errors import BadInputError
from protos.types import FIXED_LAYER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lut_store.diff import LutDiff, MetricDiff
    from lut_store.lut import Lut

COLOURS = colormaps["RdBu_r"]  # blue is cheaper, red is dearer
LEAST_SPAN = 0.02  # of the colours, relative: noise must not look like a change
SPAN_QUANTILE = 0.98  # of the changes: one outlier must not make the rest pale
FAINT_SHARE = 0.35  # of its colour, for a change within the uncertainty
Z95 = 1.959964


def diff_heatmap(found: LutDiff, path: str | Path) -> None:
    """Write a PNG, one panel per metric. Raises BadInputError when the two have no metric in common."""
    if not found.metrics:
        raise BadInputError(f"{found.a.reference} and {found.b.reference} have no metric in common: nothing to draw")
    lut = found.a
    layers, ops = lut.space.shape
    labels = plots.layer_labels(lut)
    slanted = max(map(len, lut.space.op_names)) >= plots.LONG_NAME
    grid_w, grid_h = max(ops * 0.62, 3.0), max(layers * 0.30, 2.0)
    left, gap, head, foot = 0.075 * max(map(len, labels)) + 0.3, 1.05, 1.75 if slanted else 1.45, 1.35
    title = f"{found.a.reference} → {found.b.reference}"
    width = max(left + len(found.metrics) * (grid_w + gap), plots.title_width(title))
    height = grid_h + head + foot
    figure = plots.new_figure(width, height)
    for index, metric in enumerate(found.metrics):
        x = left + index * (grid_w + gap)
        axes = figure.add_axes((x / width, foot / height, grid_w / width, grid_h / height))
        bar = figure.add_axes(((x + grid_w + 0.12) / width, foot / height, 0.13 / width, grid_h / height))
        _panel(axes, bar, lut, metric, labels if index == 0 else [""] * layers, slanted)
    plots.put_text(figure, 0.3, height - 0.36, title, fontsize=12, fontweight="bold")
    said = f"change of every cell, corrected costs  ·  {configuration_line(found.b)}"
    plots.put_text(figure, 0.3, height - 0.6, said, fontsize=9, color=plots.FAINT)
    figure.legend(
        handles=[
            Patch(facecolor="white", edgecolor=plots.INK, linewidth=1.2, label="changed beyond the uncertainty"),
            Patch(**plots.FORBIDDEN, label="not allowed, no block, or no number in one of them"),
        ],
        loc="lower left", frameon=False, bbox_to_anchor=(left / width, 0.38 / height), borderpad=0, borderaxespad=0,
        fontsize=8, ncols=2,
    )  # fmt: skip
    note = f"Framed: false-discovery rate {100 * found.fdr:g} %. Pale: within the uncertainty, or not testable."
    plots.put_text(figure, left, 0.18, note, fontsize=8, color=plots.FAINT)
    plots.save(figure, path)


def _grids(lut: Lut, metric: MetricDiff) -> tuple[Array, BoolArray]:
    """(L, K) relative changes, NaN without one, and whether they are beyond the uncertainty."""
    relative, changed = np.full(lut.space.shape, np.nan), np.zeros(lut.space.shape, bool)
    for change in metric.changes:
        for cell in change.cells:
            if cell.layer != FIXED_LAYER:
                relative[cell.layer, cell.op], changed[cell.layer, cell.op] = change.relative, change.changed
    return relative, changed


def _panel(axes: Axes, bar: Axes, lut: Lut, metric: MetricDiff, labels: list[str], slanted: bool) -> None:
    relative, changed = _grids(lut, metric)
    layers, ops = relative.shape
    known = np.abs(relative[np.isfinite(relative)])
    span = max(float(np.quantile(known, SPAN_QUANTILE)) if known.size else 0.0, LEAST_SPAN)
    norm = Normalize(-span, span, clip=True)
    colour = COLOURS(norm(np.nan_to_num(relative)))[..., :3]  # (L, K, 3)
    colour = np.where(changed[..., None], colour, 1 - FAINT_SHARE * (1 - colour))
    axes.imshow(colour, aspect="auto")
    for layer, op in np.argwhere(np.isnan(relative)):
        axes.add_patch(Rectangle((op - 0.5, layer - 0.5), 1, 1, **plots.FORBIDDEN))
    plots.cell_lines(axes, lut)
    dark = colour @ np.array([0.299, 0.587, 0.114]) < plots.DARK
    for (layer, op), value in np.ndenumerate(relative):
        if np.isnan(value):
            continue
        beyond = bool(changed[layer, op])
        if beyond:
            axes.add_patch(
                Rectangle((op - 0.46, layer - 0.46), 0.92, 0.92, fill=False, edgecolor=plots.INK, linewidth=0.9)
            )
        if relative.size <= plots.MAX_LABELLED_CELLS:
            ink = "white" if dark[layer, op] else plots.INK if beyond else plots.FAINT
            axes.text(op, layer, _signed(100 * value), ha="center", va="center", fontsize=6.5, color=ink)
    slant = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(ops), lut.space.op_names, fontsize=7.5, **slant)  # type: ignore[arg-type]
    axes.xaxis.tick_top()
    axes.set_yticks(range(layers), labels, fontsize=7.5)
    axes.tick_params(length=0, colors=plots.INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"{plots.TITLES[metric.metric]}, change in %", fontsize=10, color=plots.INK, loc="left", pad=8)
    axes.set_xlabel("\n".join(_below(lut, metric)), fontsize=8.5, color=plots.INK, labelpad=5)
    axes.figure.colorbar(
        ScalarMappable(norm, COLOURS), cax=bar, format=lambda value, _: f"{100 * value:+g}"
    ).outline.set_visible(False)
    bar.tick_params(labelsize=7.5, colors=plots.INK, length=2)


def _signed(value: float) -> str:
    """``+3.1``, ``−12``."""
    digits = 1 if abs(value) < 10 else 0
    return f"{round(value, digits) or 0.0:+.{digits}f}".replace("-", "−").replace("+0.0", "0")


def _below(lut: Lut, metric: MetricDiff) -> list[str]:
    """Stem and head, and the uniform mixture."""
    ends = {cell.op: change for change in metric.changes for cell in change.cells if cell.layer == FIXED_LAYER}
    fixed = [
        f"{lut.fixed_name(op)} {percent(change.relative, digits=1)}{' (changed)' if change.changed else ''}"
        for op, change in sorted(ends.items())
    ]
    total = metric.totals[0]
    half = "" if not np.isfinite(total.relative_se) else f" ± {percent(Z95 * total.relative_se, sign=False, digits=1)}"
    return [*([", ".join(fixed)] if fixed else []), f"{total.name}: {percent(total.relative, digits=1)}{half}"]
