"""Every emulated kind through a pseudo-terminal and its driver, as a user would have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.emulator.meter import Faults, MeterModel, MeterSettings, PtyMeter
from agent.meters import Meter, open_meter
from protos.errors import BadInputError
from tests.agent.meters.helpers import StepSupply, WallClock, wait_for

FAULTY = Faults(garbage=0.05, lost_byte=0.05, flipped_bit=0.05, half_frame=0.05, doubled=0.05, seed=1)
KINDS = [
    ("tc66c", 20, "?rate_hz=20"),
    ("avhzy", 100, ""),
    ("smartpower3", 100, ""),
    ("csv", 100, ""),
    ("atorch", 40, ""),
]


@pytest.mark.parametrize("faults", [None, FAULTY], ids=["clean", "faulty"])
@pytest.mark.parametrize(("kind", "rate_hz", "options"), KINDS)
def test_sampling(kind: str, rate_hz: float, options: str, faults: Faults | None) -> None:
    device = PtyMeter(
        MeterModel(StepSupply(), MeterSettings.at_rate(rate_hz, noise_a=0.003)), WallClock(), kind, faults
    )
    try:
        meter = open_meter(f"{kind}:{device.port}{options}", WallClock())
        values: list[float] = []
        times: list[int] = []
        losses: list[str] = []

        def enough() -> bool:
            samples, lost = meter.take()
            values.extend(samples.current_a)
            times.extend(samples.t_ns)
            losses.extend(lost)
            return len(values) >= 12

        try:
            meter.start()
            wait_for(enough)
            meter.stop()
            meter.take()
            assert meter.take()[0].t_ns == ()
        finally:
            meter.close()
    finally:
        device.close()
    assert meter.info.kind == kind
    assert times == sorted(times)
    if kind == "csv" and faults:  # lines without redundancy: a flipped digit passes
        assert sorted(values)[len(values) // 2] == pytest.approx(0.24, abs=0.03)
    else:
        assert all(abs(a - 0.24) < 0.03 for a in values)
    if faults is None:
        assert losses == []


@pytest.mark.parametrize("asked", ["tc66c", "csv"])
def test_a_meter_of_another_kind_is_named(asked: str) -> None:
    device = PtyMeter(MeterModel(StepSupply(), MeterSettings.at_rate(50)), WallClock(), "smartpower3")
    try:
        with pytest.raises(BadInputError, match=f"kind smartpower3 speaks there; write smartpower3:{device.port}"):
            open_meter(f"{asked}:{device.port}?first_reply_s=0.7", WallClock())
    finally:
        device.close()


def test_csv_with_other_columns_says_what_came() -> None:
    device = PtyMeter(MeterModel(StepSupply(), MeterSettings.at_rate(50)), WallClock(), "csv")
    try:
        with pytest.raises(
            BadInputError, match=r"line with 3 columns instead of 2 \(V,A\).*first: t_ms,V,A.*write the columns"
        ):
            open_meter(f"csv:{device.port}?columns=V,A&first_reply_s=0.5", WallClock())
    finally:
        device.close()


@pytest.mark.parametrize(("kind", "options"), [("avhzy", ""), ("ppk2", "?rate_hz=100"), ("smartpower3", "")])
def test_a_device_that_still_streams_when_it_is_opened(kind: str, options: str) -> None:
    device = PtyMeter(MeterModel(StepSupply(), MeterSettings.at_rate(100, noise_a=0.003)), WallClock(), kind)
    try:
        device._protocol._streaming = True  # type: ignore[attr-defined]  # as a program that died left it
        device._heard_s = WallClock().now_ns() * 1e-9
        wait_for(lambda: bool(device._leaving or device._first_s))
        meter = open_meter(f"{kind}:{device.port}{options}", WallClock())
        try:
            assert all(abs(a - 0.24) < 0.03 for a in _currents(meter, 8))
        finally:
            meter.close()
    finally:
        device.close()


@pytest.mark.parametrize("kind", ["tc66c?rate_hz=20", "avhzy", "smartpower3", "ppk2", "csv"])
def test_unplugged_and_plugged_in_again(kind: str, tmp_path: Path) -> None:
    name, _, options = kind.partition("?")
    model = MeterModel(StepSupply(), MeterSettings.at_rate(50, noise_a=0.003))
    device = PtyMeter(model, WallClock(), name, link=tmp_path / "edgelut-meter")
    try:
        meter = open_meter(f"{name}:{device.port}?{options}", WallClock())
        try:
            _currents(meter, 3)
            meter.start()
            device.unplug()
            losses: list[str] = []
            wait_for(lambda: bool(losses.extend(meter.take()[1]) or any("broke" in text for text in losses)))
            device.plug()
            assert all(abs(a - 0.24) < 0.03 for a in _currents(meter, 3))
        finally:
            meter.close()
    finally:
        device.close()


def _currents(meter: Meter, count: int) -> list[float]:
    found: list[float] = []
    meter.start()
    wait_for(lambda: bool(found.extend(meter.take()[0].current_a) or len(found) >= count))
    meter.stop()
    return found


@pytest.mark.parametrize(
    ("kind", "volts", "amps"),
    [
        ("um24c", 24.0, 3.0),
        ("um25c", 24.0, 5.0),
        ("um34c", 24.0, 4.0),
        ("tc66c", 30.0, 5.0),
        ("avhzy", 26.0, 6.0),
        ("smartpower3", 20.0, 3.0),
        ("csv", 36.0, 3.2),
        ("ppk2", 5.5, 1.0),
    ],
)
def test_every_driver_knows_its_range(kind: str, volts: float, amps: float) -> None:
    supply = StepSupply(idle_a=amps + 0.5)
    device = PtyMeter(MeterModel(supply, MeterSettings.at_rate(50, noise_a=0.0)), WallClock(), kind)
    try:
        meter = open_meter(f"{kind}:{device.port}", WallClock())
        losses: list[str] = []
        try:
            meter.start()
            wait_for(lambda: bool(losses.extend(meter.take()[1]) or any("beyond" in text for text in losses)))
        finally:
            meter.close()
    finally:
        device.close()
    assert any(f"the current was beyond the meter's range of {amps:g} A" in text for text in losses)
    assert meter.buffer._limits.voltage_v == volts  # type: ignore[attr-defined]
