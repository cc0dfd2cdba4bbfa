"""Tasks on an emulated board in virtual time: what is stored, what is repeated, and what ends a task."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from agent.emulator.clocks import VirtualClock
from agent.emulator.device import EmulatedDevice
from agent.emulator.device_disturbance import QUIET
from agent.emulator.meter import InMemoryMeter, MeterModel, MeterSettings
from agent.emulator.runner import EmulatedRunner
from agent.metering import NONE, Meters
from agent.runner import RunnerError
from agent.task import CHUNK_S, COOL_LIMIT_S, MAX_FAILURES, Outcome, perform
from protos.types import HostState, LatencyRound, Lease, Measurement, PowerWindow
from tests.agent.spaces import lease_of, tiny_run, wait

METER = "um25c:memory"


@dataclass
class Desk:
    """The daemon's part: keeps what is stored, and stops the task after so many measurements."""

    halt_after: int = 1 << 30
    stored: list[Measurement] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    currents_a: list[float] = field(default_factory=list)
    host: HostState | None = None

    async def store(self, measurement: Measurement) -> None:
        self.stored.append(measurement)

    def show(self, activity: str, host: HostState | None = None, current_a: float | None = None) -> None:
        self.shown.append(activity)
        self.host = host or self.host
        if current_a is not None:
            self.currents_a.append(current_a)

    def halted(self) -> str:
        return "the run was cancelled" if len(self.stored) >= self.halt_after else ""


class Board(EmulatedRunner):
    """An emulated Pi 3B in virtual time whose worker dies, and whose chip is warm, when a test wants it."""

    def __init__(self) -> None:
        super().__init__(EmulatedDevice("rpi3b", 1, QUIET), VirtualClock())
        self.deaths: set[int] = set()  # the requests, counted from 1, at which the worker dies
        self.temps_c: list[float] = []  # what the next states say
        self.requests = 0

    def _request(self) -> None:
        self.requests += 1
        if self.requests in self.deaths:
            self._prepared = None
            raise RunnerError(f"the worker died in request {self.requests}")

    async def state(self) -> HostState:
        state = await super().state()
        return replace(state, temp_c=self.temps_c.pop(0)) if self.temps_c else state

    async def latency_round(self, lease: Lease, round_index: int) -> LatencyRound:
        self._request()
        return await super().latency_round(lease, round_index)

    async def load(self, subject: str, index: int, duration_s: float) -> tuple[PowerWindow, ...]:
        self._request()
        return await super().load(subject, index, duration_s)


def meters_of(board: Board, own: str = METER) -> Meters:
    model = MeterModel(board.device.supply, MeterSettings(seed=1))
    return Meters(own, board.clock, opener=lambda _, clock: InMemoryMeter(model, clock))


def done(lease: Lease, board: Board, desk: Desk, meter: str = METER) -> Outcome:
    return wait(perform(lease, board, meters_of(board, meter), desk))


def rounds_of(desk: Desk) -> list[int]:
    return [item.latency.round_index for item in desk.stored if item.latency is not None]


def energy_run(**plan: float) -> Lease:
    times = {"energy_budget_s": 60.0, "segment_s": 60.0, "window_s": 1.0, "idle_s": 1.0, "network_window_s": 2.0}
    run = tiny_run(**(times | plan))
    return lease_of(replace(run, meter=""), "energy")


def test_a_latency_task_stores_its_rounds_one_by_one() -> None:
    desk = Desk()
    lease = lease_of(tiny_run(rounds_per_task=3), task_id="t", fence=5, first_round=6)
    assert done(lease, Board(), desk) == Outcome()
    assert rounds_of(desk) == [6, 7, 8]
    assert [(item.task_id, item.fence, item.sequence) for item in desk.stored] == [("t", 5, n) for n in range(3)]
    assert len({item.id for item in desk.stored}) == 3
    assert all(item.before.monotonic_ns <= item.after.monotonic_ns for item in desk.stored)
    assert "latency round 7" in desk.shown


def test_a_flagged_round_is_kept_and_repeated_up_to_a_limit() -> None:
    desk, board = Desk(), Board()
    board.temps_c = [50.0, 85.0, 50.0, 50.0]  # before and after each round
    assert done(lease_of(tiny_run(rounds_per_task=4)), board, desk) == Outcome()
    assert rounds_of(desk) == [0, 0, 1, 2, 3]
    assert [item.flags for item in desk.stored] == [("hot",), (), (), (), ()]
    first, second = desk.stored[0].latency, desk.stored[1].latency
    assert first is not None
    assert second is not None
    assert first.paths is not None
    assert second.paths is not None
    assert first.paths.choices == second.paths.choices  # the same round again

    desk, board = Desk(), Board()
    board.temps_c = [50.0, 85.0] * 20
    assert done(lease_of(tiny_run(rounds_per_task=4)), board, desk) == Outcome()
    assert rounds_of(desk) == [0, 0, 0, 1, 2, 3]  # half of the rounds may be repeats


