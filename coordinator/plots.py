"""Pictures of a LUT: what every candidate costs, and how close its sums come to measured networks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from coordinator.record import Errors, MetricRecord, NetworkPoint, configuration_line, emulation_notice, metric_record
from coordinator.units import Scale, decimals_for, percent, scale_for
from lut_store.lut import METRICS, Lut
from lut_store.metric import Array, Metric
from protos.errors import BadInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 150
Z95 = 1.96  # half-width of a 95 % interval in standard errors
INK, FAINT, GRID, WARNING = "#1f2933", "#6b7885", "#e5e9ed", "#b42318"
FREE = "#f3f5f7"  # of a cell that costs nothing, which the colours of the others leave out
COLOURS = {"latency": "#2563a8", "energy": "#c2571a"}
MAPS = {"latency": "YlGnBu", "energy": "YlOrRd"}
TITLES = {"latency": "Latency", "energy": "Energy above idle"}
# Costs within a space span two decades with most of them low: a square root spreads the colours.
COLOUR_EXPONENT = 0.5
DARK = 0.55  # luminance below which a cell's number is white
MAX_LABELLED_CELLS = 600  # beyond this the numbers would be too small to read
LONG_NAME = 9  # characters of a candidate's name from which it is written at an angle


def heatmap(lut: Lut, path: str | Path) -> None:
    """Write a PNG of latency and energy, layers × candidates; cells that are not allowed stay blank (hatched).

    Raises BadInputError when the LUT holds no number at all.
    """
    metrics = _measured(lut)
    layers, ops = lut.space.shape
    labels = layer_labels(lut)
    slanted = max(map(len, lut.space.op_names)) >= LONG_NAME
    grid_w, grid_h = max(ops * 0.62, 3.0), max(layers * 0.30, 2.0)
    left, gap, head, foot = 0.075 * max(map(len, labels)) + 0.3, 1.05, 1.75 if slanted else 1.45, 1.0
    title = f"{lut.reference}: what every candidate costs"
    width, height = max(left + len(metrics) * (grid_w + gap), title_width(title)), grid_h + head + foot
    figure = new_figure(width, height)
    for index, (name, metric) in enumerate(metrics):
        x = left + index * (grid_w + gap)
        axes = figure.add_axes((x / width, foot / height, grid_w / width, grid_h / height))
        bar = figure.add_axes(((x + grid_w + 0.12) / width, foot / height, 0.13 / width, grid_h / height))
        _panel(axes, bar, lut, name, metric, labels if index == 0 else [], slanted)
    _titles(figure, lut, title)
    _legend(figure, lut, left)
    save(figure, path)


def validation_plot(lut: Lut, path: str | Path) -> None:
    """Write a PNG of predicted against measured networks for latency and energy, with the identity line and the errors.

    Raises BadInputError when the LUT was not validated.
    """
    found = [(name, metric_record(lut, name)) for name in METRICS]
    records = [(name, record) for name, record in found if record is not None and record.networks]
    if not records:
        raise BadInputError(f"{lut.reference} holds no measured networks, so there is no validation to plot")
    panel, side = 5.5, 4.3
    title = f"{lut.reference}: predicted against measured networks"
    width, height = max(panel * len(records) + 0.2, title_width(title)), 9.3
    figure = new_figure(width, height)
    for index, (name, record) in enumerate(records):
        x = (0.95 + index * panel) / width
        scale = scale_for(name, [p.measured for p in record.networks])
        axes = figure.add_axes((x, 3.65 / height, side / width, side / height))
        _scatter(axes, name, record, scale)
        errors = figure.add_axes((x, 1.95 / height, side / width, 1.35 / height), sharex=axes)
        _residuals(errors, name, record, scale)
        _error_table(figure, 0.95 + index * panel, 1.25, record)
    _titles(figure, lut, title)
    save(figure, path)


def _measured(lut: Lut) -> list[tuple[str, Metric]]:
    metrics: list[tuple[str, Metric | None]] = [(name, getattr(lut, name)) for name in METRICS]
    found = [(name, m) for name, m in metrics if m is not None and np.isfinite(m.value).any()]
    if not found:
        raise BadInputError(f"{lut.reference} holds no number, so there is nothing to plot")
    return found


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise BadInputError(f"{target} does not end in .png, which is the one format of pictures")
    try:
        figure.savefig(target, format="png")
    except OSError as error:
        raise BadInputError(f"{target} cannot be written: {error.strerror or error}") from error


def put_text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text at (x, y) inches from the lower left corner."""
    width, height = figure.get_size_inches()
    merged: dict[str, Any] = {"fontsize": 8.5, "color": INK} | style
    figure.text(x / width, y / height, text, **merged)


