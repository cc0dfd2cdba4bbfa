from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.emulator.meters.um25c import encode
from agent.meters import Reading, decoder
from agent.meters.um25c import MODELS, checksum, power_agrees
from tests.agent.meters.helpers import feed_in_pieces, mutate

# A frame captured from a real UM34C (sigrok wiki).
CAPTURE_UM34C = bytes.fromhex(
    "0d4c01fe0000000000000014004400000000000b00000038000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000007000000000000"
    "0000000a000000000000000200040001869f0000688c"
)
UM25C = 0x09C9


def frame(volts: float = 5.123, amps: float = 0.4567, number: int = UM25C) -> bytes:
    model = MODELS[number]
    volts = round(volts / model.voltage_step_v) * model.voltage_step_v
    amps = round(amps / model.current_step_a) * model.current_step_a
    return encode(Reading(volts, amps, volts * amps, temp_c=27.0, charge_c=36.0, energy_j=180.0), number)


def test_a_real_frame_of_a_um34c() -> None:
    (reading,) = decoder("um34c").feed(CAPTURE_UM34C)
    assert (reading.voltage_v, reading.current_a, reading.power_w) == (5.10, 0.0, 0.0)
    assert (reading.temp_c, reading.group, reading.model) == (20.0, 0, "UM34C")
    assert (reading.charge_c, reading.energy_j) == (pytest.approx(11 * 3.6), pytest.approx(56 * 3.6))
    assert (reading.data_plus_v, reading.resistance_ohm) == (0.01, 9999.9)
    assert checksum(CAPTURE_UM34C) == 0x8C


def test_the_first_bytes_of_a_um25c() -> None:
    start = bytes.fromhex("09c9140311d700000924001b00500000")
    data = start + bytes(112) + b"\xff\xf1"
    (reading,) = decoder("um25c").feed(data)
    assert (reading.voltage_v, reading.current_a, reading.power_w, reading.temp_c) == (5.123, 0.4567, 2.340, 27.0)


@pytest.mark.parametrize("number", MODELS)
def test_the_scale_comes_from_the_frame(number: int) -> None:
    (reading,) = decoder("um25c").feed(frame(5.12, 0.456, number))
    assert reading.model == MODELS[number].name
    assert (reading.voltage_v, reading.current_a) == (5.12, 0.456)
    assert (reading.charge_c, reading.energy_j) == (36.0, 180.0)


@pytest.mark.parametrize(
    ("offset", "bit", "reason"),
    [
        (3, 6, "disagrees with W"),
        (4, 4, "disagrees with W"),
        (8, 2, "disagrees with W"),
        (11, 5, "°C disagree with °F"),
        (129, 0, "without its end"),
    ],
)
def test_a_flipped_bit_is_refused_with_a_reason(offset: int, bit: int, reason: str) -> None:
    data = bytearray(frame())
    data[offset] ^= 1 << bit
    target = decoder("um25c")
    assert target.feed(bytes(data)) == []
    assert any(reason in text for text in target.rejected)


def test_a_um34c_with_a_corrupted_current_is_refused_although_its_checksum_holds() -> None:
    data = bytearray(frame(number=0x0D4C))
    data[5] ^= 0x80
    assert data[129] == checksum(bytes(data))
    target = decoder("um34c")
    assert target.feed(bytes(data)) == []
    assert target.rejected["frame whose V · I disagrees with W"] == 1


def test_an_unknown_model_is_named_in_hexadecimal() -> None:
    data = bytearray(frame())
    data[:2] = b"\x12\x34"
    target = decoder("um25c")
    assert target.feed(bytes(data) + frame()) != []
    assert target.rejected["unknown model number 0x1234"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 500)), st.binary(max_size=40))
def test_any_chunking_gives_the_same(cuts: list[int], junk: bytes) -> None:
    data = frame() + junk + frame(5.0, 1.0) + frame(4.9, 0.1)
    whole = decoder("um25c").feed(data)
    assert feed_in_pieces(decoder("um25c"), data, cuts) == whole
    assert [r.voltage_v for r in whole][-1] == 4.9


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_one_good_frame_is_enough_to_recover(junk: bytes) -> None:
    target = decoder("um25c")
    target.feed(junk)
    assert target.feed(frame())[-1:] or target.feed(frame())[-1:]


def test_mutated_frames_never_give_a_reading_that_disagrees_with_itself() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        number = rng.choice(list(MODELS))
        data = mutate(frame(rng.uniform(4.5, 5.3), rng.uniform(0.0, 2.0), number), rng)
        for reading in decoder("um25c").feed(data):
            model = next(m for m in MODELS.values() if m.name == reading.model)
            assert power_agrees(reading.voltage_v, reading.current_a, reading.power_w, model)


def test_the_reading_survives_the_way_through_the_emulated_frame() -> None:
    original = Reading(5.123, 0.4567, 2.340, temp_c=27.0, charge_c=36.0, energy_j=180.0)
    (reading,) = decoder("um25c").feed(encode(original, UM25C))
    assert replace(reading, group=None, resistance_ohm=None, data_plus_v=None, data_minus_v=None, model="") == original
