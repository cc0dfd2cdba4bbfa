"""The decisions of a run and of the fleet: every order of input, no clock, no wire."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.schedule import (
    MAX_RETRIES,
    Board,
    Demand,
    Enter,
    Look,
    Move,
    Tally,
    TaskView,
    Wait,
    Work,
    assign,
    choose_boards,
    energy_segments,
    eta_s,
    nearest,
    next_move,
    retry_pause_s,
    task_seed,
)
from protos.types import EMULATIONS, RUN_STATES, MeasurementPlan, RunSpec
from tests.lut_store.samples import items_of, space_of

SPACE = space_of(((1, 16, 1),))
PLAN = MeasurementPlan(rounds_per_task=5, target_rel_halfwidth=0.01, latency_budget_s=100.0)
SPEC = RunSpec("rpi3b", SPACE, items_of(SPACE), (), PLAN)
BOARD = Board("pi-01", "rpi3b", "none", free=True)
METERED = replace(BOARD, has_meter=True)
TIGHT = Tally(rounds=10, latency_device_s=40, looked_rounds=10, rel_halfwidths=(0.004, 0.009))
WIDE = Tally(rounds=10, latency_device_s=40, looked_rounds=10, rel_halfwidths=(0.004, 0.02))


def with_energy(budget_s: float = 500.0, segment_s: float = 200.0) -> RunSpec:
    return replace(SPEC, plan=replace(PLAN, energy_budget_s=budget_s, segment_s=segment_s))


def task(number: int = 0, kind: str = "latency", state: str = "done", attempts: int = 0) -> TaskView:
    return TaskView(f"task{number}", kind, state, "pi-01", attempts, "the worker died" if attempts else "")


# ---- one run ----


def test_a_queued_run_wants_work_and_says_what_it_waits_for() -> None:
    assert isinstance(next_move(SPEC, "queued", (), Tally(), (BOARD,)), Work)
    move = next_move(SPEC, "queued", (), Tally(), ())
    assert isinstance(move, Work)
    assert move.waits_for == "waits for rpi3b: none is connected"
    busy = (replace(BOARD, free=False), replace(BOARD, name="pi-02", broken="no meter"))
    move = next_move(SPEC, "queued", (), Tally(), busy)
    assert isinstance(move, Work)
    assert move.waits_for == "waits for rpi3b: 1 busy, broken is pi-02 (no meter)"


def test_a_queued_run_that_has_begun_is_in_its_latency_phase() -> None:
    assert next_move(SPEC, "queued", (task(state="leased"),), Tally(), (BOARD,)) == Enter("latency")


def test_the_evidence_is_looked_at_after_a_task_and_again_when_it_has_grown() -> None:
    fresh = Tally(rounds=5, latency_device_s=20)
    assert next_move(SPEC, "latency", (task(state="leased"),), fresh, (BOARD,)) != Look()
    assert next_move(SPEC, "latency", (task(),), fresh, (BOARD,)) == Look()
    looked = replace(WIDE, rounds=12)
    assert isinstance(next_move(SPEC, "latency", (task(),), looked, (BOARD,)), Work)
    assert next_move(SPEC, "latency", (task(),), replace(WIDE, rounds=13), (BOARD,)) == Look()


def test_latency_ends_when_every_interval_is_tight_enough() -> None:
    assert isinstance(next_move(SPEC, "latency", (task(),), WIDE, (BOARD,)), Work)
    assert next_move(SPEC, "latency", (task(),), TIGHT, (BOARD,)) == Enter("building")
    unknown = replace(TIGHT, rel_halfwidths=(0.004, None))
    assert isinstance(next_move(SPEC, "latency", (task(),), unknown, (BOARD,)), Work)


def test_flagged_rounds_are_repeated_while_there_is_time() -> None:
    disturbed = replace(TIGHT, rounds_flagged=11)
    assert isinstance(next_move(SPEC, "latency", (task(),), disturbed, (BOARD,)), Work)
    spent = replace(disturbed, latency_device_s=100.0)
    assert next_move(SPEC, "latency", (task(),), spent, (BOARD,)) == Enter("building")


def test_latency_ends_when_its_device_time_is_spent_and_the_last_rounds_have_been_looked_at() -> None:
    spent = replace(WIDE, rounds=11, latency_device_s=100.0)
    assert next_move(SPEC, "latency", (task(),), spent, (BOARD,)) == Look()
    assert next_move(SPEC, "latency", (task(),), replace(spent, looked_rounds=11), (BOARD,)) == Enter("building")
    # While a task is under way, every round would otherwise be looked at.
    assert isinstance(next_move(SPEC, "latency", (task(), task(1, state="leased")), spent, (BOARD,)), Wait)


def test_no_further_task_begins_when_less_than_half_of_one_fits_the_budget() -> None:
    tasks = [task(0), task(1)]
    assert isinstance(next_move(SPEC, "latency", tasks, replace(WIDE, latency_device_s=70.0), (BOARD,)), Work)
    assert next_move(SPEC, "latency", tasks, replace(WIDE, latency_device_s=90.0), (BOARD,)) == Enter("building")


def test_tasks_under_way_count_against_the_budget() -> None:
    tasks = [task(0), task(1), task(2, state="leased"), task(3, state="leased")]
    tally = replace(WIDE, latency_device_s=80.0)  # 20 s a task so far, two are under way, 20 s are left
    assert isinstance(next_move(SPEC, "latency", tasks, tally, (BOARD,)), Wait)


def test_building_waits_for_latency_tasks_under_way() -> None:
    assert isinstance(next_move(SPEC, "latency", (task(), task(1, state="leased")), TIGHT, (BOARD,)), Wait)


def test_energy_follows_latency_only_where_there_is_a_meter() -> None:
    spec = with_energy()
    assert next_move(spec, "latency", (task(),), TIGHT, (METERED,)) == Enter("energy")
    assert next_move(spec, "latency", (task(),), TIGHT, (BOARD,)) == Enter("building")
    assert isinstance(next_move(spec, "latency", (task(),), TIGHT, ()), Wait)
    assert next_move(replace(spec, meter="um25c:/dev/rfcomm0"), "latency", (task(),), TIGHT, (BOARD,)) == Enter(
        "energy"
    )
    assert next_move(replace(spec, meter="none"), "latency", (task(),), TIGHT, (METERED,)) == Enter("building")


@pytest.mark.parametrize(
    ("budget_s", "segment_s", "segments"), [(500, 200, 3), (600, 200, 3), (0, 200, 0), (10, 300, 1)]
)
def test_energy_is_cut_into_whole_segments(budget_s: float, segment_s: float, segments: int) -> None:
    assert energy_segments(with_energy(budget_s, segment_s)) == segments


def test_energy_ends_when_every_segment_is_done_and_nothing_is_under_way() -> None:
    spec, done = with_energy(), [task(n, "energy") for n in range(2)]
    assert next_move(spec, "energy", [task(9), *done], TIGHT, (METERED,)) == Work("energy", 1)
    busy = next_move(spec, "energy", [task(9), *done], TIGHT, (BOARD, replace(METERED, free=False)))
    assert busy == Work("energy", 1, "waits for rpi3b with a meter: 1 busy")
    under_way = [task(9), *done, task(2, "energy", "leased")]
    assert isinstance(next_move(spec, "energy", under_way, TIGHT, (METERED,)), Wait)
    assert next_move(spec, "energy", [*done, task(2, "energy")], TIGHT, (METERED,)) == Enter("building")


@pytest.mark.parametrize("state", ["queued", "latency"])
def test_a_task_that_keeps_failing_fails_the_run_with_its_reason(state: str) -> None:
    again = task(state="pending", attempts=MAX_RETRIES)
    assert isinstance(next_move(SPEC, state, (again,), Tally(), (BOARD,)), Work)
    move = next_move(SPEC, state, (task(state="pending", attempts=MAX_RETRIES + 1),), Tally(), (BOARD,))
    assert move == Enter("failed", "a latency task failed 4 times: the worker died")


def test_a_failing_latency_task_that_is_needed_no_more_fails_nothing() -> None:
    tasks = [task(0, state="pending", attempts=9), task(1, "energy", "leased")]
    assert not isinstance(next_move(with_energy(), "energy", tasks, TIGHT, (METERED,)), Enter)


def test_a_validation_run_measures_until_its_time_is_spent() -> None:
    spec = replace(SPEC, items=(), purpose="validate", lut_digest="0" * 64)
    assert isinstance(next_move(spec, "latency", (task(),), Tally(rounds=5, latency_device_s=40), (BOARD,)), Work)
    assert next_move(spec, "latency", (task(),), Tally(rounds=9, latency_device_s=100), (BOARD,)) == Enter("building")


TASKS = st.lists(
    st.builds(
        TaskView,
        st.uuids().map(str),
        st.sampled_from(("latency", "energy")),
        st.sampled_from(("pending", "leased", "done")),
        st.sampled_from(("pi-01", "pi-02")),
        st.integers(0, 6),
        st.sampled_from(("hot", "the worker died")),
    ),
    max_size=6,
    unique_by=lambda view: view.task_id,
)
BOARDS = st.lists(
    st.builds(
        Board,
        st.sampled_from([f"pi-{n}" for n in range(6)]),
        st.sampled_from(("rpi3b", "rpi4")),
        st.sampled_from(EMULATIONS),
        st.booleans(),
        st.sampled_from(("", "no meter")),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda board: board.name,
)
WIDTHS = st.lists(st.none() | st.floats(0, 2), max_size=3).map(tuple)
TALLIES = st.builds(
    Tally, st.integers(0, 40), st.integers(0, 9), st.floats(0, 200), st.floats(0, 900), st.integers(0, 40), WIDTHS
)
SPECS = st.sampled_from((SPEC, with_energy(), replace(with_energy(), meter="emulated"), replace(SPEC, items=())))


@given(SPECS, st.sampled_from(RUN_STATES), TASKS, TALLIES, BOARDS, st.randoms())
def test_a_move_does_not_depend_on_the_order_of_anything(spec, state, tasks, tally, boards, random) -> None:  # type: ignore[no-untyped-def]
    chosen, note = choose_boards("rpi3b", boards, None)
    move = next_move(spec, state, tasks, tally, chosen)
    random.shuffle(tasks)
    random.shuffle(boards)
    again, same_note = choose_boards("rpi3b", boards, None)
    assert (again, same_note) == (chosen, note)
    assert next_move(spec, state, tasks, tally, again) == move
    if isinstance(move, Enter):
        assert RUN_STATES.index(move.state) > RUN_STATES.index(state)
    if isinstance(move, Work):
        assert move.boards >= 1


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.lists(st.sampled_from(("done", "failed")), min_size=1, max_size=12),
    st.floats(0.5, 0.99),
    st.booleans(),
    st.integers(1, 40),
)
def test_every_run_ends_within_its_budget_whatever_happens(
    boards: int, fates: list[str], shrink: float, energy: bool, task_s: int
) -> None:
    """Play a run: each lease ends as `fates` say in turn; a look finds an interval that shrinks with every round."""
    spec = with_energy() if energy else SPEC
    fleet = tuple(replace(METERED, name=f"pi-{n}") for n in range(boards))
    tasks: dict[str, TaskView] = {}
    tally, state, fate = Tally(), "queued", itertools.cycle(fates)
    for _ in range(4000):  # some tasks are begun four times, and each takes two steps
        move: Move = next_move(spec, state, list(tasks.values()), tally, fleet)
        if isinstance(move, Enter):
            state = move.state
            if state in ("building", "failed"):
                break
        elif isinstance(move, Look):
            width = 0.5 * shrink**tally.rounds
            tally = replace(tally, looked_rounds=tally.rounds, rel_halfwidths=(width,))
        elif isinstance(move, Work) and sum(t.state == "leased" for t in tasks.values()) < boards:
            pending = [t for t in tasks.values() if t.kind == move.kind and t.state == "pending"]
            chosen = pending[0] if pending else TaskView(f"t{len(tasks):03}", move.kind, "pending")
            tasks[chosen.task_id] = replace(chosen, state="leased")
        else:
            leased = min((t for t in tasks.values() if t.state == "leased"), key=lambda t: t.task_id)
            if next(fate) == "done":
                tasks[leased.task_id] = replace(leased, state="done")
                if leased.kind == "latency":
                    spent_s = tally.latency_device_s + task_s
                    tally = replace(tally, rounds=tally.rounds + 5, latency_device_s=spent_s)
            else:
                tasks[leased.task_id] = replace(leased, state="pending", attempts=leased.attempts + 1)
    assert state in ("building", "failed")
    if state == "building":
        assert tally.rounds > 0
        assert sum(t.kind == "energy" and t.state == "done" for t in tasks.values()) == energy_segments(spec)
        # Each board may be in the middle of one task when the budget is reached.
        assert tally.latency_device_s <= PLAN.latency_budget_s + task_s * (boards + 0.5)


# ---- boards and runs ----


def test_real_boards_win_over_emulated_ones_and_the_run_says_so() -> None:
    boards = [replace(BOARD, name="a", emulation="device"), replace(BOARD, name="b"), replace(BOARD, name="c")]
    chosen, note = choose_boards("rpi3b", boards, None)
    assert [board.name for board in chosen] == ["b", "c"]
    assert note == "the run uses real boards only; left out: a"
    only, none = choose_boards("rpi3b", boards[:1], None)
    assert (len(only), none) == (1, "")


def test_a_run_keeps_the_emulation_that_it_began_with() -> None:
    boards = [replace(BOARD, name="a", emulation="device"), replace(BOARD, name="b")]
    chosen, note = choose_boards("rpi3b", boards, "device")
    assert [board.name for board in chosen] == ["a"]
    assert "left out: b" in note


def test_a_run_on_a_name_uses_that_board_alone() -> None:
    boards = [BOARD, replace(BOARD, name="pi-02"), replace(BOARD, name="rpi3b", emulation="device")]
    assert [board.name for board in choose_boards("pi-02", boards, None)[0]] == ["pi-02"]
    assert [board.name for board in choose_boards("rpi3b", boards, None)[0]] == ["rpi3b"]


def demand(run_id: str, boards: list[Board], *, wants: int = 9, held: int = 0, age: float = 0.0) -> Demand:
    return Demand(run_id, age, Work("latency", wants), tuple(boards), held)


def test_boards_go_to_the_run_that_has_least_and_then_to_the_oldest() -> None:
    boards = [replace(BOARD, name=f"pi-{n}") for n in range(4)]
    pairs = assign([demand("young", boards, age=2.0), demand("old", boards, age=1.0), demand("rich", boards, held=9)])
    assert Counter(run for run, _ in pairs) == {"old": 2, "young": 2}
    assert assign([demand("young", boards[:1], age=2.0), demand("old", boards[:1], age=1.0)]) == [("old", "pi-0")]


def test_a_run_on_one_board_is_not_starved_by_one_on_its_type() -> None:
    boards = [replace(BOARD, name="a"), replace(BOARD, name="b")]
    pairs = assign([demand("type", boards, age=0.0), demand("named", boards[:1], age=5.0)])
    assert set(pairs) == {("type", "b"), ("named", "a")}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), BOARDS), max_size=4), st.randoms())
def test_assignments_are_fair_whatever_the_order(runs, random) -> None:  # type: ignore[no-untyped-def]
    demands = [demand(f"run{n}", boards, wants=wants, held=held, age=n) for n, (wants, held, boards) in enumerate(runs)]
    pairs = assign(demands)
    by_run = {d.run_id: d for d in demands}
    names = [board for _, board in pairs]
    assert len(names) == len(set(names))
    given_to = Counter(run for run, _ in pairs)
    for run_id, board in pairs:
        assert any(b.name == board and b.free and not b.broken for b in by_run[run_id].boards)
    for d in demands:
        assert given_to[d.run_id] <= d.work.boards
        usable = {b.name for b in d.boards if b.free and not b.broken}
        assert given_to[d.run_id] == d.work.boards or usable <= set(names)  # no board idles that somebody wants
    shuffled = [replace(d, boards=tuple(random.sample(d.boards, len(d.boards)))) for d in demands]
    random.shuffle(shuffled)
    assert assign(shuffled) == pairs


# ---- small ones ----


def test_seeds_differ_between_tasks_and_stay_the_same() -> None:
    seeds = [task_seed(SPEC, kind, n) for kind in ("latency", "energy") for n in range(50)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 1 << 53 for seed in seeds)
    assert task_seed(SPEC, "latency", 3) == seeds[3]
    assert task_seed(replace(SPEC, seed=1), "latency", 3) != seeds[3]


def test_the_rest_after_a_failure_doubles() -> None:
    assert [retry_pause_s(n, 2.0) for n in (0, 1, 2, 3, 9)] == [2.0, 2.0, 4.0, 8.0, 8.0]


def test_the_time_left_follows_from_the_widest_interval() -> None:
    half_way = Tally(rounds=10, latency_device_s=10, looked_rounds=10, rel_halfwidths=(0.02,))
    assert eta_s(SPEC, "latency", half_way, 1.0) == pytest.approx(30.0)  # four times the rounds halve it
    assert eta_s(SPEC, "latency", half_way, 10.0) == pytest.approx(3.0)
    assert eta_s(SPEC, "latency", replace(half_way, rel_halfwidths=(0.5,)), 1.0) == pytest.approx(90.0)  # the budget
    assert eta_s(with_energy(), "energy", replace(half_way, energy_device_s=100), 2.0) == pytest.approx(200.0)
    assert eta_s(SPEC, "building", half_way, 1.0) == 0.0
    assert eta_s(SPEC, "done", half_way, 1.0) is None
    assert eta_s(SPEC, "latency", half_way, 0.0) is None


@given(SPECS, st.sampled_from(RUN_STATES), TALLIES, st.floats(0, 100))
def test_the_time_left_is_never_negative_or_unknown_to_floats(
    spec: RunSpec, state: str, tally: Tally, rate: float
) -> None:
    left = eta_s(spec, state, tally, rate)
    assert left is None or (left >= 0 and not math.isnan(left))


def test_an_unknown_device_is_answered_with_what_there_is() -> None:
    known = {"pi-01": "rpi3b", "pi-02": "rpi4"}
    assert nearest("rpi3", known) == "but these are: pi-01 (rpi3b), pi-02 (rpi4); did you mean 'rpi3b'?"
    assert "did you mean" not in nearest("zebra", known)
    assert "nor any other" in nearest("rpi3b", {})
