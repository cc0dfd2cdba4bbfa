"""A LUT for people: what it is, what it costs, how true it is and where it comes from, as Rich tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.record import (
    Errors,
    MetricRecord,
    alone,
    configuration_line,
    emulation_notice,
    filled_notices,
    inclusion_notice,
    metric_record,
    named_versions,
    settings_text,
)
from coordinator.units import NOT_KNOWN, Scale, decimals_for, duration, percent, scale_for
from lut_store.lut import METRICS, Lut
from lut_store.metric import Metric

TITLES = {"latency": "latency", "energy": "energy above idle"}
HALF_95 = 1.96
SAMPLE = 2000  # random networks that stand for the space in the summary
SAMPLE_SEED = 0
USUAL_SETTINGS = {"latency": "median", "energy": "plateau", "energy_form": "power", "correction": True}


def _measured(lut: Lut) -> list[tuple[str, Metric]]:
    metrics: list[tuple[str, Metric | None]] = [(name, getattr(lut, name)) for name in METRICS]
    return [(name, metric) for name, metric in metrics if metric is not None]


def measured_names(lut: Lut) -> list[str]:
    """ "latency", "energy": those that the LUT has."""
    return [name for name, _ in _measured(lut)]


def heading(lut: Lut) -> RenderableType:
    """Reference, configuration and, where it is so, the plain words that something is emulated, missing or guessed."""
    lines = [Text(lut.reference, style="bold"), Text(configuration_line(lut), style="dim")]
    notice = emulation_notice(lut)
    if notice:
        lines.append(Text(notice, style="bold red"))
    notes = [note for note in (inclusion_notice(lut), *filled_notices(lut)) if note]
    return Group(*lines, *(Text(note, style="bold yellow") for note in notes))


def summary(lut: Lut) -> Table:
    """One row per metric: what is covered, the cheapest and dearest block, stem and head, random networks."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "cells", "blocks", "stem + head", "random networks 5 % · median · 95 %"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, metric in _measured(lut):
        costs = metric.value[metric.value > 0]
        networks = _random_networks(lut, name)
        scale, whole = scale_for(name, costs), scale_for(name, networks)
        spread = " · ".join(whole.text(float(q)) for q in np.quantile(networks, [0.05, 0.5, 0.95]))
        ends = (scale.text(float(costs.min())), scale.text(float(costs.max()))) if costs.size else ()
        blocks = f"{' to '.join(ends)} {scale.unit}" if ends else NOT_KNOWN
        table.add_row(
            TITLES[name],
            f"{int((~np.isnan(metric.value)).sum())} of {int(lut.allowed.sum())}",
            blocks,
            _fixed(lut, metric, scale),
            f"{spread} {whole.unit}" if np.isfinite(networks).all() else NOT_KNOWN,
        )
    if lut.energy is None:
        table.add_row(TITLES["energy"], "not measured", style="dim")
    return table


def _fixed(lut: Lut, metric: Metric, scale: Scale) -> str:
    if not lut.fixed_included:
        return "not included"
    total = float(metric.fixed_value.sum())
    return NOT_KNOWN if np.isnan(total) else f"{scale.text(total)} {scale.unit}"


def _random_networks(lut: Lut, name: str) -> np.ndarray[Any, Any]:
    """(N,) predictions of networks drawn uniformly from the cells with a number; NaN when there is no network."""
    metric: Metric = getattr(lut, name)
    known = lut.allowed & ~np.isnan(metric.corrected)
    holes = lut.fixed_included and bool(np.isnan(metric.fixed_corrected).any())
    if holes or not known.any(axis=1).all():
        return np.full(1, np.nan)
    rng = np.random.default_rng(SAMPLE_SEED)
    choices = np.stack([rng.choice(np.flatnonzero(row), SAMPLE) for row in known], axis=1)
    predicted: np.ndarray[Any, Any] = alone(lut, name).predict(choices)[:, METRICS.index(name)]
    return predicted


def grid(lut: Lut, name: str) -> Table:
    """Layers × candidates of one metric in one unit; cells that are not allowed stay blank."""
    metric: Metric = getattr(lut, name)
    scale = scale_for(name, metric.value)
    title = f"{TITLES[name]}, {scale.unit} per inference (as measured, without correction)"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", justify="right", style="dim")
    table.add_column("", style="dim", no_wrap=True)
    for op in lut.space.op_names:
        table.add_column(op, justify="right", no_wrap=True)
    decimals = decimals_for(metric.value * scale.per_unit)
    for index, layer in enumerate(lut.space.layers):
        spec = next(cell.spec for cell in layer.cells if cell.spec is not None)
        shape = f"{spec.in_channels}→{spec.out_channels} @{spec.input_height}"
        numbers = (
            _fixed_point(float(value) * scale.per_unit, decimals) if lut.allowed[index, op] else ""
            for op, value in enumerate(metric.value[index])
        )
        table.add_row(str(index), shape, *numbers)
    ends = lut.space.stem + lut.space.head
    for index, value in enumerate(metric.fixed_value if lut.fixed_included else ()):
        number = _fixed_point(float(value) * scale.per_unit, decimals)
        table.add_row("", f"{lut.fixed_name(index)} {ends[index].kind}", number, style="dim")
    return table


