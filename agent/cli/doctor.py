"""`edgelut-agent doctor`: checks the board and its meter, and says what they can measure."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from agent import board, doctor
from agent.calibration_store import CalibrationStore, MeterKey, default_folder
from agent.cli.calibrate import doubts, perform, wave
from agent.cli.opened import Recording, emulator_pids, opened
from agent.doctor import Check
from agent.forecast import WANTED, Forecast, Quality, forecast
from agent.host import HostReader
from agent.load import Load
from agent.meters import Meter
from protos.errors import BadInputError
from protos.types import Calibration, HostFacts, HostState

EXIT_FAILED = 1
REST_SHARE, LEAST_REST_S = 0.1, 2.0  # of the load: the board at rest before it
WAVE_SHARE = 1.0  # of the load: the square wave on one core
WAVE_VALUES = 60  # of the meter, at least
LOOK_S = 0.5
Say = Callable[[str], None]


@dataclass
class Findings:
    """The checks in their order, said as they come."""

    say: Say
    checks: list[Check] = field(default_factory=list)

    def add(self, check: Check) -> None:
        self.checks.append(check)
        self.say(line(check))

    @property
    def failed(self) -> bool:
        return any(check.state == "fail" for check in self.checks)


@dataclass
class Seen:
    """The board at rest and under full load."""

    rest: list[HostState] = field(default_factory=list)
    loaded: list[HostState] = field(default_factory=list)
    top: list[str] = field(default_factory=list)
    rest_trace: Recording = field(default_factory=Recording)
    load_trace: Recording = field(default_factory=Recording)
    swap_pages: int | None = None


def main(options: argparse.Namespace) -> int:
    """Exit status 0 when no check fails, 1 when one does, 130 after Ctrl-C."""
    say: Say = (lambda _: None) if options.json else (lambda text: print(text, flush=True))
    findings = Findings(say)
    try:
        outlook = _examine(options, findings, say)
    except KeyboardInterrupt:
        print("\nedgelut-agent: stopped", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(document(findings, outlook), indent=2))
    elif outlook is not None:
        say(forecast_text(outlook))
    if not options.json:
        say(conclusion(findings))
    return EXIT_FAILED if findings.failed else 0


def _examine(options: argparse.Namespace, findings: Findings, say: Say) -> Forecast | None:
    say("Board")
    reader = HostReader()
    facts = reader.facts()
    findings.add(doctor.board(facts))
    findings.add(doctor.bits(facts.machine, struct.calcsize("P") * 8))
    findings.add(doctor.torch(*board.torch_version()))
    folder = options.calibrations or default_folder()
    findings.add(doctor.disk(board.free_bytes(folder), str(folder)))
    findings.add(doctor.clock(board.clock_source(), board.clock_read_ns()))
    load = Load(len(os.sched_getaffinity(0)))
    try:
        with contextlib.ExitStack() as stack:
            meter = _opened(options.meter, load.pid, stack, findings)
            own = (os.getpid(), load.pid, *(emulator_pids(meter) if meter else ()))
            seen = _under_load(HostReader(own_pids=lambda: own), load, meter, options.seconds, own, say)
            _judge_board(seen, facts, options.seconds, findings)
            return None if meter is None else _examine_meter(options, meter, load, seen, findings, say)
    finally:
        load.close()


def _opened(spec: str, follow_pid: int, stack: contextlib.ExitStack, findings: Findings) -> Meter | None:
    """The meter; a check fails where it cannot be read."""
    if spec == "none":
        return None
    try:
        return stack.enter_context(opened(spec, follow_pid))
    except BadInputError as error:
        findings.add(Check("meter", "fail", str(error), "`edgelut-agent meters` lists what is plugged in."))
        return None


def _under_load(
    reader: HostReader, load: Load, meter: Meter | None, seconds: float, own: tuple[int, ...], say: Say
) -> Seen:
    """The board at rest, then with all cores busy for `seconds`."""
    seen = Seen()
    rest_s = max(LEAST_REST_S, REST_SHARE * seconds)
    say(f"  …     {rest_s:.0f} s at rest, then {seconds:.0f} s of full load")
    with _sampling(meter):
        reader.state()
        before = board.cpu_times_s()
        _look(None, meter, rest_s, [], seen.rest_trace)
        seen.rest.append(reader.state())  # what others used in all this time
        seen.top = board.busiest(before, board.cpu_times_s(), own)
        pages = board.swap_pages()
        load.busy()
        try:
            _look(reader, meter, seconds, seen.loaded, seen.load_trace)
        finally:
            load.idle()
        after = board.swap_pages()
        seen.swap_pages = None if pages is None or after is None else after - pages
    return seen


@contextlib.contextmanager
def _sampling(meter: Meter | None) -> Iterator[None]:
    if meter is None:
        yield
        return
    meter.start()
    try:
        yield
    finally:
        meter.stop()
        meter.take()


def _look(
    reader: HostReader | None, meter: Meter | None, seconds: float, states: list[HostState], trace: Recording
) -> None:
    """Look at board and meter now and then; without a reader at the meter alone."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, left_s))
        if reader is not None:
            states.append(reader.state())
        if meter is not None:
            trace.take(meter)