def title_width(title: str) -> float:
    """Inches that a figure needs for this title and for the notice of an emulated meter below it."""
    return max(0.6 + 0.103 * len(title), 7.0)


def _titles(figure: Figure, lut: Lut, title: str) -> None:
    """At the top: what it is, of which configuration, and plainly what is not real."""
    _, height = figure.get_size_inches()
    made = time.strftime("%Y-%m-%d", time.localtime(lut.created_wall_s)) if lut.created_wall_s else ""
    second = "  ·  ".join(filter(None, [configuration_line(lut), made]))
    put_text(figure, 0.3, height - 0.36, title, fontsize=12, fontweight="bold")
    put_text(figure, 0.3, height - 0.6, second, fontsize=9, color=FAINT)
    put_text(figure, 0.3, height - 0.82, emulation_notice(lut), fontsize=9, fontweight="bold", color=WARNING)


# ---- heat map -------------------------------------------------------------------------------------------------------


def layer_labels(lut: Lut) -> list[str]:
    """``24→32 /2 @16×16   5``: what goes in and out of each layer, its stride, the size of its input."""
    labels = []
    for index, layer in enumerate(lut.space.layers):
        spec = next(cell.spec for cell in layer.cells if cell.spec is not None)
        stride = f" /{spec.stride}" if spec.stride > 1 else ""
        size = f"@{spec.input_height}×{spec.input_width}"
        labels.append(f"{spec.in_channels}→{spec.out_channels}{stride} {size}  {index:>3}")
    return labels


def _panel(axes: Axes, bar: Axes, lut: Lut, name: str, metric: Metric, labels: Sequence[str], slanted: bool) -> None:
    scale = scale_for(name, metric.value)
    values = metric.value * scale.per_unit  # (L, K)
    layers, ops = values.shape
    costs = values[values > 0] if (values > 0).any() else np.ones(1)
    norm = PowerNorm(COLOUR_EXPONENT, float(costs.min()), float(costs.max()))
    colours = colormaps[MAPS[name]].with_extremes(under=FREE)
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, norm=norm, aspect="auto")
    _blank_cells(axes, lut, values)
    cell_lines(axes, lut)
    if values.size <= MAX_LABELLED_CELLS:
        _numbers(axes, values, image.to_rgba(values)[..., :3] @ np.array([0.299, 0.587, 0.114]))
    slant: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(ops), lut.space.op_names, fontsize=7.5, **slant)
    axes.xaxis.tick_top()
    axes.set_yticks(range(layers), labels or [""] * layers, fontsize=7.5)
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"{TITLES[name]}, {scale.unit} per inference", fontsize=10, color=INK, loc="left", pad=8)
    if lut.fixed_included:
        total = float(metric.fixed_value.sum())
        ends = "no number" if np.isnan(total) else f"{scale.text(total)} {scale.unit}"
        axes.set_xlabel(f"stem and head, in every network: {ends}", fontsize=8.5, color=INK, labelpad=5)
    axes.figure.colorbar(image, cax=bar).outline.set_visible(False)
    bar.tick_params(labelsize=7.5, colors=INK, length=2)


