from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from coordinator.cli import progress
from coordinator.plan import make_run
from protos.types import DeviceActivity, OperatorProgress, Run
from tests.lut_store.samples import space_of

SPEC = make_run(space_of(), "rpi3b", preset="quick")
TARGET = SPEC.plan.target_rel_halfwidth
RUN = Run(
    "run-1",
    "latency",
    spec=SPEC,
    created_wall_s=1000.0,
    latency_device_s=12.0,
    rounds=5,
    rounds_flagged=1,
    rel_halfwidth=2 * TARGET,
    eta_s=30.0,
    operators=(
        OperatorProgress(0, 9, 0.4 * TARGET),
        OperatorProgress(1, 9, TARGET),
        OperatorProgress(2, 9, 2 * TARGET),
        OperatorProgress(3, 9, 100 * TARGET),
        OperatorProgress(4, 9, None),
    ),
    devices=(DeviceActivity("pi-01", "latency round 6", 0.4123, 52.04),),
)


def rendered(run: Run, now_s: float = 1010.0) -> str:
    out = io.StringIO()
    Console(file=out, width=110, highlight=False).print(progress.panel(run, SPEC, now_s))
    return out.getvalue()


def test_half_widths_are_counted_against_the_target() -> None:
    state = progress.precision(RUN.operators, TARGET)
    assert state.counts == (1, 1, 1, 0, 1)
    assert (state.unknown, state.within) == (1, 2)
    assert [operator.item for operator in state.widest] == [3, 2, 1, 0]


def test_the_panel_shows_phase_precision_device_and_estimate() -> None:
    shown = rendered(RUN)
    for part in (
        "run run-1 · rpi3b · sample · quick · cold, 1 thread",
        "measuring latency",
        "0:10 gone",
        "ETA 0:30",
        "5 clean rounds, 1 flagged",
        "2 of 5 within ±3.00 %",
        "pi-01  latency round 6  0.412 A  52.0 °C",
        "no interval yet",
    ):
        assert part in shown


def test_a_reason_is_shown_and_an_empty_run_is_no_error() -> None:
    shown = rendered(Run("run-1", "queued", "waits for rpi3b: none is connected", spec=SPEC))
    assert "waits for rpi3b" in shown


def test_the_line_for_logs_says_the_same() -> None:
    said = progress.line(RUN, SPEC)
    assert said == (
        "measuring latency; 5 rounds (1 flagged); widest ±6.00 % (target ±3.00 %); "
        "pi-01: latency round 6 0.412 A 52.0 °C; ETA 0:30"
    )
    assert progress.line(replace(RUN, state="done", eta_s=3.0), SPEC).startswith("done; ")


def test_operators_are_named_by_their_cells() -> None:
    names = [progress.operator_name(SPEC, item) for item in range(len(SPEC.items))]
    assert names[0].startswith("stem: conv 3→16")
    assert names[-1].startswith("head: pool_linear")
    assert any(name.startswith("layers 2–3 k3_e1: mbconv") for name in names)
    assert any(name.startswith("layer 0 k3_e1: mbconv") for name in names)
    assert progress.operator_name(SPEC, 10_000) == "operator 10000"


def test_the_share_done_follows_the_estimate() -> None:
    assert progress.share_done(RUN, 1010.0) == pytest.approx(0.25)
    assert progress.share_done(replace(RUN, eta_s=None), 1010.0) is None
    assert progress.share_done(replace(RUN, state="failed"), 1010.0) == 1.0


def test_without_a_terminal_a_line_is_printed_at_every_change_of_phase() -> None:
    out = io.StringIO()
    updates = [RUN, replace(RUN, rounds=6), replace(RUN, state="building"), replace(RUN, state="done")]
    last = progress.follow(iter(updates), Console(file=out, width=200))
    assert last.state == "done"
    assert [line.split(";")[0] for line in out.getvalue().splitlines()] == [
        "measuring latency",
        "building the LUT",
        "done",
    ]


def test_on_a_terminal_the_display_is_drawn_and_cleared() -> None:
    out = io.StringIO()
    console = Console(file=out, width=110, force_terminal=True)
    last = progress.follow(iter([RUN, replace(RUN, state="done")]), console)
    assert last.state == "done"
    assert "run run-1 · rpi3b" in out.getvalue()
