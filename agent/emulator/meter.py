"""The meter emulator: a process that speaks a real meter's protocol on a pseudo-terminal and follows another process.

By hand: `python -m agent.emulator.meter um25c --idle-a 0.24 --follow-pid PID` prints the port's path on its first line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from agent.emulator.checks import check_numbers, check_process, check_settings
from agent.emulator.cpu import CpuTimeSupply
from agent.emulator.memory_meter import InMemoryMeter
from agent.emulator.meters import protocols
from agent.emulator.model import MeterModel, MeterSettings
from agent.emulator.pty_meter import Faults, PtyMeter
from protos.errors import BadInputError

__all__ = [
    "RATES_HZ",
    "RATE_HZ",
    "CpuTimeSupply",
    "EmulatedMeterProcess",
    "Faults",
    "InMemoryMeter",
    "MeterModel",
    "MeterSettings",
    "PtyMeter",
    "main",
    "spawn",
]

ORPHAN_S = 30.0  # the emulator ends so long after the process that it follows
POLLED = ("um24c", "um25c", "um34c", "tc66c")  # kinds that are asked for each value
# New values a second of each kind, where nothing else is said.
RATES_HZ = {"atorch": 1.0, "avhzy": 100.0, "csv": 100.0, "ppk2": 100.0, "smartpower3": 200.0}
RATE_HZ = 2.0  # of all others
START_S = 30.0  # within which the emulator's process must have said its port


class MonotonicClock:
    def now_ns(self) -> int:
        return time.monotonic_ns()


class EmulatedMeterProcess:
    """An emulated meter in a process of its own; it ends with `close`, or when this process ends."""

    def __init__(self, process: subprocess.Popen[str], port: str, kind: str, rate_hz: float) -> None:
        self._process = process
        self.port = port
        self.pid = process.pid
        self.spec = f"{kind}:{port}"  # for `agent.meters.open_meter`
        if kind in POLLED:
            self.spec += f"?rate_hz={rate_hz:g}"

    def follow(self, pid: int) -> None:
        """Follow another process from now on (the measured one was started again)."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"follow {pid}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def spawn(kind: str = "um25c", follow_pid: int = 0, rate_hz: float = 50.0, **settings: float) -> EmulatedMeterProcess:
    """Start an emulated meter whose current follows the CPU time of `follow_pid`.

    settings: fields of `MeterSettings` and `Faults`, and idle_a, active_a, voltage_v, resistance_ohm of
    `CpuTimeSupply`.
    """
    command = [sys.executable, "-m", "agent.emulator.meter", kind, "--follow-pid", str(follow_pid), "--controlled"]
    command += ["--rate-hz", str(rate_hz)]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    ready, _, _ = select.select([process.stdout], [], [], START_S)
    port = process.stdout.readline().strip() if ready else ""
    if not port:
        process.kill()
        raise BadInputError(f"The emulated meter {kind} did not start: {process.communicate()[1].strip() or 'no port'}")
    process.stderr.close()
    return EmulatedMeterProcess(process, port, kind, rate_hz)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgelut-agent emulate-meter", description=__doc__)
    parser.add_argument("kind", choices=protocols())
    parser.add_argument("--follow-pid", type=int, default=0, help="process whose CPU time makes the current")
    parser.add_argument("--with-children", action="store_true", help="also what that process starts")
    rates = ", ".join(f"{kind} {rate_hz:g}" for kind, rate_hz in RATES_HZ.items())
    parser.add_argument(
        "--rate-hz",
        type=float,
        help=f"new values a second; lag and delay shrink with it (default: {rates}, others {RATE_HZ:g})",
    )
    parser.add_argument("--link", type=Path, help="a symbolic link to keep on the port, also after a replug")
    parser.add_argument("--controlled", action="store_true", help="obey `follow PID` on standard input; end at its end")
    for name, default in (("idle", 0.24), ("active", 0.5)):
        parser.add_argument(f"--{name}", f"--{name}-a", dest=f"{name}_a", type=float, default=default)
    parser.add_argument("--voltage-v", type=float, default=5.1)
    parser.add_argument("--resistance-ohm", type=float, default=0.12)
    faults = {field.name for field in dataclasses.fields(Faults)}
    for field in (*dataclasses.fields(MeterSettings), *dataclasses.fields(Faults)):
        if field.name == "seed" and field.type == "int" and "--seed" in parser._option_string_actions:
            continue
        convert = int if field.type == "int" else float
        what = "fault" if field.name in faults else "meter"
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=convert, help=f"{what} (default {field.default})")
    return parser


def _given(arguments: argparse.Namespace, of: type) -> dict[str, float]:
    """The fields of a settings class that stand on the command line."""
    names = (field.name for field in dataclasses.fields(of))
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _checked(arguments: argparse.Namespace) -> tuple[MeterSettings, Faults]:
    """What the command line asks for; BadInputError when no emulated meter can have it."""
    what = f"emulated {arguments.kind}"
    rate_hz = RATES_HZ.get(arguments.kind, RATE_HZ) if arguments.rate_hz is None else arguments.rate_hz
    board = {name: getattr(arguments, name) for name in ("idle_a", "active_a", "voltage_v", "resistance_ohm")}
    check_numbers({"rate_hz": rate_hz, **board}, what)
    if not arguments.controlled:  # a process that another program follows may have ended meanwhile
        check_process(arguments.follow_pid, what)
    settings = MeterSettings.at_rate(rate_hz, **_given(arguments, MeterSettings))
    faults = Faults(**_given(arguments, Faults))  # type: ignore[arg-type]  # int and float as the fields say
    check_settings(settings, faults, what)
    return settings, faults


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the parent, or for long the followed process, is gone."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        settings, faults = _checked(arguments)
    except BadInputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    supply = CpuTimeSupply(
        arguments.follow_pid,
        arguments.idle_a,
        arguments.active_a,
        arguments.voltage_v,
        arguments.resistance_ohm,
        children=arguments.with_children,
    )
    meter = PtyMeter(MeterModel(supply, settings), MonotonicClock(), arguments.kind, faults, arguments.link)
    print(meter.port, flush=True)
    try:
        _wait(supply, arguments.controlled)
    except KeyboardInterrupt:
        pass
    finally:
        meter.close()
    return 0


def _wait(supply: CpuTimeSupply, controlled: bool) -> None:
    ended = threading.Event()
    if controlled:
        threading.Thread(target=_obey, args=(supply, ended), daemon=True).start()
    seen_s = time.monotonic()
    while not ended.wait(0.5):
        if supply.alive or not supply.pid:
            seen_s = time.monotonic()
        elif time.monotonic() - seen_s > ORPHAN_S:
            return


def _obey(supply: CpuTimeSupply, ended: threading.Event) -> None:
    for line in sys.stdin:
        word, _, pid = line.partition(" ")
        if word == "follow" and pid.strip().isdecimal():
            supply.follow(int(pid))
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
