from __future__ import annotations

import pytest

from agent.meters.base import FrameClock, Reading
from agent.meters.sampling import DeviceTime, Freshness, Limits, SampleBuffer
from agent.meters.spec import parse_spec
from protos.errors import BadInputError
from protos.types import MeterSamples


def fresh_flags(times_s: list[float], values: list[float], update_s: float = 0.5, slack_s: float = 0.0) -> list[bool]:
    rule = Freshness(update_s, slack_s)
    return [rule.is_fresh(round(t * 1e9), 5.0, a, 5.0 * a) for t, a in zip(times_s, values, strict=True)]


def test_a_repeat_within_one_period_is_stale_and_a_later_one_is_genuine() -> None:
    times = [0.0, 0.4, 0.8, 1.2, 1.6]
    assert fresh_flags(times, [0.3, 0.3, 0.4, 0.4, 0.4]) == [True, False, True, False, True]


def test_a_change_is_always_fresh() -> None:
    assert fresh_flags([0.0, 0.1, 0.2], [0.3, 0.4, 0.3]) == [True, True, True]


def test_slack_forgives_jitter_of_a_reader_as_fast_as_the_meter() -> None:
    assert fresh_flags([0.0, 0.019, 0.041], [0.3, 0.3, 0.3], 0.02, 0.004) == [True, True, True]


def test_the_found_rate_is_that_of_changes() -> None:
    rule = Freshness(0.5, 0.0)
    for i in range(200):
        rule.is_fresh(i * 10**8, 5.0, 0.2 + (i // 5) * 0.01, 1.0)
    assert rule.found_rate_hz == 2.0


def mapped(mapping: DeviceTime, device_s: float, arrival_ns: int) -> int:
    mapping.observe(device_s, arrival_ns)
    return mapping.host_ns(device_s)


def test_device_time_takes_the_jitter_out() -> None:
    mapping = DeviceTime()
    delays_ms = [1, 7, 3, 1, 9, 1]
    times = [mapped(mapping, i * 0.005, 10**12 + i * 5_000_000 + d * 10**6) for i, d in enumerate(delays_ms)]
    assert [round((t - 10**12) / 1e6, 1) for t in times] == [i * 5 + 1 for i in range(6)]
    assert mapping.residual_s < 1e-4


def test_a_restarted_meter_gets_a_new_offset() -> None:
    mapping = DeviceTime()
    mapped(mapping, 1000.0, 10**12)
    assert mapped(mapping, 0.0, 10**12 + 5 * 10**9) == 10**12 + 5 * 10**9
    assert mapping.jumps == 1


def test_a_meter_that_loses_count_of_time_is_followed_within_two_windows() -> None:
    mapping = DeviceTime()
    for i in range(100):
        mapped(mapping, i * 0.5, round((1000 + i * 0.5 + (0.2 if i >= 50 else 0.0)) * 1e9))
    assert mapped(mapping, 50.0, round(1050.2e9)) == pytest.approx(1050.2e9, abs=1000)


def test_the_clock_in_frames() -> None:
    clock = FrameClock(most_s=60.0, wrap_s=100.0)
    seen = [clock.follow(t) for t in (10.0, 20.0, 20.0, 15.0, 30.0, 95.0, 96.0, 97.0, 5.0, 4.0, 4.5)]
    assert seen == [10.0, 20.0, None, None, 30.0, None, 96.0, 97.0, 105.0, None, 104.5]


def test_the_buffer_gives_samples_and_losses_once() -> None:
    buffer = SampleBuffer(Freshness(0.5, 0.0), Limits(20.0, 5.0))
    buffer.add(1, Reading(5.0, 0.3, 1.5, temp_c=27.0))
    buffer.add(2, Reading(5.0, 6.0, 30.0, temp_c=28.0))
    buffer.add(3, Reading(5.0, -0.3, -1.5))
    buffer.lose("no good reply to a request")
    buffer.lose("no good reply to a request")
    samples, losses = buffer.take()
    assert samples.t_ns == (1, 2, 3)
    assert samples.temp_c == ()
    assert "2 × no good reply to a request" in losses
    assert any("beyond the meter's range of 5 A" in text for text in losses)
    assert any("the wrong way round" in text for text in losses)
    assert buffer.take() == (MeterSamples(), ())


def test_time_never_runs_backwards() -> None:
    buffer = SampleBuffer(Freshness(0.5, 0.0))
    buffer.add(10, Reading(5.0, 0.3, 1.5))
    buffer.add(8, Reading(5.0, 0.4, 2.0))
    assert buffer.take()[0].t_ns == (10, 10)


def test_specs() -> None:
    spec = parse_spec("UM25C:/dev/ttyACM0?rate_hz=50&emulated=yes")
    assert (spec.kind, spec.port, spec.number("rate_hz", 1, 0, 100)) == ("um25c", "/dev/ttyACM0", 50.0)
    assert spec.flag("emulated", False)
    url = parse_spec("tc66c:rfc2217://host:2217?ign_set_control&rate_hz=2")
    assert url.port == "rfc2217://host:2217?ign_set_control"
    assert dict(url.options) == {"rate_hz": "2"}


@pytest.mark.parametrize("text", ["um25c:/dev/x?rate_hz=fast", "um25c:/dev/x?rate_hz=1e9", "um25c:/dev/x?rate_hz=nan"])
def test_an_option_out_of_range_is_named(text: str) -> None:
    with pytest.raises(BadInputError, match="rate_hz"):
        parse_spec(text).number("rate_hz", 1, 0.1, 1000)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(BadInputError, match="there is no option 'rate'"):
        parse_spec("um25c:/dev/x?rate=2").only("rate_hz")


def test_a_time_far_ahead_was_the_wrong_one_when_the_next_fits_the_rhythm() -> None:
    clock = FrameClock()
    assert [clock.follow(t) for t in (1.0, 1.5, 2.0, 42.5, 3.0, 3.5)] == [1.0, 1.5, 2.0, 42.5, 3.0, 3.5]
    paused = FrameClock()
    assert [paused.follow(t) for t in (1.0, 1.5, 2.0, 22.0, 22.5)] == [1.0, 1.5, 2.0, 22.0, 22.5]


def test_the_very_frame_may_come_again_but_no_other_with_its_time() -> None:
    clock = FrameClock()
    assert [clock.follow(1.0, "a"), clock.follow(2.0, "b"), clock.follow(2.0, "b")] == [1.0, 2.0, 2.0]
    assert clock.follow(2.0, "c") is None


def test_a_clock_that_is_not_strict_wraps_or_was_set() -> None:
    clock = FrameClock(wrap_s=100.0, strict=False)
    assert [clock.follow(t) for t in (10.0, 95.0, 5.0, 2.0, 90.0)] == [10.0, 95.0, 105.0, 102.0, 190.0]


def test_a_kind_without_a_port_may_have_options() -> None:
    spec = parse_spec("rapl?rate_hz=50")
    assert (spec.kind, spec.port, dict(spec.options)) == ("rapl", "", {"rate_hz": "50"})
    assert parse_spec("hwmon:ina226?rate_hz=5").port == "ina226"
    assert str(parse_spec("pi5-pmic")) == "pi5-pmic"
