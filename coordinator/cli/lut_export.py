"""`coordinator lut export`: a LUT as a file of ours, or as a table that other programs read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.lut import fetch
from coordinator.cli.lut_import import FORMATS, PAIRS
from coordinator.cli.options import (
    BatchFilter,
    ContextFilter,
    CoordinatorOption,
    EmulationFilter,
    Filters,
    PrecisionFilter,
    ReferenceArgument,
    RuntimeFilter,
    ThreadsFilter,
    one_of,
)
from protos.errors import BadInputError


def export(
    reference: ReferenceArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Ends in .lut, .json, .parquet (whole) or .csv (table); of a pair of tables, the latencies.",
        ),
    ],
    format_: Annotated[
        str,
        typer.Option("--format", metavar="|".join(FORMATS), help="What to write. Default: what FILE's ending says."),
    ] = "",
    energy: Annotated[
        Path | None,
        typer.Option("--energy", metavar="FILE", help=f"Where the energies go, of a pair ({', '.join(PAIRS)})."),
    ] = None,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
) -> None:
    """Write a LUT into a file, in the format of its ending or the one that is named.

    .lut, .json and .parquet hold everything: Lut.load(FILE) reads them without a coordinator. Tables for other programs
    hold the numbers as measured; what such a format has no place for is said.

    [bold]Examples[/bold]

    coordinator lut export rpi3b/fbnet-cifar10@3 --output pi.lut

    coordinator lut export local --threads 2 --output local.csv

    coordinator lut export rpi3b --format hanna --output speed.txt --energy energy.txt

    coordinator lut export rpi3b --format ofa --output latency.yaml --energy energy.yaml
    """
    if format_:
        one_of("format", format_, FORMATS)
    if energy is not None and format_ not in PAIRS:
        raise BadInputError(f"--energy is for a pair of tables: say which with --format {'|'.join(PAIRS)}")
    found = fetch(reference, Filters(context, threads, batch, emulation, runtime, precision), coordinator)
    written: tuple[Path, ...] = (output,)
    if format_ in PAIRS:
        from lut_store.formats import tables

        dumped = tables.dump_tables(format_, found)
        written = tables.save_pair(dumped.texts, output, energy)
        for note in dumped.notes:
            print(f"Note: {note}.", file=sys.stderr)
    elif format_:
        from lut_store import formats

        formats.save_as(f".{format_}", found, output)
    else:
        found.save(output)
    print(f"{found.reference} is in {' and '.join(map(str, written))}")
