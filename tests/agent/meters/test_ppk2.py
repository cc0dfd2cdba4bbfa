from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.emulator.meter import MeterModel, MeterSettings, PtyMeter
from agent.emulator.meters.ppk2 import encode, metadata
from agent.meters import decoder, open_meter
from agent.meters.ppk2_samples import ALPHA, ALPHA_TOP, Calibration, Ppk2Decoder
from protos.errors import BadInputError
from tests.agent.meters.helpers import StepSupply, WallClock, feed_in_pieces, wait_for

SAMPLE = bytes.fromhex("e8830005")  # ADC 1000, range 2, counter 0


def words(ranges: list[int], adc: int = 1000, first: int = 0) -> bytes:
    made = [adc | measured << 14 | ((first + k) & 63) << 18 for k, measured in enumerate(ranges)]
    return np.array(made, "<u4").tobytes()


def test_one_sample() -> None:
    (time_s,), (voltage_v,), (current_a,) = Ppk2Decoder().feed_array(SAMPLE)
    assert (time_s, voltage_v) == (0.0, 5.0)
    assert current_a == pytest.approx(4.3296e-3, rel=1e-4)
    for spec in ("ppk2", "ppk2?block=1"):
        (reading,) = decoder(spec).feed(SAMPLE)
        assert (reading.voltage_v, reading.current_a) == (5.0, current_a)
        assert reading.power_w == pytest.approx(5.0 * current_a)
    assert decoder("ppk2?block=2").feed(words([2, 2])) == []  # the next one must show that they were no accident


TEXT = b"Calibrated: 0\nR0: 1003.3506\nR2: 20.3\nGI2: -nan\nO2: 0\nVDD: 3741\nHW: 9173\nmode: 2\nIA: 56\nEND\n"


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 200)), ending=st.sampled_from([b"\n", b"\r\n"]))
def test_a_stream_may_begin_with_the_calibration_text(cuts: list[int], ending: bytes) -> None:
    data = TEXT.replace(b"\n", ending) + words([2] * 10)
    target = decoder("ppk2")
    readings = feed_in_pieces(target, data, cuts)
    assert {(r.voltage_v, round(r.current_a, 9)) for r in readings} == {(3.741, round(4000 * 1.8 / 163840 / 20.3, 9))}
    assert len(readings) == 10
    assert not target.rejected


def test_the_voltage_that_is_given_counts_more_than_the_texts() -> None:
    (reading,) = decoder("ppk2?vdd_mv=4200").feed(TEXT + SAMPLE)
    assert reading.voltage_v == 4.2
    assert decoder("ppk2").feed(TEXT.replace(b"3741", b"99999") + SAMPLE)[0].voltage_v == 5.0
    assert decoder("ppk2").feed(TEXT.removesuffix(b"\n") + SAMPLE)[0].voltage_v == 3.741  # no line end
    _, (voltage_v,), _ = decoder("ppk2").feed_array(TEXT + SAMPLE)
    assert voltage_v == 3.741


def test_what_only_looks_like_text_is_samples() -> None:
    printable = b"".join(bytes((0x43, 0x61, k << 2, 0x6C)) for k in range(8, 24))  # every byte is a character
    assert len(decoder("ppk2").feed(printable)) == 16
    target = decoder("ppk2")
    target.feed(b"R0: " + b"1" * 5000)
    assert sum(target.rejected.values()) > 4900  # no text is so long
    cut = decoder("ppk2")
    cut.feed(TEXT[:30])
    cut.reset()
    assert cut.rejected == {"byte outside a sample": 30}


def test_calibration_text() -> None:
    text = "Calibrated: 1\nR0: -nan\nR2: 10.2\nGS2: 0.5\nO2: -12\nUG1: 0\nHW: 9173\nI3: 1e-6\njunk\nEND\n"
    calibration = Calibration.parse(text)
    assert calibration.r[:3] == (1031.64, 101.65, 10.2)
    assert (calibration.gs[2], calibration.o[2], calibration.ug[1], calibration.i[3]) == (0.5, -12.0, 1.0, 1e-6)
    assert (calibration.calibrated, calibration.hardware) == (True, "9173")
    assert Calibration.parse(metadata().decode()).calibrated


def test_the_formula_with_every_factor() -> None:
    calibration = Calibration.parse("R2: 10\nGS2: 0.5\nGI2: 1.1\nO2: 40\nS2: 0.001\nI2: 0.002\nUG2: 1.05")
    _, _, (current,) = Ppk2Decoder(calibration, 4000.0).feed_array(SAMPLE)
    x = (4000 - 40) * 1.8 / 163840 / 10
    assert current == pytest.approx(1.05 * (x * (0.5 * x + 1.1) + 0.001 * 4 + 0.002))


def test_blocks_are_means_with_their_mean_time() -> None:
    readings = decoder("ppk2?block=100").feed(encode(0.3, 0, 250))
    assert [r.device_time_s for r in readings] == [pytest.approx(49.5e-5), pytest.approx(149.5e-5)]
    assert readings[0].current_a == pytest.approx(0.3, rel=0.01)


