"""What several commands share: options, references, consoles and JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protos.errors import unknown
from protos.types import CONTEXTS, EMULATIONS, LutQuery

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 160  # of tables where there is no terminal, so that pipes and files get whole lines

CoordinatorOption = Annotated[
    str,
    typer.Option(
        "--coordinator",
        envvar="EDGELUT_COORDINATOR",
        metavar="HOST:PORT",
        help="Where the coordinator is. Default: a daemon on 127.0.0.1:7443, else the embedded database.",
        rich_help_panel="Where",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON on stdout instead of tables.")]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF", help=r"TYPE\[/SPACE]\[@VERSION|@TAG], for example rpi3b/fbnet-cifar10@3; or a LUT file."
    ),
]
WHICH = "Which configuration, when there are several"
ContextFilter = Annotated[
    str, typer.Option("--context", metavar="|".join(CONTEXTS), help="Its context.", rich_help_panel=WHICH)
]
ThreadsFilter = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="Its number of threads.", rich_help_panel=WHICH)
]
BatchFilter = Annotated[
    int | None, typer.Option("--batch", min=1, metavar="N", help="Its batch size.", rich_help_panel=WHICH)
]
RuntimeFilter = Annotated[str, typer.Option("--runtime", metavar="NAME", help="Its runtime.", rich_help_panel=WHICH)]
PrecisionFilter = Annotated[
    str, typer.Option("--precision", metavar="NAME", help="Its precision.", rich_help_panel=WHICH)
]
EmulationFilter = Annotated[
    str,
    typer.Option("--emulation", metavar="|".join(EMULATIONS), help="What of it is emulated.", rich_help_panel=WHICH),
]


@dataclass(frozen=True)
class Filters:
    """The options that choose one of several configurations; what is empty matches anything."""

    context: str = ""
    threads: int | None = None
    batch: int | None = None
    emulation: str = ""
    runtime: str = ""
    precision: str = ""


def query(reference: str, filters: Filters) -> LutQuery:
    """The reference with the options that choose among configurations; an empty reference matches all."""
    from lut_store.reference import parse_reference

    one_of("context", filters.context, CONTEXTS, empty=True)
    one_of("emulation", filters.emulation, EMULATIONS, empty=True)
    parsed = parse_reference(reference) if reference else LutQuery()
    return dataclasses.replace(parsed, **dataclasses.asdict(filters))


def one_of(what: str, value: str, allowed: tuple[str, ...], *, empty: bool = False) -> None:
    """Raise BadInputError, with the nearest name, unless `value` is one of `allowed` (or empty, where `empty`)."""
    if value not in allowed and not (empty and not value):
        raise unknown(what, value, allowed)


def console(*, stderr: bool = False) -> Console:
    """A Rich console; wide where there is no terminal."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    return (
        found
        if found.is_terminal
        else Console(stderr=stderr, highlight=False, emoji=False, markup=False, width=PLAIN_WIDTH)
    )


def print_json(value: Any) -> None:
    """Dataclasses, lists of them, or plain values, as indented JSON on stdout."""
    json.dump(value, sys.stdout, indent=2, default=_plain, ensure_ascii=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