def _fixed_point(shown: float, decimals: int) -> str:
    if np.isnan(shown):
        return NOT_KNOWN
    return f"{shown:.{decimals}f}" if shown else "0"


def cells(lut: Lut) -> Table:
    """One row per cell: the numbers with their 95 % half-widths, samples, and what a reader must know."""
    frame = lut.frame()
    table = Table(box=None, pad_edge=False, header_style="dim")
    scales = {name: scale_for(name, metric.value) for name, metric in _measured(lut)}
    table.add_column("layer", justify="right")
    table.add_column("op", no_wrap=True)
    table.add_column("operator", no_wrap=True)
    for name, scale in scales.items():
        table.add_column(f"{name}, {scale.unit}", justify="right", no_wrap=True)
        table.add_column("± 95 %", justify="right", no_wrap=True)
    for title in ("n", "same as"):
        table.add_column(title, justify="right")
    table.add_column("flags")
    columns = {"latency": ("latency_s", "latency_se_s"), "energy": ("energy_j", "energy_se_j")}
    for row in frame.to_dict("records"):
        numbers = []
        for name, scale in scales.items():
            value, se = (float(row[column]) for column in columns[name])
            numbers += [scale.text(value, 4), percent(HALF_95 * se / value if value else None, sign=False)]
        layer = str(row["layer"]) if row["layer"] >= 0 else ""
        shared = f"{row['shared_with']} other" + ("s" if row["shared_with"] > 1 else "") if row["shared_with"] else ""
        table.add_row(layer, str(row["op"]), str(row["label"]), *numbers, str(row["n"]), shared, str(row["flags"]))
    return table


def validation(lut: Lut) -> RenderableType:
    """Errors on whole networks: uncorrected first, then corrected, the noise floor beside; then what else was found."""
    records = [(name, record) for name in METRICS if (record := metric_record(lut, name)) is not None]
    if not records:
        return Text("Not validated: no whole network was measured, so nobody knows how true these sums are.", "yellow")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("sums against measured networks", "bias", "MAPE", "max", "ρ", "noise floor", "networks"):
        table.add_column(column, justify="left" if column.startswith("sums") else "right", no_wrap=True)
    for name, record in records:
        for label, errors, style in _validation_rows(name, record):
            floor = percent(record.noise_floor, sign=False)
            table.add_row(label, *error_cells(errors), floor, str(errors.n), style=style)
    notes = [Text(note, style="dim") for note in _validation_notes(lut, records)]
    findings = [Text(f"! {finding}", style="yellow") for finding in lut.validation.get("findings") or ()]
    return Group(table, *notes, *findings)


def _validation_rows(name: str, record: MetricRecord) -> list[tuple[str, Errors, str]]:
    title = TITLES[name]
    rows = [(f"{title}, uncorrected", record.uncorrected, "")]
    if record.is_corrected:
        rows.append((f"{title}, corrected", record.corrected, "bold"))
    if record.isolated is not None:
        rows.append((f"{title}, from hot loops", record.isolated, "dim"))
    if record.isolated_with_factor is not None:
        rows.append((f"{title}, from hot loops × factor", record.isolated_with_factor, "dim"))
    return rows


def error_cells(errors: Errors) -> tuple[str, str, str, str]:
    """bias, MAPE, max and Spearman's ρ as text."""
    rho = NOT_KNOWN if errors.spearman is None else f"{errors.spearman:.3f}".replace("-", "−")
    return percent(errors.bias), percent(errors.mape, sign=False), percent(errors.max, sign=False), rho


def _validation_notes(lut: Lut, records: list[tuple[str, MetricRecord]]) -> list[str]:
    notes = []
    for name, record in records:
        if record.is_corrected:
            correction = getattr(lut, name).correction.get("method", "factor")
            fitted = f"correction '{correction}', fitted to {record.fit_networks} other networks"
            notes.append(f"{name}: {fitted if correction != 'none' else 'no correction of its own, too few networks'}")
    anchors = records[0][1].anchors
    if anchors:
        shift = lut.validation.get("anchor_shift")
        against = f"{percent(shift['shift'])} from {shift['against']}" if shift else "kept to compare with later runs"
        notes.append(f"{len(anchors)} anchor networks: {against}")
    contexts = lut.validation.get("contexts")
    if isinstance(contexts, Mapping) and contexts.get("ratio") is not None:
        change = float(contexts["ratio"]) - 1
        amount = f"{percent(abs(change), sign=False, digits=1)} {'more' if change > 0 else 'less'}"
        rho = contexts.get("spearman")
        rank = "" if rho is None else f" (rank correlation {rho:.3f})"
        notes.append(f"in the {contexts.get('other')} context the same networks take {amount} time{rank}")
    return notes


