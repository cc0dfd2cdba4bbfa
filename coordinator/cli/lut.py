"""`coordinator lut`: the tables themselves."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
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
    one_of,
    print_json,
    query,
)
from coordinator.units import NOT_KNOWN, percent
from protos.errors import BadInputError
from protos.types import Configuration, LutSummary, RunSpec

if TYPE_CHECKING:
    from rich.table import Table

    from lut_store.lut import Lut

app = typer.Typer(help="Build, list, show, compare, tag, export, plot and validate LUTs.", no_args_is_help=True)
EMULATED = {"none": "", "meter": "meter", "device": "device"}
VIEWS = ("grid", "cells", "none")
PLOTS = ("heatmap", "validation")
FILE_ENDINGS = (".lut", ".json", ".parquet")
RUNTIME, PRECISION = Configuration.runtime, Configuration.precision  # the ones that agents know


@app.command("list")
def list_(
    reference: Annotated[str, typer.Argument(metavar="[REF]", help=r"Only these: TYPE\[/SPACE]\[@VERSION|@TAG].")] = "",
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the LUT versions with their configuration and measured error.

    [bold]Examples[/bold]

    coordinator lut list

    coordinator lut list rpi3b --context cold --json
    """
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        found = link.client.luts(query(reference, Filters(context, threads, batch, emulation, runtime, precision)))
    if as_json:
        print_json([{"reference": reference_of(lut), **asdict(lut)} for lut in found])
    elif found:
        console().print(table(found))
    else:
        print("No LUT yet that fits. Make one: coordinator profile --device local")


