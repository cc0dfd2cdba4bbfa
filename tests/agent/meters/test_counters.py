from __future__ import annotations

from agent.meters.base import Reading
from agent.meters.counters import EnergyCheck


def check(power_w: float, counted_w: float, seconds: int, hole_at: int = -1, group_at: int = -1) -> str:
    """Samples of power_w every half second, a counter of whole mWh that runs at counted_w."""
    target = EnergyCheck()
    for i in range(2 * seconds):
        if i == hole_at:
            continue
        t_s = i / 2 + (100.0 if 0 <= hole_at < i else 0.0)
        counter_j = t_s * counted_w // 3.6 * 3.6 + 1000.0
        group = 1 if 0 <= group_at <= i else 0
        target.add(
            round(t_s * 1e9), Reading(5.0, power_w / 5, power_w, energy_j=counter_j - 900.0 * group, group=group)
        )
    return target.disagreement()


def test_agreement_is_silent() -> None:
    assert check(2.0, 2.0, 300) == ""
    assert check(2.0, 2.04, 300) == ""


def test_disagreement_is_said_in_joules() -> None:
    assert check(2.0, 2.4, 300) == "the meter's energy counter says 716 J, its samples 599 J"


def test_too_little_says_nothing() -> None:
    assert check(2.0, 3.0, 20) == ""


def test_a_hole_or_another_group_begins_again() -> None:
    assert check(2.0, 2.0, 300, hole_at=300) == ""
    assert check(2.0, 2.0, 300, group_at=200) == ""


def test_a_meter_without_counter_is_not_checked() -> None:
    target = EnergyCheck()
    target.add(0, Reading(5.0, 1.0, 5.0))
    assert target.disagreement() == ""