def provenance(lut: Lut) -> Table:
    """Where the numbers come from: devices, host, method, device time, meter."""
    p = lut.provenance
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for key, text in _provenance_rows(p, lut):
        if text:
            table.add_row(key, text)
    return table


def _provenance_rows(p: Mapping[str, Any], lut: Lut) -> list[tuple[str, str]]:
    method = p.get("method") or {}
    method = method if isinstance(method, Mapping) else {"latency": method}
    rows = [("made", time.strftime("%Y-%m-%d %H:%M", time.localtime(lut.created_wall_s)) if lut.created_wall_s else "")]
    rows += [("device", _device_text(device)) for device in p.get("devices") or ()]
    rows += [
        ("run", " ".join(map(str, p.get("runs") or ()))),
        ("origin", _origin_text(p.get("origin") or {})),
        (
            "method",
            ", ".join([str(method.get("latency") or ""), *(f"{k} {p[k]}" for k in ("preset", "seed") if k in p)]),
        ),
        ("built as", settings_text(p.get("settings")) if p.get("settings") != USUAL_SETTINGS else ""),
        ("from", ", ".join(parent["reference"] for parent in named_versions(p.get("parents")))),
        ("left out", " ".join(map(str, p.get("excluded_devices") or ()))),
        ("rounds", _rounds_text(p)),
        ("device time", _time_text(p)),
        ("host", _host_text(p.get("host") or {})),
        ("meter", _meter_text(p) if "origin" not in p else ""),
        ("digest", lut.digest),
    ]
    return rows


def _origin_text(origin: Mapping[str, Any]) -> str:
    """Where an imported table came from."""
    names = " and ".join(dict.fromkeys(map(str, (origin.get("files") or {}).values())))
    return f"{names} ({origin.get('format', '')}): {origin.get('note', '')}" if origin else ""


def _device_text(device: Mapping[str, Any]) -> str:
    facts = device.get("facts") or {}
    torch = f"torch {facts['torch_version']}" if facts.get("torch_version") else ""
    return ", ".join(filter(None, [str(device.get("name", "")), str(facts.get("model") or ""), torch]))


def _rounds_text(p: Mapping[str, Any]) -> str:
    if "rounds" not in p:
        return ""
    sweep = ", ".join(f"{size / 2**20:.0f} MiB" for size in p.get("sweep_bytes") or () if size)
    swept = f"; caches swept with {sweep} before each inference" if sweep else ""
    flagged = p.get("rounds_flagged", 0)
    if flagged and flagged == p["rounds"]:
        return f"{flagged}, all flagged and used for want of others{swept}"
    return f"{p['rounds']} clean, {flagged} flagged and left out{swept}"


def _time_text(p: Mapping[str, Any]) -> str:
    if "latency_device_s" not in p:
        return ""
    energy = p.get("energy_device_s") or 0.0
    return f"latency {duration(p['latency_device_s'])}" + (f", energy {duration(energy)}" if energy else "")


def _host_text(host: Mapping[str, Any]) -> str:
    parts = []
    if host.get("temp_c"):
        low, high = host["temp_c"]
        parts.append(f"{low:.0f} to {high:.0f} °C")
    if host.get("frequency_hz"):
        low, high = (f / 1e6 for f in host["frequency_hz"])
        parts.append(f"{low:.0f} to {high:.0f} MHz" if round(low) != round(high) else f"{low:.0f} MHz")
    if host.get("governor"):
        parts.append(f"governor {', '.join(host['governor'])}")
    bits = host.get("throttled_bits")
    if bits is not None:
        parts.append("never throttled" if bits == 0 else f"throttled bits {bits:#x}")
    return ", ".join(parts)


def _meter_text(p: Mapping[str, Any]) -> str:
    meter = p.get("meter")
    if not isinstance(meter, Mapping):
        return "none"
    losses = p.get("meter_losses") or 0
    lost = f", {losses} losses" if losses else ""
    emulated = " (emulated)" if meter.get("emulated") else ""
    known = meter.get("calibration")
    calibrated = "" if emulated else ", not calibrated"
    if isinstance(known, Mapping):
        day = time.strftime("%Y-%m-%d", time.gmtime(known.get("measured_wall_s") or 0))
        calibrated = f", calibration {known.get('id')} of {day}: lag {known.get('lag_s', 0):.3f} s"
    name = f"{meter.get('model') or meter.get('kind')}{emulated}"
    return f"{name} at {meter.get('rate_hz', 0):g} Hz{lost}{calibrated}"
