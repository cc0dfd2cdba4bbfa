"""What several commands share: where a LUT comes from, consoles and JSON."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protos.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from lut_store.lut import Lut
    from protos.types import SearchSpace

FILE_ENDINGS = (".lut", ".json", ".parquet")
PLAIN_WIDTH = 160  # of tables where there is no terminal, so that pipes and files get whole lines

LutOption = Annotated[
    str,
    typer.Option(
        "--lut", metavar="REF|FILE", help=r"TYPE\[/SPACE]\[@VERSION], for example rpi3b/fbnet-cifar10@3; or a LUT file."
    ),
]
CoordinatorOption = Annotated[
    str,
    typer.Option(
        "--coordinator",
        envvar="EDGELUT_COORDINATOR",
        metavar="HOST:PORT",
        help="Where a LUT that is no file comes from. Default: 127.0.0.1:7443.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON on stdout instead of tables.")]


def load_lut(reference: str, coordinator: str) -> Lut:
    """The LUT of a file, or the one that the coordinator has under that reference."""
    path = Path(reference)
    if path.suffix.lower() in FILE_ENDINGS or (path.is_file() and path.suffix):
        from lut_store.lut import Lut

        return Lut.load(path)
    from coordinator.client import Coordinator
    from lut_store.reference import LATEST, parse_reference

    query = parse_reference(reference)
    with Coordinator(coordinator or None) as client:
        return client.lut(query.device_type, query.space, query.version or LATEST)


def origin(lut: Lut) -> dict[str, Any]:
    """What every answer in JSON says of the LUT that it rests on."""
    return {"lut": lut.reference, "lut_digest": lut.digest, "fixed_included": lut.fixed_included}


def notice(lut: Lut) -> str:
    """What a reader of a cost must know; "" when there is nothing."""
    words = [] if lut.fixed_included else ["stem and head are not included in this LUT, nor in any cost below"]
    words += [] if lut.configuration.emulation == "none" else [f"emulated: {lut.configuration.emulation}"]
    return "; ".join(words)


def names_of(space: SearchSpace, choices: Sequence[int]) -> str:
    """The candidates of an architecture by name, runs of equal ones counted."""
    parts: list[list[Any]] = []
    for op in choices:
        if parts and parts[-1][0] == op:
            parts[-1][1] += 1
        else:
            parts.append([op, 1])
    return " ".join(space.op_names[op] + (f"×{count}" if count > 1 else "") for op, count in parts)


def console() -> Console:
    """A Rich console; wide where there is no terminal."""
    from rich.console import Console

    found = Console(highlight=False, emoji=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, emoji=False, markup=False, width=PLAIN_WIDTH)


def table(*columns: str) -> Table:
    """The first column on the left, numbers on the right."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        found.add_column(column, justify="right" if index else "left", no_wrap=True)
    return found


def print_json(value: Any) -> None:
    """Plain values as indented JSON on stdout; a number that is not finite is null."""
    json.dump(_finite(value), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def not_negative(option: str, value: float) -> None:
    """Raises BadInputError for an option that is negative, infinite or NaN."""
    if not (math.isfinite(value) and value >= 0):
        raise BadInputError(f"{option} is {value}; it must be a finite number, zero or more")
