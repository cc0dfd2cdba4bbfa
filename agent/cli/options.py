"""The options of the commands that run once (agent/cli); argparse, as in agent/options.py."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from protos.errors import BadInputError

if TYPE_CHECKING:
    from agent.options import Parser

COMMANDS = ("meters", "monitor", "calibrate", "doctor")
CALIBRATE_S, LEAST_CALIBRATE_S = 120.0, 4.0
DOCTOR_S, LEAST_DOCTOR_S = 60.0, 1.0

METERS_EXAMPLES = """examples:
  edgelut-agent meters
  edgelut-agent meters /dev/ttyAMA0 --json
"""
MONITOR_EXAMPLES = """examples:
  edgelut-agent monitor --meter um25c:/dev/rfcomm0
  edgelut-agent monitor --meter auto --duration 60 --output idle.csv
"""
CALIBRATE_EXAMPLES = """examples:
  edgelut-agent calibrate --meter tc66c:/dev/ttyACM0
  edgelut-agent calibrate --meter "emulated:?kind=smartpower3" --duration 30
"""
DOCTOR_EXAMPLES = """examples:
  edgelut-agent doctor
  edgelut-agent doctor --meter um25c:/dev/rfcomm0 --seconds 20 --json
"""


def add_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the parsers of the four commands."""
    from agent.options import Parser  # which imports this module

    shared = Parser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    shared.add_argument("-v", "--verbose", action="store_true", help="log what happens in detail")
    stored = Parser(add_help=False)
    add_calibrations(stored)
    _add_meters(commands, [shared, stored])
    _add_monitor(commands, [shared])
    _add_calibrate(commands, [shared, stored])
    _add_doctor(commands, [shared, stored])


def add_calibrations(parser: argparse.ArgumentParser) -> None:
    """The folder that `calibrate` writes to and `run` reads."""
    parser.add_argument(
        "--calibrations",
        type=Path,
        metavar="DIR",
        help="where the meters' calibrations are; default: EDGELUT_CALIBRATIONS, else the state directory",
    )


def _add_meters(commands: argparse._SubParsersAction[Parser], parents: list[Parser]) -> None:
    meters = commands.add_parser(
        "meters",
        parents=parents,
        help="list the meters that are plugged in",
        description="Ask every port where a meter may be, and list what answers; what cannot be asked says why.",
        epilog=METERS_EXAMPLES,
    )
    meters.add_argument("ports", nargs="*", metavar="PORT", help="ask these ports alone, also ones that are not USB")


def _add_monitor(commands: argparse._SubParsersAction[Parser], parents: list[Parser]) -> None:
    monitor = commands.add_parser(
        "monitor",
        parents=parents,
        help="voltage, current and power of a meter, live",
        description="Show voltage, current and power of a meter with a plot until Ctrl-C, and write them to a file.\n"
        "A file appears under its name when it is complete; until then it is FILE.part.",
        epilog=MONITOR_EXAMPLES,
    )
    _add_meter(monitor, required=True)
    _add_seconds(monitor, "--duration", None, "end after so many seconds; default: with Ctrl-C")
    monitor.add_argument(
        "-o", "--output", type=Path, metavar="FILE.csv|FILE.parquet", help="write all samples; the ending says how"
    )


def _add_calibrate(commands: argparse._SubParsersAction[Parser], parents: list[Parser]) -> None:
    calibrate = commands.add_parser(
        "calibrate",
        parents=parents,
        help="measure a meter's lag, noise and real rate",
        description="Load this board and let it rest in turn, and find from the meter's answer how late, how noisy\n"
        "and how fast it is. Stored per meter; `run` names it in every table. Let nothing else run meanwhile.",
        epilog=CALIBRATE_EXAMPLES,
    )
    _add_meter(calibrate, required=True)
    _add_seconds(calibrate, "--duration", CALIBRATE_S, f"of the square wave; default: {CALIBRATE_S:g} s")
    calibrate.add_argument(
        "--threads", type=int, metavar="N", help="cores to load; default: all but one, which reads the meter"
    )


def _add_doctor(commands: argparse._SubParsersAction[Parser], parents: list[Parser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        parents=parents,
        help="check this board and its meter, and forecast what they can measure",
        description="Check this board, under full load for a minute, and its meter; say of each check what to do, and\n"
        "how exact a table will be. Exit status 0 when no check fails, 1 when one does.",
        epilog=DOCTOR_EXAMPLES,
    )
    _add_meter(doctor, required=False)
    _add_seconds(doctor, "--seconds", DOCTOR_S, f"of full load; default: {DOCTOR_S:g}")


def _add_meter(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--meter",
        required=required,
        default="none",
        metavar="KIND:PORT|auto|emulated",
        help="the power meter" if required else "the power meter; default: none, and no forecast",
    )


def _add_seconds(parser: argparse.ArgumentParser, name: str, default: float | None, text: str) -> None:
    parser.add_argument(name, type=float, default=default, metavar="SECONDS", help=text)


def check(options: argparse.Namespace) -> None:
    """Raises BadInputError for values that cannot be."""
    if options.command in ("monitor", "calibrate") and options.meter == "none":
        raise BadInputError(f"{options.command} needs a meter: --meter KIND:PORT (`edgelut-agent meters` lists them)")
    if options.command == "monitor":
        _check_seconds("--duration", options.duration, 0.1)
        _check_output(options.output)
    if options.command == "calibrate":
        _check_seconds("--duration", options.duration, LEAST_CALIBRATE_S)
        cores = len(os.sched_getaffinity(0))
        if options.threads is not None and not 1 <= options.threads <= cores:
            raise BadInputError(f"--threads is {options.threads}; this board has {cores} cores to load")
    if options.command == "doctor":
        _check_seconds("--seconds", options.seconds, LEAST_DOCTOR_S)


def _check_seconds(name: str, seconds: float | None, least: float) -> None:
    if seconds is not None and not (math.isfinite(seconds) and seconds >= least):
        raise BadInputError(f"{name} is {seconds:g}; it must be at least {least:g} seconds")


def _check_output(output: Path | None) -> None:
    if output is None:
        return
    if output.suffix.lower() not in (".csv", ".parquet"):
        raise BadInputError(f"--output {output}: the ending must be .csv or .parquet")
    if output.is_dir() or not output.absolute().parent.is_dir():
        what = "is a folder" if output.is_dir() else "is in a folder that does not exist"
        raise BadInputError(f"--output {output} {what}")
