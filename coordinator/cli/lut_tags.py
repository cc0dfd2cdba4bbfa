"""`coordinator lut tag` and `coordinator lut tags`: names for versions, that move and remember where they were."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.options import (
    BatchFilter,
    ContextFilter,
    CoordinatorOption,
    EmulationFilter,
    Filters,
    JsonOption,
    PrecisionFilter,
    ReferenceArgument,
    RuntimeFilter,
    ThreadsFilter,
    console,
    print_json,
    query,
)
from protos.errors import BadInputError
from protos.types import TagMove

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_MAX_MAPE = 5.0  # percent; lut_store.stable.MAX_MAPE


def tag(
    reference: ReferenceArgument,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="`stable`, or a name of your own: letters, digits, dots, dashes.")
    ],
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Set `stable` in spite of objections; the history keeps them.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")] = "",
    max_mape: Annotated[
        float,
        typer.Option(
            "--max-mape", metavar="PERCENT", help="The largest error on whole networks of a `stable` version."
        ),
    ] = DEFAULT_MAX_MAPE,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Point a tag at a version. The version does not change; the tag keeps the history of where it pointed.

    `stable` is refused, with every reason, to data of emulated devices, to tables with holes, to errors of lint, and to
    versions that were not validated or miss whole networks by more than --max-mape. `latest` moves by itself.

    [bold]Examples[/bold]

    coordinator lut tag rpi3b/fbnet-cifar10@3 stable --reason "new heat sink"

    coordinator lut tag rpi3b/fbnet-cifar10@3 paper-v1
    """
    from coordinator.cli.connect import connected
    from coordinator.cli.lut import is_file
    from lut_store.reference import check_tag

    check_tag(name)
    if is_file(reference):
        raise BadInputError(f"{reference} is a file; tags point at versions that a coordinator holds: import it first")
    wanted = query(reference, Filters(context, threads, batch, emulation, runtime, precision))
    with connected(coordinator) as link:
        moved = link.client.move_tag(
            wanted, name, moved_by=whoami(), reason=reason, force=force, max_mape=max_mape / 100
        )
    if as_json:
        print_json(record(moved))
        return
    before = f", before that at version {moved.previous_version}" if moved.previous_version else ""
    print(f"{moved.device_type}/{moved.space}@{name} points at version {moved.version}{before}")
    if moved.forced:
        print("Forced, which the history says, although:")
        for objection in moved.objections:
            print(f"  - {objection}")


def tags(
    reference: Annotated[str, typer.Argument(metavar="[REF]", help=r"Only these: TYPE\[/SPACE]\[@TAG|@VERSION].")] = "",
    history: Annotated[
        bool, typer.Option("--history", metavar="", help="Every move, newest first: when, by whom, why.")
    ] = False,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the tags and where they point.

    [bold]Examples[/bold]

    coordinator lut tags rpi3b/fbnet-cifar10

    coordinator lut tags rpi3b@stable --history --json
    """
    from coordinator.cli.connect import connected

    wanted = query(reference, Filters(context, threads, batch, emulation, runtime, precision))
    with connected(coordinator) as link:
        found = link.client.tags(wanted, history=history)
    if as_json:
        print_json([record(move) for move in found])
    elif found:
        console().print(table(found))
        for note in forced(found):
            console().print(note, style="yellow")
    elif reference:
        print(f"No tag points at {reference}.")
    else:
        print("No tag yet, because there is no LUT. Make one: coordinator profile --device local")


def whoami() -> str:
    """``ada@lab-pc``: who moves a tag, where no certificate says it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def record(move: TagMove) -> dict[str, object]:
    """For JSON, with the version as people write it."""
    return {"reference": f"{move.device_type}/{move.space}@{move.version}", **asdict(move)}


def table(moves: Sequence[TagMove]) -> Table:
    """One row per move."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("tag", "version", "before", "emulated", "context", "threads", "moved", "by", "why"):
        found.add_column(
            column, no_wrap=column != "why", justify="right" if column in ("version", "before") else "left"
        )
    for move in moves:
        found.add_row(
            f"{move.device_type}/{move.space}@{move.name}",
            str(move.version),
            str(move.previous_version or ""),
            "" if move.emulation == "none" else move.emulation,
            move.context,
            str(move.threads),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(move.moved_wall_s)),
            move.moved_by,
            f"forced: {move.reason}".removesuffix(": ") if move.forced else move.reason,
        )
    return found


def forced(moves: Sequence[TagMove]) -> list[str]:
    """What stood against the moves that were forced."""
    return [
        f"{move.name} → {move.version} was forced, although {'; '.join(move.objections)}"
        for move in moves
        if move.forced
    ]
