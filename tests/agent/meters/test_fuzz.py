"""The short form of `make bench-fuzz`, and cases that it found."""

from __future__ import annotations

import pytest

from agent.meters import decoder
from benchmarks.fuzz import DRIVERS, Driver, fuzz, fuzz_ppk2

CASES = 1000


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.name)
def test_no_driver_takes_what_its_format_shows_to_be_damaged(driver: Driver) -> None:
    outcome = fuzz(driver, CASES, seed=7)
    assert outcome.shown == 0, outcome.examples
    # Without a checksum a time may be damaged unseen, and hides the lines behind it until one fits again.
    assert outcome.lost <= (CASES // 200 if driver.name.startswith("csv") else 0), outcome.examples


def test_no_sample_of_a_ppk2_is_read_across_a_slip() -> None:
    outcome = fuzz_ppk2(CASES, seed=7)
    assert (outcome.shown, outcome.lost) == (0, 0)


def test_python_takes_underscores_for_numbers_but_meters_do_not_send_them() -> None:
    assert decoder("csv").feed(b"1_00,5.1,0.3\n100,5.1,0_3\n") == []
    assert decoder("hwmon").feed(b"in1_input 5_100\ncurr1_input 742\n\n") == []


def test_two_sets_whose_end_between_them_was_lost_do_not_mix() -> None:
    target = decoder("hwmon")
    (reading,) = target.feed(b"in1_input 9000\ncurr1_input 900\nin1_input 5100\ncurr1_input 742\n\n")
    assert (reading.voltage_v, reading.current_a) == (5.1, 0.742)
    assert target.rejected == {"set without its end": 1}


def test_a_line_that_was_glued_to_noise_is_found_by_its_width() -> None:
    line = b"0000123456,15080,0412,06212,0,05126,1034,05300,1,00,00000,0000,00000,0,00,08,16\r\n"
    (reading,) = decoder("smartpower3").feed(b"\xff\xfe0000123446,15080,04" + line)
    assert reading.device_time_s == 123.456
