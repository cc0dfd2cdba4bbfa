"""The options of `edgelut-agent`, with argparse: typer and what it loads cost a third of the daemon's memory."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import socket
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from agent.cli.options import COMMANDS, add_calibrations, add_commands
from agent.cli.options import check as check_command
from agent.config import with_config
from agent.meters import kinds
from agent.meters.spec import parse_spec
from protos.errors import BadInputError, unknown

DEFAULT_COORDINATOR = "127.0.0.1:7443"
NO_METER, EMULATED_METER = "none", "emulated"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

RUN_EXAMPLES = """examples:
  edgelut-agent run --coordinator 192.168.1.5:7443 --device-type rpi3b
  edgelut-agent run --device-type rpi3b --name pi-01 --meter um25c:/dev/rfcomm0
"""
ENROLL_EXAMPLES = """examples:
  edgelut-agent enroll --token edgelut1.WyIxOTIuMTY4LjEuNTo3NDQzIi…
"""
EMULATE_EXAMPLES = """examples:
  edgelut-agent emulate --device-type rpi3b
  edgelut-agent emulate --device-type rpi4 --count 8 --speed 20
  edgelut-agent emulate --device-type rpi3b --meter "tc66c?unplug_after_s=60&replug_after_s=5"
"""
METER_EXAMPLES = """examples:
  edgelut-agent emulate-meter um25c --idle 0.24 --follow-pid 4711
  edgelut-agent emulate-meter --help
