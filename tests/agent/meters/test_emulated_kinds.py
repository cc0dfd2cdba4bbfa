"""Every emulated kind through a pseudo-terminal and its driver, as a user would have it."""

from __future__ import annotations

import pytest

from agent.emulator.meter import Faults, MeterModel, MeterSettings, PtyMeter
from agent.meters import open_meter
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