def _blank_cells(axes: Axes, lut: Lut, values: Array) -> None:
    for layer, op in np.argwhere(np.isnan(values)):
        style = _UNMEASURED if lut.allowed[layer, op] else FORBIDDEN
        axes.add_patch(Rectangle((op - 0.5, layer - 0.5), 1, 1, **style))


FORBIDDEN: dict[str, Any] = {"facecolor": "#fafafa", "edgecolor": "#d5dae0", "hatch": "////", "linewidth": 0}
_UNMEASURED: dict[str, Any] = {"facecolor": "#fdf3f2", "edgecolor": "#e3a49c", "hatch": "....", "linewidth": 0}


def cell_lines(axes: Axes, lut: Lut) -> None:
    """White lines between cells, and a thin dark one where the number of channels changes."""
    layers, ops = lut.space.shape
    for x in range(1, ops):
        axes.axvline(x - 0.5, color="white", linewidth=0.8)
    outputs = [next(c.spec.out_channels for c in layer.cells if c.spec is not None) for layer in lut.space.layers]
    for y in range(1, layers):
        changes = outputs[y] != outputs[y - 1]
        axes.axhline(y - 0.5, color=INK if changes else "white", linewidth=0.7 if changes else 0.8)


def _numbers(axes: Axes, values: Array, luminance: Array) -> None:
    decimals = decimals_for(values)
    for (layer, op), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        text = "0" if value == 0 else f"{value:.{decimals}f}"
        colour = "white" if luminance[layer, op] < DARK else INK
        axes.text(op, layer, text, ha="center", va="center", fontsize=6.5, color=colour)


def _legend(figure: Figure, lut: Lut, x: float) -> None:
    entries = [(FORBIDDEN, "not allowed on this layer")]
    if any((np.isnan(metric.value) & lut.allowed).any() for _, metric in _measured(lut)):
        entries.append((_UNMEASURED, "allowed, but no number"))
    width, height = figure.get_size_inches()
    figure.legend(
        handles=[Patch(**style, label=label) for style, label in entries], loc="lower left", frameon=False,
        bbox_to_anchor=(x / width, 0.38 / height), borderpad=0, borderaxespad=0, fontsize=8, ncols=2,
    )  # fmt: skip
    note = "0: a chosen skip is removed from the network. Dark lines: the number of channels changes."
    put_text(figure, x, 0.18, note, fontsize=8, color=FAINT)


# ---- validation -----------------------------------------------------------------------------------------------------


def _columns(points: Sequence[NetworkPoint]) -> tuple[Array, Array, Array]:
    """(N,) measured, (N,) predicted, (2, N) distances down and up to the ends of the interval (0 when unknown)."""
    measured = np.array([p.measured for p in points])
    predicted = np.array([p.corrected for p in points])
    lower = np.array([0.0 if p.lo is None else p.corrected - p.lo for p in points])
    upper = np.array([0.0 if p.hi is None else p.hi - p.corrected for p in points])
    return measured, predicted, np.stack((lower, upper))


def _series(record: MetricRecord, colour: str) -> list[tuple[Sequence[NetworkPoint], dict[str, Any]]]:
    style: dict[str, Any] = {"color": colour, "elinewidth": 0.8, "capsize": 1.5, "alpha": 0.85, "zorder": 3}
    held_out = style | {"fmt": "o", "markersize": 4.5, "label": "held-out network, 95 % intervals"}
    anchors = style | {"fmt": "D", "markersize": 4.5, "markerfacecolor": "white", "label": "anchor network"}
    return [(points, kind) for points, kind in ((record.networks, held_out), (record.anchors, anchors)) if points]


def _uncorrected(record: MetricRecord) -> tuple[Array, Array] | None:
    """(N,) measured and predicted without the correction, when there is one."""
    pairs = [(p.measured, p.uncorrected) for p in record.networks if p.uncorrected is not None]
    if not pairs or not record.is_corrected:
        return None
    measured, predicted = np.array(pairs).T
    return measured, predicted