"""


class Parser(argparse.ArgumentParser):
    """Names the nearest option or command when one does not exist; help keeps the examples' lines."""

    def __init__(self, *arguments: object, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # passed on as they came

    def error(self, message: str) -> NoReturn:
        parsers = [self, *(parser for action in self._actions for parser in _commands(action))]
        guess = _nearest(message, [option for parser in parsers for option in parser._option_string_actions])
        self.exit(2, f"{self.prog}: {message}{guess}\n{self.format_usage()}Try '{self.prog} --help'.\n")


def _commands(action: argparse.Action) -> list[argparse.ArgumentParser]:
    """The parsers of the commands, when this action is the choice of one."""
    return list(action.choices.values()) if isinstance(action, argparse._SubParsersAction) else []


def _nearest(message: str, options: Sequence[str]) -> str:
    """For argparse's own sentences about what it does not know."""
    choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if choice:
        return _guess(choice[1], re.findall(r"[\w.-]+", choice[2]))
    stray = re.search(r"unrecognized arguments: (-\S+)", message)
    return _guess(stray[1].partition("=")[0], options) if stray else ""


def _guess(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its checked options. Raises BadInputError; exits for --help and what cannot be read."""
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if arguments[0] == "emulate-meter":  # its options are the emulator's own
        return argparse.Namespace(command="emulate-meter", arguments=list(arguments[1:]))
    options = parser.parse_args(with_config(arguments) if arguments[0] == "run" else arguments)
    if options.command in COMMANDS:
        if options.command != "meters":
            check_meter(options.meter)
        check_command(options)
        return options
    if options.command == "enroll":
        if options.meter:
            check_meter(options.meter)
        return options
    check_address(options.coordinator)
    if options.command == "run":
        options.name = options.name or host_name()
        check_name("--name", options.name)
        check_name("--device-type", options.device_type)
        check_meter(options.meter)
        options.state_dir = options.state_dir or default_state_dir(options.name)
        options.identity = options.identity or certificate_directory(options.name)
    return options


def _parser() -> Parser:
    parser = Parser(
        prog="edgelut-agent",
        description="The daemon on a board: measures blocks and networks for a coordinator, and reads the power meter.",
        epilog="Without hardware, start with:  edgelut-agent emulate --device-type rpi3b",
    )
    parser.add_argument("--version", action="version", version=f"edgelut {metadata.version('edgelut')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared = Parser(add_help=False)
    shared.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        default=os.environ.get("EDGELUT_COORDINATOR") or DEFAULT_COORDINATOR,
        help=f"where the coordinator is; default: EDGELUT_COORDINATOR, else {DEFAULT_COORDINATOR}",
    )
    shared.add_argument("-v", "--verbose", action="store_true", help="log what happens in detail")
    _add_run(commands, shared)
    _add_certificates(commands, shared)
    _add_emulate(commands, shared)
    add_commands(commands)
    commands.add_parser(
        "emulate-meter", help="an emulated power meter on a pseudo-terminal; prints its port", epilog=METER_EXAMPLES
    )
    return parser


def _add_run(commands: argparse._SubParsersAction[Parser], shared: Parser) -> None:
    run = commands.add_parser(
        "run",
        parents=[shared],
        help="measure on this board",
        description="Measure on this board for a coordinator, until Ctrl-C or SIGTERM. A coordinator that is not\n"
        "there (yet) is waited for. What was measured waits on the disk until it is acknowledged.",
        epilog=RUN_EXAMPLES,
    )
    run.add_argument("-t", "--device-type", metavar="TYPE", required=True, help="what this board is, as in rpi3b")
    run.add_argument("-n", "--name", default="", help="this board's name; default: the host's")
    run.add_argument(
        "--meter", default=NO_METER, metavar="KIND:PORT|auto|emulated|none", help="the power meter; default: none"
    )
    run.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where measurements wait; default: the XDG state directory, by name",
    )
    run.add_argument(
        "--config", type=Path, metavar="FILE", help="a TOML file with these options; those of the command line win"
    )
    run.add_argument(
        "--identity", type=Path, metavar="DIR", help="this board's certificate; default: where `enroll` puts it"
    )
    run.add_argument(
        "--once", action="store_true", help="end when the coordinator, or the process that started this one, is gone"
    )
    add_calibrations(run)


def _add_certificates(commands: argparse._SubParsersAction[Parser], shared: Parser) -> None:
    enroll = commands.add_parser(
        "enroll",
        help="get this board's certificate with a token",
        description="Exchange a token for this board's certificate. The key is made here and never leaves.",
        epilog=ENROLL_EXAMPLES,
    )
    enroll.add_argument("--token", required=True, help="what `coordinator enroll` printed; it works once")
    enroll.add_argument("--identity", type=Path, metavar="DIR", help="where to keep it; default: the state directory")
    enroll.add_argument("--write-config", type=Path, metavar="FILE", help="also write the settings for `run --config`")
    enroll.add_argument("--meter", default="", metavar="KIND:PORT|auto", help="the meter to write there")
    enroll.add_argument("-v", "--verbose", action="store_true", help="log what happens in detail")
    renew = commands.add_parser(
        "renew",
        parents=[shared],
        help="get the next certificate; the daemon does this by itself",
        description="Get this board's next certificate. The daemon does this by itself long before the old one ends.",
    )
    renew.add_argument("--identity", type=Path, metavar="DIR", required=True, help="where the certificate is")


def _add_emulate(commands: argparse._SubParsersAction[Parser], shared: Parser) -> None:
    emulate = commands.add_parser(
        "emulate",
        parents=[shared],
        help="emulated Pis with emulated meters",
        description="Emulated Pis with emulated meters, to try the whole system without hardware.",
        epilog=EMULATE_EXAMPLES,
    )
    emulate.add_argument("-t", "--device-type", metavar="rpi3b|rpi4", required=True, help="what to emulate")
    emulate.add_argument("-c", "--count", type=int, default=1, help="how many boards; default: 1")
    emulate.add_argument("--speed", type=float, default=1.0, help="device time passes so much faster; default: 1")
    emulate.add_argument("--seed", type=int, default=0, help="boards of the same seed are the same boards; default: 0")
    emulate.add_argument("-n", "--name", default="", help="the board's name, when there is one; default: TYPE-emu-N")
    emulate.add_argument("--identity", type=Path, metavar="DIR", help="its certificate, when there is one board")
    emulate.add_argument(
        "--meter", default=EMULATED_METER, metavar="KIND|none", help="each board's meter and its faults; default: um25c"
    )


def host_name() -> str:
    """This host's name as a device's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")[:64] or "board"


def default_state_dir(name: str) -> Path:
    """systemd's state directory, else the user's, by the board's name."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.partition(":")[0]) / "spool"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgelut" / name


def certificate_directory(name: str) -> Path:
    """Where the certificate of the board of this name is, or would be."""
    given = os.environ.get("STATE_DIRECTORY")
    return Path(given.partition(":")[0]) / "identity" if given else default_state_dir(name) / "identity"


def check_name(option: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"{option} is {name[:80]!r}; it must be 1 to 64 letters, digits, dots, dashes or underscores and begin "
            "with a letter or digit"
        )


def check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadInputError(f"--coordinator is {address!r}; write HOST:PORT, for example 192.168.1.5:7443")


def check_meter(meter: str) -> None:
    kind = parse_spec(meter).kind
    if meter != NO_METER and kind not in kinds():
        raise unknown("meter", kind, (NO_METER, *kinds()))
