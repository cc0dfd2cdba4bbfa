from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.watch import SampleWatch
from protos.types import PowerWindow


def window(started_s: float, ended_s: float) -> PowerWindow:
    return PowerWindow("item", round(started_s * 1e9), round(ended_s * 1e9), 0, 1)


def watching(times_s: list[float], rate_hz: float = 2.0) -> SampleWatch:
    watch = SampleWatch(rate_hz, 0)
    watch.add([round(t * 1e9) for t in times_s])
    return watch


def every(step_s: float, stop_s: float, start_s: float = 0.0) -> list[float]:
    return [start_s + step_s * i for i in range(1, int((stop_s - start_s) / step_s) + 1)]


def test_a_meter_that_speaks_hurts_nobody() -> None:
    watch = watching(every(0.4, 20.0))
    assert not watch.hurts(window(18.0, 20.0))
    assert watch.silent_s(20_000_000_000) == pytest.approx(0.0, abs=0.41)


def test_one_lost_reply_is_no_hole() -> None:
    times = every(0.4, 20.0)
    del times[30]
    assert watching(times).blind_s(window(10.0, 14.0)) == 0.0


def test_a_hole_hurts_the_windows_that_it_covers() -> None:
    watch = watching([*every(0.4, 10.0), *every(0.4, 20.0, start_s=13.0)])
    assert watch.hurts(window(11.0, 13.0))
    assert watch.hurts(window(12.5, 14.0))
    assert not watch.hurts(window(13.2, 15.0))
    assert not watch.hurts(window(2.0, 10.2))
    assert watch.blind_s(window(10.0, 14.0)) == pytest.approx(3.4, abs=0.05)


def test_silence_up_to_the_end_is_a_hole_too() -> None:
    watch = watching(every(0.4, 10.0))
    assert watch.hurts(window(10.0, 12.0))
    assert watch.silent_s(12_000_000_000) == pytest.approx(2.0, abs=0.01)


def test_a_meter_slower_than_it_says_is_learned() -> None:
    watch = watching(every(1.0, 12.0), rate_hz=100.0)
    assert not watch.hurts(window(10.0, 12.0))


def test_a_meter_that_promises_nothing_is_learned() -> None:
    assert not watching([], rate_hz=0.0).hurts(window(0.0, 5.0))
    assert watching(every(0.1, 5.0), rate_hz=0.0).hurts(window(5.0, 8.0))


@given(
    gaps_s=st.lists(st.floats(0.0, 3.0), max_size=80),
    start_s=st.floats(0.0, 50.0),
    length_s=st.floats(0.01, 10.0),
    rate_hz=st.sampled_from([0.0, 2.0, 100.0]),
)
def test_no_more_of_a_window_is_blind_than_there_is(
    gaps_s: list[float], start_s: float, length_s: float, rate_hz: float
) -> None:
    times, now_s = [], 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        times.append(now_s)
    blind_s = watching(times, rate_hz).blind_s(window(start_s, start_s + length_s))
    assert -1e-6 <= blind_s <= length_s + 1e-6
