"""Figure 4: the device time of a full LUT on the emulated Pi 3B, and how its error falls with device time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.emulated import Profile, profile
from benchmarks.runs import OUT, keep
from benchmarks.truth import CONTEXT, TYPE, compare, standard_run
from protos.types import RunSpec

BUDGETS_MIN = (10.0, 20.0, 35.0, 60.0)
LATENCY_SHARE = 0.24  # of the whole: what `standard` gives it
SEEDS_FULL, SEEDS_SHORT = 4, 1
AUTHORS_REPEATS = 2000  # of every cell, in the published script


def main(full: bool = False) -> None:
    seeds = range(SEEDS_FULL if full else SEEDS_SHORT)
    standard = [profile(standard_run(), TYPE, seed) for seed in seeds]
    print(split(standard))
    rows = []
    for minutes in BUDGETS_MIN:
        found = [profile(_budget(standard_run(), 60 * minutes), TYPE, seed) for seed in seeds]
        errors = [compare(one) for one in found]
        row: dict[str, float] = {"minutes": minutes}
        for name in ("operator latency", "operator energy", "network latency", "network energy"):
            row[name] = float(np.median(np.abs(np.concatenate([e[name] for e in errors]))))
        rows.append(row)
        print(
            "  ".join(f"{key} {value:.2%}" if key != "minutes" else f"{value:3.0f} min" for key, value in row.items())
        )
    picture = OUT / "error-by-device-time.png"
    plot(rows, picture)
    print(f"picture: {picture}; raw figures: {keep('device-time', rows)}")


def _budget(spec: RunSpec, seconds: float) -> RunSpec:
    energy_s = (1 - LATENCY_SHARE) * seconds
    plan = replace(
        spec.plan,
        latency_budget_s=LATENCY_SHARE * seconds,
        energy_budget_s=energy_s,
        segment_s=min(spec.plan.segment_s, energy_s),
        rounds_per_task=1,
        target_rel_halfwidth=1e-9,
    )
    return replace(spec, plan=plan)


def split(found: list[Profile]) -> str:
    """Device time of a standard LUT by what it was spent on, and of the published repeats."""
    parts = np.median([_parts_s(one) for one in found], axis=0) / 60
    space, device = found[0].spec.space, found[0].device
    cells = [(layer, op) for layer in range(len(space.layers)) for op in space.allowed(layer)]
    by_spec = {item.spec: device.true_operator(space, item.spec, CONTEXT)[0] for item in found[0].spec.items}
    theirs_s = AUTHORS_REPEATS * sum(by_spec.get(space.layers[layer].cells[op].spec, 0.0) for layer, op in cells)
    return (
        f"a standard LUT: {parts.sum():.1f} min of device time: latency {parts[0]:.1f}, energy {parts[1]:.1f}, "
        f"validation and correction networks {parts[2]:.1f}\n"
        f"2,000 repeats of every cell, latency alone: {theirs_s / 60:.0f} min"
    )


def _parts_s(one: Profile) -> tuple[float, float, float]:
    """Seconds for operators' latency, operators' energy, and whole networks in both."""
    rounds = [r for stream in one.evidence.streams for r in stream]
    latency_s = sum(r.ended_ns - r.started_ns for r in rounds) * 1e-9
    executed = [(len(r.paths.total_ns), len(r.networks.network)) for r in rounds if r.paths and r.networks]
    share = sum(n for _, n in executed) / sum(p + n for p, n in executed)
    windows = [w for segment in one.evidence.segments for trace in segment for w in trace.windows]
    networks_s = sum(w.ended_ns - w.started_ns for w in windows if w.subject == "network") * 1e-9
    energy_s = one.lut.provenance["energy_device_s"]
    return latency_s * (1 - share), energy_s - networks_s, latency_s * share + networks_s


def plot(rows: list[dict[str, float]], path: Path) -> None:
    from matplotlib import pyplot as plt

    plt.switch_backend("Agg")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    minutes = [row["minutes"] for row in rows]
    for name in rows[0]:
        if name != "minutes":
            axes.plot(minutes, [100 * row[name] for row in rows], marker="o", label=name)
    axes.set_xlabel("device time, minutes")
    axes.set_ylabel("median error against the truth, %")
    axes.set_title("Emulated Pi 3B with a 2 Hz meter")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