def test_after_a_change_of_range_three_samples_are_a_rolling_mean() -> None:
    ranges = [3] * 300 + [2] * 10
    _, _, current = Ppk2Decoder().feed_array(words(ranges))
    old, new = current[0], current[-1]
    expected = old
    for k in range(3):
        expected += ALPHA * (new - expected)
        assert current[300 + k] == pytest.approx(expected)
    assert current[303] == pytest.approx(new)


def test_into_range_4_the_mean_from_before_stays_for_two_samples() -> None:
    _, _, current = Ppk2Decoder().feed_array(words([3] * 300 + [4] * 10))
    old, new = current[0], current[-1]
    assert current[300] == current[301] == pytest.approx(old)
    assert current[302] == pytest.approx(old + ALPHA_TOP * (new - old))
    assert current[303] == pytest.approx(new)


def test_lost_samples_move_the_time_on() -> None:
    target = Ppk2Decoder()
    times, _, _ = target.feed_array(words([2] * 20) + words([2] * 20, first=25))
    assert target.rejected == {"lost sample": 5}
    assert times[20] == pytest.approx(25e-5)


def test_a_slip_of_bytes_is_found_and_no_absurd_value_comes_through() -> None:
    target = Ppk2Decoder()
    data = words([2] * 64)
    _, _, current = target.feed_array(data[:101] + data[102:])  # one byte lost
    assert target.rejected["byte outside a sample"] == 3 + 4
    assert set(np.round(current, 9)) == {round(4.3295874e-3, 9)}
    assert len(current) == 61  # those beside the slip might have been read across it


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 1500)),
    junk=st.binary(max_size=40),
    ranges=st.lists(st.integers(0, 7), min_size=20, max_size=60),
    gap=st.integers(0, 70),
)
def test_any_chunking_gives_the_same(cuts: list[int], junk: bytes, ranges: list[int], gap: int) -> None:
    data = words(ranges * 3) + junk + words(ranges, first=len(ranges) * 3 + gap)
    whole, pieces = Ppk2Decoder(block=7), Ppk2Decoder(block=7)
    expected = whole.feed(data)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    found = [r for a, b in pairwise(places) for r in pieces.feed(data[a:b])]
    assert found == expected
    assert pieces.rejected == whole.rejected


@settings(max_examples=60, deadline=None)
@given(junk=st.binary(max_size=200))
def test_a_few_good_samples_are_enough_to_recover(junk: bytes) -> None:
    target = Ppk2Decoder()
    target.feed_array(junk)
    _, _, current = target.feed_array(encode(0.3, 5, 40))
    assert len(current) >= 30


def test_noise_costs_no_time() -> None:
    began = time.monotonic()
    target = Ppk2Decoder()
    target.feed(np.random.default_rng(0).bytes(1 << 20))
    assert time.monotonic() - began < 20.0  # 5 ms on an idle machine
    assert target.rejected["byte outside a sample"] > 1_000_000


def test_the_emulated_kit_through_its_port() -> None:
    device = PtyMeter(MeterModel(StepSupply(), MeterSettings.at_rate(200, noise_a=0.002)), WallClock(), "ppk2")
    try:
        with pytest.raises(BadInputError, match="mode=both must be ampere or source"):
            open_meter(f"ppk2:{device.port}?mode=both", WallClock())
        meter = open_meter(f"ppk2:{device.port}?mode=source&vdd_mv=5000&rate_hz=100", WallClock())
        currents: list[float] = []
        try:
            meter.start()
            wait_for(lambda: bool(currents.extend(meter.take()[0].current_a) or len(currents) > 20))
            meter.stop()
        finally:
            meter.close()
    finally:
        device.close()
    assert meter.info.firmware == "10604"
    assert sum(currents) / len(currents) == pytest.approx(0.24, abs=0.01)


def rolling(raw: list[float], ranges: list[int]) -> list[float]:
    """Nordic's filter as its documents describe it, sample by sample."""
    slow = fast = raw[0]
    left = since = 0
    out = [raw[0]]
    for value, now, before in zip(raw[1:], ranges[1:], ranges, strict=False):
        old = fast, slow
        fast, slow = fast + ALPHA * (value - fast), slow + ALPHA_TOP * (value - slow)
        if now != before:
            left, since = 3, 0
        elif left:
            since += 1
        if left and now == 4 and since < 2:
            fast, slow = old
        out.append(value if not left else slow if now == 4 else fast)
        left = max(0, left - 1)
    return out


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(200, 9000)), min_size=1, max_size=12))
def test_short_streams_are_filtered_as_nordic_does(stretches: list[tuple[int, int, int]]) -> None:
    ranges = [r for r, length, _ in stretches for _ in range(length)]
    adc = [a for _, length, a in stretches for _ in range(length)]
    made = [a | r << 14 | (k & 63) << 18 for k, (a, r) in enumerate(zip(adc, ranges, strict=True))]
    _, _, found = Ppk2Decoder().feed_array(np.array(made, "<u4").tobytes())
    ohm = Calibration().r
    raw = [4 * a * 1.8 / 163840 / ohm[r] for a, r in zip(adc, ranges, strict=True)]
    assert found == pytest.approx(rolling(raw, ranges), rel=1e-9)