def _judge_board(seen: Seen, facts: HostFacts, seconds: float, findings: Findings) -> None:
    rest, last = seen.rest[-1], seen.loaded[-1]
    findings.add(doctor.other_load(rest.other_cpu_share, seen.top))
    findings.add(doctor.governor(rest.governor))
    findings.add(doctor.frequency([state.frequency_hz for state in seen.loaded[1:]] or [last.frequency_hz]))
    findings.add(doctor.temperature([state.temp_c for state in seen.loaded], facts.machine, seconds))
    findings.add(doctor.throttled(rest.throttled_bits, last.throttled_bits, facts.model))
    findings.add(doctor.swap(board.swap_used_bytes(), facts.memory_bytes, seen.swap_pages))


# ---- the meter ------------------------------------------------------------------------------------------------------


def _examine_meter(
    options: argparse.Namespace, meter: Meter, load: Load, seen: Seen, findings: Findings, say: Say
) -> Forecast | None:
    """The checks of the meter; the forecast when it answers to a load."""
    say("Meter")
    findings.add(doctor.meter(meter.info))
    rate_hz = meter.info.rate_hz or 1.0
    wave_s = max(WAVE_SHARE * options.seconds, WAVE_VALUES / rate_hz)
    say(f"  …     {wave_s:.0f} s of load and rest in turn, on one core")
    done = perform(meter, load, wave(wave_s, seed=0), 1, lambda *_: None)
    recording = done.recording
    _judge_supply(seen, findings)
    losses = seen.rest_trace.losses + seen.load_trace.losses + recording.losses
    findings.add(doctor.meter_losses(losses.most_common()))
    stored = _stored(options, meter, findings)
    try:
        from agent.calibration import estimate

        found = estimate(recording.times_s, recording.power_w, done.edges, recording.fresh)
    except BadInputError as error:
        findings.add(Check("meter answer", "fail", str(error), "Wire the meter before this board (docs/wiring.md)."))
        return None
    findings.add(doctor.meter_rate(1 / found.update_period_s if found.update_period_s else 0.0, meter.info.rate_hz))
    findings.add(doctor.meter_answer(found, doubts(found, done)))
    findings.add(doctor.calibration(stored, meter.info, time.time()))
    lag_s = _surer_lag_s(found, stored)
    return forecast(Quality(found.noise_w, found.update_period_s, lag_s, found.step_w))


def _surer_lag_s(found: Calibration, stored: Calibration | None) -> float:
    """The stored lag, from a longer wave, unless it is known less well."""
    if stored is None or stored.lag_se_s is None or (found.lag_se_s is not None and found.lag_se_s < stored.lag_se_s):
        return found.lag_s
    return stored.lag_s


def _judge_supply(seen: Seen, findings: Findings) -> None:
    rest_v, load_v = seen.rest_trace.voltage_v, seen.load_trace.voltage_v
    if rest_v and load_v:
        findings.add(doctor.supply(statistics.median(rest_v), min(load_v)))


def _stored(options: argparse.Namespace, meter: Meter, findings: Findings) -> Calibration | None:
    try:
        return CalibrationStore(options.calibrations).load(MeterKey.of(options.meter, meter.info))
    except BadInputError as error:
        findings.add(Check("calibration", "warn", str(error), "Run `edgelut-agent calibrate` with this meter."))
        return None


# ---- what is said ---------------------------------------------------------------------------------------------------

_MARKS = {"ok": ("32", "✓ ok  "), "warn": ("33", "! warn"), "fail": ("31", "✗ fail")}


def line(check: Check) -> str:
    """One check for people; what to do stands below it."""
    colour, mark = _MARKS[check.state]
    shown = f"\x1b[{colour}m{mark}\x1b[0m" if sys.stdout.isatty() else mark
    advice = f"\n         → {check.advice}" if check.advice else ""
    return f"  {shown} {check.name:<13} {check.value}{advice}"


def forecast_text(outlook: Forecast) -> str:
    lines = ["Forecast for fbnet-cifar10 with this meter"]
    lines.append(f"  energy of one operator, preset standard: ± {outlook.half_width:.1%} (95 %)")
    for wanted, device_s in outlook.device_s.items():
        lines.append(f"  ± {wanted:.0%} takes {_duration(device_s)} of device time for a full table")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def conclusion(findings: Findings) -> str:
    counts = {state: sum(check.state == state for check in findings.checks) for state in ("fail", "warn")}
    if counts["fail"]:
        return f"{counts['fail']} failed, {counts['warn']} warnings: mend what failed before you measure."
    return f"Nothing failed, {counts['warn']} warnings."


def document(findings: Findings, outlook: Forecast | None) -> dict[str, object]:
    return {
        "checks": [asdict(check) for check in findings.checks],
        "failed": findings.failed,
        "forecast": None
        if outlook is None
        else {
            "space": "fbnet-cifar10",
            "rel_halfwidth_standard": outlook.half_width,
            "device_time": [{"rel_halfwidth": wanted, "device_s": outlook.device_s[wanted]} for wanted in WANTED],
        },
    }