def _scatter(axes: Axes, name: str, record: MetricRecord, scale: Scale) -> None:
    limits = _limits(record, scale)
    axes.plot(limits, limits, color=FAINT, linewidth=1, zorder=1, label="predicted = measured")
    raw = _uncorrected(record)
    if raw is not None:
        axes.plot(*(v * scale.per_unit for v in raw), "x", color=FAINT, markersize=4, label="without correction")
    for points, style in _series(record, COLOURS[name]):
        measured, predicted, half = (column * scale.per_unit for column in _columns(points))
        noise = Z95 * scale.per_unit * np.array([p.measured_se or 0.0 for p in points])
        axes.errorbar(measured, predicted, xerr=noise, yerr=half, **style)
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    _dress(axes)
    axes.set_ylabel(f"predicted, {scale.unit}", fontsize=9, color=INK)
    axes.set_title(TITLES[name], fontsize=10, color=INK, loc="left")
    axes.legend(loc="upper left", fontsize=7.5, frameon=False)


def _residuals(axes: Axes, name: str, record: MetricRecord, scale: Scale) -> None:
    axes.axhline(0, color=FAINT, linewidth=1, zorder=1)
    if record.noise_floor is not None:
        floor = 100 * record.noise_floor
        axes.axhspan(-floor, floor, color=GRID, zorder=0, label="noise floor")
        axes.legend(loc="upper right", fontsize=7, frameon=False, borderpad=0.1)
    raw = _uncorrected(record)
    if raw is not None:
        axes.plot(raw[0] * scale.per_unit, 100 * (raw[1] / raw[0] - 1), "x", color=FAINT, markersize=4)
    for points, style in _series(record, COLOURS[name]):
        measured, predicted, half = _columns(points)
        error = 100 * (predicted / measured - 1)
        axes.errorbar(measured * scale.per_unit, error, yerr=100 * half / measured, **style)
    low, high = axes.get_ylim()
    axes.set_ylim(-max(abs(low), abs(high)), max(abs(low), abs(high)))
    _dress(axes)
    axes.set_xlabel(f"measured, {scale.unit}", fontsize=9, color=INK)
    axes.set_ylabel("error, %", fontsize=9, color=INK)


def _dress(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK, length=2)
    for spine in axes.spines.values():
        spine.set_color("#c3cad1")


def _limits(record: MetricRecord, scale: Scale) -> tuple[float, float]:
    points = record.networks + record.anchors
    columns = ([p.measured for p in points], [p.corrected for p in points], [p.uncorrected for p in record.networks])
    values = [value for column in columns for value in column if value is not None]
    low, high = min(values) * scale.per_unit, max(values) * scale.per_unit
    margin = 0.07 * (high - low) or 0.05 * high
    return low - margin, high + margin


def _error_table(figure: Figure, x: float, y: float, record: MetricRecord) -> None:
    """Rows of numbers under a panel: the uncorrected error first."""
    rows = [("", ("bias", "MAPE", "max", "ρ"), FAINT), ("without correction", _texts(record.uncorrected), INK)]
    if record.is_corrected:
        rows.append(("with correction", _texts(record.corrected), INK))
    for line, (label, cells, colour) in enumerate(rows):
        put_text(figure, x, y - 0.22 * line, label, color=colour)
        for column, cell in enumerate(cells):
            put_text(figure, x + 2.2 + 0.7 * column, y - 0.22 * line, cell, color=colour, ha="right")
    fitted = f", {record.fit_networks} others fitted the correction" if record.is_corrected else ", no correction"
    note = f"{record.uncorrected.n} held-out networks{fitted}; noise floor {percent(record.noise_floor, sign=False)}"
    put_text(figure, x, y - 0.22 * len(rows) - 0.04, note, fontsize=8, color=FAINT)


def _texts(errors: Errors) -> tuple[str, str, str, str]:
    rho = "–" if errors.spearman is None else f"{errors.spearman:.3f}".replace("-", "−")
    return percent(errors.bias), percent(errors.mape, sign=False), percent(errors.max, sign=False), rho