def test_a_warm_board_is_waited_for_but_not_for_ever() -> None:
    desk, board = Desk(), Board()
    board.temps_c = [78.0, 76.0, 74.0, 60.0]
    started_ns = board.clock.now_ns()
    done(lease_of(tiny_run(rounds_per_task=1)), board, desk)
    assert desk.shown.count("waiting for 75 °C") == 2
    assert board.clock.now_ns() - started_ns > 10e9
    assert desk.stored[0].before.temp_c == 74.0
    desk, board = Desk(), Board()
    board.temps_c = [78.0] * 100
    done(lease_of(tiny_run(rounds_per_task=2)), board, desk)
    assert rounds_of(desk) == [0, 1]
    assert board.clock.now_ns() > COOL_LIMIT_S * 1e9


def test_a_worker_that_dies_costs_a_repeat() -> None:
    desk, board = Desk(), Board()
    board.deaths = {2}
    assert done(lease_of(tiny_run(rounds_per_task=3)), board, desk) == Outcome()
    assert rounds_of(desk) == [0, 1, 2]
    assert board.requests == 4


@pytest.mark.parametrize("kind", ["latency", "energy"])
def test_a_worker_that_dies_too_often_breaks_the_board(kind: str) -> None:
    desk, board = Desk(), Board()
    board.deaths = set(range(2, 100))
    lease = lease_of(tiny_run(rounds_per_task=3)) if kind == "latency" else energy_run()
    outcome = done(lease, board, desk)
    assert outcome.broken
    assert f"failed {MAX_FAILURES} times, last: the worker died in request {MAX_FAILURES + 1}" in outcome.reason
    assert len(desk.stored) >= 1  # what there was is kept


def test_a_halt_stops_before_the_next_round() -> None:
    desk = Desk(halt_after=2)
    outcome = done(lease_of(tiny_run(rounds_per_task=10)), Board(), desk)
    assert outcome == Outcome("the run was cancelled")
    assert rounds_of(desk) == [0, 1]


def test_what_a_board_cannot_do_is_not_tried_again() -> None:
    board = Board()
    outcome = done(lease_of(tiny_run(threads=8)), board, Desk())
    assert "4 cores" in outcome.reason
    assert not outcome.broken
    assert done(lease_of(tiny_run(), "weight"), board, Desk()).reason.startswith("this agent does not know")
    no_meter = done(energy_run(), board, Desk(), NONE)
    assert "this board has no meter" in no_meter.reason
    assert not no_meter.broken


def test_an_energy_task_is_one_trace_in_chunks() -> None:
    desk, board = Desk(), Board()
    assert done(energy_run(), board, desk) == Outcome()
    traces = [item.power for item in desk.stored if item.power is not None]
    assert len(traces) == len(desk.stored) >= 3
    assert len({trace.segment_id for trace in traces}) == 1
    assert [trace.chunk for trace in traces] == list(range(len(traces)))
    windows = [window for trace in traces for window in trace.windows]
    assert {window.subject for window in windows} == {"idle", "item", "network", "gap"}
    assert all(a.ended_ns <= b.started_ns for a, b in pairwise(windows))
    assert windows[0].subject == windows[-1].subject == "idle"
    for trace in traces[:-1]:
        assert trace.windows[-1].ended_ns - trace.windows[0].started_ns <= (CHUNK_S + 5) * 1e9
    times = [t_ns for trace in traces for t_ns in trace.samples.t_ns]
    assert times == sorted(times)
    assert windows[0].started_ns <= times[0]
    assert times[-1] <= windows[-1].ended_ns
    assert len(times) > 100
    assert all(trace.meter.emulated for trace in traces)
    assert max(desk.currents_a) > 1.2 * min(desk.currents_a)  # the display shows the load


def test_a_crash_ends_a_trace_and_begins_another() -> None:
    desk, board = Desk(), Board()
    board.deaths = {8}
    assert done(energy_run(), board, desk) == Outcome()
    traces = [item.power for item in desk.stored if item.power is not None]
    segments = list(dict.fromkeys(trace.segment_id for trace in traces))
    assert len(segments) == 2
    for segment in segments:
        own = [trace for trace in traces if trace.segment_id == segment]
        assert [trace.chunk for trace in own] == list(range(len(own)))
        assert own[0].windows[0].subject == "idle"  # each has its baseline
    loads = [w for trace in traces for w in trace.windows if w.subject in ("item", "network")]
    undisturbed = Desk()
    done(energy_run(), Board(), undisturbed)
    expected = [w for m in undisturbed.stored if m.power for w in m.power.windows if w.subject in ("item", "network")]
    assert [(w.subject, w.index) for w in loads] == [(w.subject, w.index) for w in expected]  # none is left out


def test_a_halted_trace_keeps_what_was_measured() -> None:
    desk = Desk(halt_after=1)
    outcome = done(energy_run(), Board(), desk)
    assert outcome == Outcome("the run was cancelled")
    windows = [window for item in desk.stored if item.power for window in item.power.windows]
    assert len(windows) > 3


def test_the_next_segment_goes_on_in_the_permutation() -> None:
    orders = []
    for segment in (0, 1):
        desk = Desk()
        lease = replace(energy_run(energy_budget_s=240.0), first_round=segment)
        done(lease, Board(), desk)
        windows = [w for m in desk.stored if m.power for w in m.power.windows if w.subject == "item"]
        orders.append([window.index for window in windows])
    assert orders[0] != orders[1]


def test_tasks_can_be_cancelled_with_everything() -> None:
    async def work() -> None:
        board = Board()
        task = asyncio.create_task(perform(lease_of(tiny_run()), board, meters_of(board), Desk()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    wait(work())