@app.command()
def show(
    reference: ReferenceArgument,
    view: Annotated[
        str, typer.Option("--view", metavar="|".join(VIEWS), help="Layers × candidates, one row per cell, or neither.")
    ] = "grid",
    by_device: Annotated[
        bool, typer.Option("--by-device", metavar="", help="What each board measured, and how far boards are apart.")
    ] = False,
    estimated: Annotated[
        bool,
        typer.Option("--estimated", metavar="", help="Fill missing cells with guesses, and say how good they are."),
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
    """Show what a LUT holds, how true it is and where it comes from.

    [bold]Examples[/bold]

    coordinator lut show rpi3b/fbnet-cifar10

    coordinator lut show local@2 --threads 1 --view cells

    coordinator lut show lut.json --json
    """
    one_of("view", view, VIEWS)
    from coordinator.cli.lut_lint import fetch_linted, section

    found, findings = fetch_linted(
        reference, Filters(context, threads, batch, emulation, runtime, precision), coordinator
    )
    if by_device:
        show_by_device(found, as_json=as_json)
        return
    if estimated:
        found = found.estimated()
    if as_json:
        from lut_store.document import to_document

        print_json({"reference": found.reference, **to_document(found), "lint": [asdict(own) for own in findings]})
        return
    from coordinator.cli import show as tables

    out = console()
    parts = [tables.heading(found), tables.summary(found)]
    if view == "grid":
        parts += [tables.grid(found, name) for name in tables.measured_names(found)]
    if view == "cells":
        parts.append(tables.cells(found))
    for part in [*parts, tables.validation(found), section(found, findings), tables.provenance(found)]:
        out.print(part)
        out.print()


def show_by_device(found: Lut, *, as_json: bool) -> None:
    """Each board of the LUT."""
    from coordinator.cli import lut_boards, show

    if as_json:
        print_json(lut_boards.record(found))
        return
    out = console()
    for part in [show.heading(found), *lut_boards.tables(found)]:
        out.print(part)
        out.print()


@app.command()
def plot(
    reference: ReferenceArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture's file.")],
    kind: Annotated[
        str,
        typer.Option("--kind", metavar="|".join(PLOTS), help="What to draw: all cells, or predicted against measured."),
    ] = "heatmap",
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
) -> None:
    """Draw a LUT as a heat map, or its predictions against the measured networks.

    [bold]Examples[/bold]

    coordinator lut plot rpi3b --output heatmap.png

    coordinator lut plot rpi3b --kind validation --output validation.png
    """
    one_of("kind of plot", kind, PLOTS)
    found = fetch(reference, Filters(context, threads, batch, emulation, runtime, precision), coordinator)
    from coordinator import plots

    draw = {"heatmap": plots.heatmap, "validation": plots.validation_plot}[kind]
    draw(found, output)
    print(f"{found.reference}: {kind} is in {output}")


@app.command()
def validate(
    reference: ReferenceArgument,
    device: Annotated[
        str,
        typer.Option("--device", "-d", metavar="D", help="A device type, a device's name, or `local`: this machine."),
    ],
    preset: Annotated[
        str,
        typer.Option("--preset", "-p", metavar="quick|standard|thorough", help="How many networks, and how exactly."),
    ] = "quick",
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Of the networks. Default: a new one.")] = None,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    detach: Annotated[
        bool, typer.Option("--detach", metavar="", help="Print the run's id and return; needs a daemon.")
    ] = False,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Measure fresh networks on the device and compare them with what a stored LUT predicts.

    Networks are called exactly as the LUT's configuration says. Errors are given as the LUT stands, and rescaled
    by the anchor networks, which every run measures and which tell how far the device has moved.

    [bold]Examples[/bold]

    coordinator lut validate local/fbnet-cifar10 --device local

    coordinator lut validate rpi3b@4 --device pi-02 --preset standard
    """
    if is_file(reference):
        raise BadInputError(
            f"{reference} is a file: validate a version that the coordinator holds, so that it can be named"
        )
    from coordinator.cli.connect import connected
    from coordinator.cli.profile import check_detach, run_on

    with connected(coordinator) as link:
        found = link.client.lut(
            **asdict(query(reference, Filters(context, threads, batch, emulation, runtime, precision)))
        )
        if detach:
            check_detach(link, device)
        run_on(link, validation_run(found, device, preset, seed), detach=detach, as_json=as_json)


def validation_run(lut: Lut, device: str, preset: str, seed: int | None) -> RunSpec:
    """A run that measures networks as the LUT's configuration says, with a seed of their own."""
    from coordinator.plan import make_run

    own = lut.configuration
    if own.runtime != RUNTIME or own.precision != PRECISION:
        raise BadInputError(
            f"{lut.reference} is for {own.runtime} {own.precision}; agents measure {RUNTIME} {PRECISION}"
        )
    return make_run(
        lut.space,
        device,
        preset=preset,
        context=own.context,
        threads=own.threads,
        meter="none",
        energy=False,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
        purpose="validate",
        lut_digest=lut.digest,
    )


def is_file(reference: str) -> bool:
    """Whether the reference names a file: it ends like a LUT file, or there is one of that name."""
    path = Path(reference)
    return path.suffix.lower() in FILE_ENDINGS or (path.is_file() and path.suffix != "")


def fetch(reference: str, filters: Filters, coordinator: str) -> Lut:
    """The one LUT that fits, from the coordinator; or that of the file `reference`."""
    if is_file(reference):
        if filters != Filters():
            raise BadInputError(
                f"{reference} is a file and holds one LUT: leave out the options that choose among several"
            )
        from lut_store.lut import Lut

        return Lut.load(reference)
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        return link.client.lut(**asdict(query(reference, filters)))


def reference_of(summary: LutSummary) -> str:
    return f"{summary.device_type}/{summary.space}@{summary.version}"


def table(luts: Sequence[LutSummary]) -> Table:
    """One row per version; errors are of the corrected sums against held-out networks."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="dim")
    columns = ("reference", "tags", "emulated", "context", "threads", "batch", "method", "latency MAPE", "energy MAPE")
    for column in (*columns, "made"):
        right = column in ("threads", "batch", "latency MAPE", "energy MAPE")
        found.add_column(column, no_wrap=True, justify="right" if right else "left")
    for lut in luts:
        found.add_row(
            reference_of(lut),
            ", ".join(lut.tags),
            EMULATED.get(lut.emulation, lut.emulation),
            lut.context,
            str(lut.threads),
            str(lut.batch),
            lut.method or NOT_KNOWN,
            percent(lut.latency_mape, sign=False),
            percent(lut.energy_mape, sign=False),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(lut.created_wall_s)),
        )
    return found
