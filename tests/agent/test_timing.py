"""Rounds over the tiny space: what is in them, never how long it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.rounds import HOT_TIMED_CALLS, OTHER_TIMED_CALLS, compose
from agent.timing import Bench
from protos.errors import BadInputError
from protos.types import LatencyRound, RunSpec
from tests.agent.spaces import tiny_run

SWEEP = 1 << 20
SLOTS = 6  # stem, three layers, two of the head


def bench(run: RunSpec, alive: Callable[[], None] = lambda: None) -> Bench:
    return Bench(run, SWEEP, alive)


def one_round(index: int = 0, seed: int = 7, networks: int = 4, **plan: Any) -> LatencyRound:
    return bench(tiny_run(networks, **plan)).latency_round(seed, index)


def test_a_cold_round_of_paths() -> None:
    result = one_round(networks=4)
    assert result.sweep_bytes == SWEEP
    assert result.threads == 1
    assert result.operators is None
    assert result.other_context is None
    assert result.paths is not None
    assert result.networks is not None
    assert result.paths.calls == result.networks.calls == 1
    assert len(result.paths.choices) == 5 * 3
    assert len(result.paths.block_ns) == 5 * SLOTS
    assert sorted(result.networks.network) == [0, 1, 2, 3]
    assert sorted(result.order) == list(range(9))
    assert len(result.probe_ns) == 10


def test_blocks_add_up_to_their_path_and_skips_cost_nothing() -> None:
    result = one_round(paths_per_round=30)
    assert result.paths is not None
    skips = 0
    for path, total_ns in enumerate(result.paths.total_ns):
        row = result.paths.block_ns[path * SLOTS : (path + 1) * SLOTS]
        choices = result.paths.choices[path * 3 : (path + 1) * 3]
        assert sum(row) == total_ns  # the clock is read once between two blocks
        assert [slot == 0 for slot in row] == [False, *(op == 2 for op in choices), False, False]
        skips += choices.count(2)
    assert skips > 0


def test_the_same_seed_and_index_give_the_same_round() -> None:
    worker = bench(tiny_run())
    rounds = [worker.latency_round(seed, index) for seed, index in ((7, 0), (7, 0), (7, 1), (8, 0))]
    drawn = [(r.paths.choices if r.paths else (), r.order) for r in rounds]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_rows_are_in_the_order_in_which_they_ran() -> None:
    result = one_round(paths_per_round=8, isolated_every=1)
    assert result.networks is not None
    assert result.operators is not None
    kinds = [range(8), range(8, 12), range(12, 12 + len(result.operators.item))]
    for kind in kinds:
        ran = [number for number in result.order if number in kind]
        assert ran == sorted(ran)
    assert list(result.order) != sorted(result.order)  # shuffled together


def test_steady_calls_more_often_and_sweeps_nothing() -> None:
    result = one_round(context="steady", warmup_calls=2, timed_calls=3)
    assert result.sweep_bytes == 0
    assert result.paths is not None
    assert result.networks is not None
    assert (result.paths.calls, result.networks.calls) == (3, 3)
    assert len(result.paths.total_ns) == 5 * 3
    assert len(result.paths.block_ns) == 5 * 3 * SLOTS
    assert len(result.networks.total_ns) == 4 * 3


@pytest.mark.parametrize(("context", "network_calls"), [("cold", 1), ("steady", 3)])
def test_isolated_operators_are_hot_loops_beside_networks_in_the_plans_context(
    context: str, network_calls: int
) -> None:
    run = tiny_run(method="isolated", context=context, warmup_calls=1, timed_calls=3)
    result = bench(run).latency_round(7, 0)
    assert result.paths is None
    assert result.operators is not None
    assert result.networks is not None
    assert sorted(result.operators.item) == list(range(len(run.items)))
    assert (result.operators.calls, result.networks.calls) == (3, network_calls)


def test_hot_loops_and_the_other_context_come_every_so_often() -> None:
    worker = bench(tiny_run(networks=6, isolated_every=2, other_context_every=3))
    rounds = [worker.latency_round(7, index) for index in range(6)]
    assert [r.operators is not None for r in rounds] == [True, False] * 3
    assert [r.other_context is not None for r in rounds] == [True, False, False] * 2
    first = rounds[0]
    assert first.operators is not None
    assert first.other_context is not None
    assert (first.operators.calls, first.other_context.calls) == (HOT_TIMED_CALLS, OTHER_TIMED_CALLS)
    assert sorted(first.other_context.network) == [1, 4]  # those for validation
    assert len(first.order) == 5 + 6 + len(first.operators.item)  # the other context is not counted there


def test_the_other_context_of_steady_is_cold() -> None:
    result = one_round(context="steady", timed_calls=2, other_context_every=1)
    assert result.other_context is not None
    assert result.other_context.calls == 1
    assert result.sweep_bytes == SWEEP


def test_loads_count_their_inferences() -> None:
    worker = bench(tiny_run())
    for subject in ("item", "network"):
        gap, window = worker.load(subject, 2, 0.02)
        assert (gap.subject, window.subject, window.index) == ("gap", subject, 2)
        assert gap.started_ns <= gap.ended_ns == window.started_ns
        assert window.ended_ns - window.started_ns >= 20_000_000
        assert window.count >= 1


def test_a_load_that_does_not_exist_is_named() -> None:
    with pytest.raises(BadInputError, match="network 4 does not exist: this run has 4"):
        bench(tiny_run()).load("network", 4, 0.01)


def test_whoever_waits_hears_that_it_is_alive() -> None:
    calls = []
    worker = bench(tiny_run(), lambda: calls.append(1))
    assert len(calls) > 10
    calls.clear()
    worker.latency_round(7, 0)
    assert len(calls) == 9


def test_networks_take_turns_over_rounds() -> None:
    run = tiny_run(networks=5, networks_per_round=2)
    rounds = [compose(run, 3, number) for number in range(5)]
    seen = [[index for kind, index in content.executions if kind == "network"] for content in rounds]
    assert all(len(own) == 2 for own in seen)
    assert sorted(index for own in seen for index in own) == sorted([*range(5), *range(5)])
