"""A run while it goes on: a live display on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.units import NOT_KNOWN, duration, percent
from protos.types import ENDED_STATES, FIXED_LAYER, DeviceActivity, OperatorProgress, Run, RunSpec

PLAIN_EVERY_S = 10.0  # between lines where there is no terminal
REFRESH_PER_S = 2  # drawing takes time of the machine, which may be the one that is measured
WIDEST = 5  # operators shown by name
BAR_WIDTH = 28
# Half-widths are counted against the target; the last bin takes the rest.
BINS = ((0.5, "≤ ½ target"), (1.0, "≤ target"), (2.0, "≤ 2 ×"), (4.0, "≤ 4 ×"), (math.inf, "wider"))
PHASES = {
    "queued": "waiting",
    "latency": "measuring latency",
    "energy": "measuring energy",
    "building": "building the LUT",
}


@dataclass(frozen=True)
class Precision:
    """How far the operators are: counts per bin of BINS, those without an interval yet, and the widest."""

    counts: tuple[int, ...]
    unknown: int
    widest: tuple[OperatorProgress, ...]

    @property
    def within(self) -> int:
        """Operators at or under the target."""
        return self.counts[0] + self.counts[1]


def precision(operators: Sequence[OperatorProgress], target: float) -> Precision:
    """Sort the operators' relative half-widths against the target."""
    counts = [0] * len(BINS)
    known = [(operator.rel_halfwidth, operator) for operator in operators if operator.rel_halfwidth is not None]
    for width, _ in known:
        counts[next(index for index, (limit, _) in enumerate(BINS) if width <= limit * target)] += 1
    widest = sorted(known, key=lambda pair: -pair[0])[:WIDEST]
    return Precision(tuple(counts), len(operators) - len(known), tuple(operator for _, operator in widest))


def operator_name(spec: RunSpec, item: int) -> str:
    """``layers 2–4 k5_e6: mbconv 24→24 k5 s1 e6 @8×8``."""
    if item >= len(spec.items):
        return f"operator {item}"
    cells = spec.items[item].cells
    label = spec.items[item].spec.label()
    if cells[0].layer == FIXED_LAYER:
        return f"{'stem' if cells[0].op < len(spec.space.stem) else 'head'}: {label}"
    layers = sorted({cell.layer for cell in cells})
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}–{layers[-1]}"
    return f"{where} {spec.space.op_names[cells[0].op]}: {label}"


def share_done(run: Run, now_s: float) -> float | None:
    """Of the time that the run takes, by its own estimate of what is left."""
    if run.state in ENDED_STATES:
        return 1.0
    if run.eta_s is None or not run.created_wall_s:
        return None
    spent = max(now_s - run.created_wall_s, 0.0)
    return spent / (spent + run.eta_s) if spent + run.eta_s > 0 else None


def line(run: Run, spec: RunSpec) -> str:
    """The run in one line, for logs and pipes."""
    target = spec.plan.target_rel_halfwidth
    parts = [PHASES.get(run.state, run.state)]
    if run.rounds or run.rounds_flagged:
        flagged = f" ({run.rounds_flagged} flagged)" if run.rounds_flagged else ""
        parts.append(f"{run.rounds} round{'' if run.rounds == 1 else 's'}{flagged}")
    if run.rel_halfwidth is not None:
        parts.append(f"widest ±{percent(run.rel_halfwidth, sign=False)} (target ±{percent(target, sign=False)})")
    if run.energy_device_s:
        parts.append(f"energy {duration(run.energy_device_s)} of {duration(spec.plan.energy_budget_s)}")
    parts += [_activity(device) for device in run.devices]
    if run.eta_s is not None and run.state not in ENDED_STATES:
        parts.append(f"ETA {duration(run.eta_s)}")
    if run.reason and run.state != "building":
        parts.append(run.reason)
    return "; ".join(parts)


def _activity(device: DeviceActivity) -> str:
    current = "" if device.current_a is None else f" {device.current_a:.3f} A"
    temperature = "" if device.temp_c is None else f" {device.temp_c:.1f} °C"
    return f"{device.device}: {device.activity or 'idle'}{current}{temperature}"


def panel(run: Run, spec: RunSpec, now_s: float) -> Panel:
    """The run as the live display shows it."""
    plan = spec.plan
    threads = f"{plan.threads} thread{'s' if plan.threads != 1 else ''}"
    title = f"run {run.run_id} · {spec.device} · {spec.space.name} · {spec.preset} · {plan.context}, {threads}"
    rows: list[RenderableType] = [_phase(run, now_s), _counts(run, spec)]
    if run.operators:
        rows += [Text(""), _operators(run, spec)]
    if run.devices:
        rows += [Text(""), _devices(run.devices)]
    if run.reason and run.state != "building":  # the phase says it already
        rows += [Text(run.reason, style="yellow")]
    return Panel(Group(*rows), title=title, title_align="left", border_style="dim", padding=(0, 1))


def _phase(run: Run, now_s: float) -> Table:
    row = Table.grid(padding=(0, 2))
    share = share_done(run, now_s)
    bar = ProgressBar(total=1.0, completed=share or 0.0, width=BAR_WIDTH, pulse=share is None)
    eta = "" if run.eta_s is None else f"ETA {duration(run.eta_s)}"
    spent = duration(now_s - run.created_wall_s) if run.created_wall_s else NOT_KNOWN
    row.add_row(Text(PHASES.get(run.state, run.state), style="bold"), bar, f"{spent} gone", eta)
    return row


def _counts(run: Run, spec: RunSpec) -> Text:
    plan = spec.plan
    text = f"{run.rounds} clean rounds, {run.rounds_flagged} flagged; device time: "
    text += f"latency {duration(run.latency_device_s)} of at most {duration(plan.latency_budget_s)}"
    if plan.energy_budget_s:
        text += f", energy {duration(run.energy_device_s)} of {duration(plan.energy_budget_s)}"
    return Text(text, style="dim")


def _operators(run: Run, spec: RunSpec) -> Table:
    """Left: how many operators are how precise. Right: the widest by name."""
    target = spec.plan.target_rel_halfwidth
    state = precision(run.operators, target)
    left = Table.grid(padding=(0, 1))
    left.add_column(justify="right", style="dim")
    total = max(len(run.operators), 1)
    head = f"{state.within} of {len(run.operators)} within ±{percent(target, sign=False)}"
    for (limit, label), count in zip(BINS, state.counts, strict=True):
        style = "green" if limit <= 1 else "yellow"
        left.add_row(label, Text("█" * math.ceil(16 * count / total), style=style), str(count) if count else "")
    if state.unknown:
        left.add_row("no interval yet", Text("░" * math.ceil(16 * state.unknown / total)), str(state.unknown))
    right = Table.grid(padding=(0, 1))
    for operator in state.widest:
        width = percent(operator.rel_halfwidth, sign=False)
        right.add_row(f"±{width}", Text(f"n {operator.n}", style="dim"), operator_name(spec, operator.item))
    both = Table.grid(padding=(0, 4))
    both.add_row(Text(head, style="bold"), Text("widest 95 % intervals" if state.widest else "", style="bold"))
    both.add_row(left, right)
    return both


def _devices(devices: Iterable[DeviceActivity]) -> Table:
    table = Table.grid(padding=(0, 2))
    for device in devices:
        current = "" if device.current_a is None else f"{device.current_a:.3f} A"
        temperature = "" if device.temp_c is None else f"{device.temp_c:.1f} °C"
        table.add_row(Text(device.device, style="bold"), device.activity or "idle", current, temperature)
    return table


# ---- following a run ------------------------------------------------------------------------------------------------


def follow(updates: Iterable[Run], console: Console) -> Run:
    """Show a run until it has ended and give its last state: live on a terminal, in plain lines elsewhere."""
    return _follow_live(updates, console) if console.is_terminal else _follow_plain(updates, console.file)


class _Clocked:
    """A panel that is drawn anew with the time of the drawing, so that clocks run between two messages."""

    def __init__(self, run: Run, spec: RunSpec) -> None:
        self.run, self.spec, self.seen_s = run, spec, time.time()

    def __rich__(self) -> Panel:
        now_s = time.time()
        eta_s = None if self.run.eta_s is None else max(self.run.eta_s - (now_s - self.seen_s), 0.0)
        return panel(replace(self.run, eta_s=eta_s), self.spec, now_s)


def _follow_live(updates: Iterable[Run], console: Console) -> Run:
    run: Run | None = None
    with Live(console=console, refresh_per_second=REFRESH_PER_S, transient=True) as live:
        for run in updates:
            live.update(_Clocked(run, _spec(run)))
    return _last(run)


def _follow_plain(updates: Iterable[Run], stream: IO[str]) -> Run:
    run: Run | None = None
    state, said_s = "", -math.inf
    for run in updates:
        if run.state != state or time.monotonic() - said_s >= PLAIN_EVERY_S:
            state, said_s = run.state, time.monotonic()
            print(line(run, _spec(run)), file=stream, flush=True)
    return _last(run)


def _spec(run: Run) -> RunSpec:
    if run.spec is None:
        raise ValueError(f"run {run.run_id} came without its specification")
    return run.spec


def _last(run: Run | None) -> Run:
    if run is None:
        raise ValueError("watching a run gave no message")
    return run
