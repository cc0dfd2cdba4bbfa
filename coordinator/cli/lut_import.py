"""`coordinator lut import`: tables of others, and LUT files, as LUTs of ours."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.db import DbOption
from coordinator.cli.options import JsonOption, one_of, print_json
from protos.errors import BadInputError
from protos.types import CONTEXTS, EMULATIONS, Configuration, SearchSpace

if TYPE_CHECKING:
    from lut_store.lut import Lut

FORMATS = ("hanna", "ofa", "hw-nas-bench", "csv", "lut", "json", "parquet")
PAIRS = FORMATS[:3]  # a file of latencies and one of energies
WHOLE = FORMATS[4:]  # files that hold everything
HOW = "How the table was measured, where it does not say"


def import_(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Of the formats csv, lut, json and parquet, which are one file."),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="|".join(FORMATS), help="What the files are. Default: what FILE's ending says."
        ),
    ] = "",
    device_type: Annotated[
        str, typer.Option("--device-type", metavar="TYPE", help="What the table was measured on, as a name to keep.")
    ] = "",
    space: Annotated[
        str, typer.Option("--space", metavar="NAME|FILE", help="The space whose cells the table holds.")
    ] = "",
    latency: Annotated[
        Path | None,
        typer.Option(
            "--latency", metavar="FILE", help="hanna: seconds, a line per layer; ofa, hw-nas-bench: ms by operator."
        ),
    ] = None,
    energy: Annotated[
        Path | None,
        typer.Option(
            "--energy", metavar="FILE", help="hanna: joules, a line per layer; ofa, hw-nas-bench: mJ by operator."
        ),
    ] = None,
    context: Annotated[
        str, typer.Option("--context", metavar="|".join(CONTEXTS), help="Caches swept or warm.", rich_help_panel=HOW)
    ] = Configuration.context,
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="Threads of the runtime.", rich_help_panel=HOW)
    ] = Configuration.threads,
    emulation: Annotated[
        str,
        typer.Option(
            "--emulation",
            metavar="|".join(EMULATIONS),
            help=f"What was emulated. Default: {Configuration.emulation}, and that it is not known is said.",
            rich_help_panel=HOW,
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.lut", help="Write a file; without it, a version is stored."),
    ] = None,
    db: DbOption = "",
    as_json: JsonOption = False,
) -> None:
    """Import a table that others have measured: its origin is kept, and what it does not say stays unknown.

    [bold]Examples[/bold]

    coordinator lut import --format hanna --device-type rpi3b-hanna --space fbnet-cifar10 --latency rpi_speed.txt --energy new_rpi_energy.txt --output hanna.lut

    coordinator lut import --format hw-nas-bench --device-type raspi4 --space fbnet-cifar100-hwnas --latency raspi4_latency.json

    coordinator lut import mine.csv --device-type rpi5 --space fbnet-cifar10 --threads 4

    coordinator lut import theirs.lut
    """  # noqa: E501 - a command stands on one line
    one_of("context", context, CONTEXTS)
    if emulation:
        one_of("emulation", emulation, EMULATIONS)
    format_ = _format(format_, file, latency, energy)
    if device_type:
        _check_name(device_type)
    from nas.space import load_space

    loaded = load_space(space) if space else None
    configuration = None
    if loaded is not None and device_type:
        what = emulation or Configuration.emulation
        configuration = Configuration(device_type, loaded.name, what, context, threads, loaded.input_shape[0])
    lut = _read(format_, file, (latency, energy), loaded, configuration, device_type)
    if db and output is not None:
        raise BadInputError("either --output FILE or --db URL: the LUT goes to one place")
    if output is None:
        lut, where = _stored(lut, db)
    else:
        lut.save(output)
        where = str(output)
    if as_json:
        print_json(
            {
                "reference": lut.reference,
                "digest": lut.digest,
                "version": lut.version,
                "where": where,
                "coverage": lut.coverage,
                "fixed_included": lut.fixed_included,
            }
        )
    else:
        print(f"{lut.reference} is in {where} ({'; '.join(said(lut))})")
    if format_ not in WHOLE and not emulation:
        print(
            f"A {format_} table does not say whether its numbers are from hardware: the LUT says they are. "
            "If anything was emulated, import it again with --emulation device or --emulation meter.",
            file=sys.stderr,
        )


def said(lut: Lut) -> list[str]:
    """What a user of an imported table must know, in a few words each."""
    words = [
        f"{name}: {share:.0%} of the cells" if getattr(lut, name) is not None else f"no {name}"
        for name, share in lut.coverage.items()
    ]
    if not lut.fixed_included:
        words.append("stem and head not included" + _lacking(lut))
    if all(metric is None or not (metric.se > 0).any() for metric in (lut.latency, lut.energy)):
        words.append("no uncertainty")
    return words


def _lacking(lut: Lut) -> str:
    """Which operators of stem and head the table has no number for; empty where it does not say."""
    origin = lut.provenance.get("origin")
    lacking = origin.get("lacking") if isinstance(origin, dict) else None
    return f" (no number of {', '.join(map(str, lacking))})" if isinstance(lacking, list) else ""


def _format(format_: str, file: Path | None, latency: Path | None, energy: Path | None) -> str:
    """The format, with the files that it needs and no others."""
    if not format_ and file is not None:
        format_ = file.suffix.lower().removeprefix(".")
        if format_ not in FORMATS[3:]:
            raise BadInputError(f"{file}: its ending is no format; say with --format what it is: {', '.join(FORMATS)}")
    if not format_:
        raise BadInputError(f"what is to be imported? Name a FILE, or --format {'|'.join(PAIRS)} with its files")
    one_of("format", format_, FORMATS)
    if format_ in PAIRS and (file is not None or (latency is None and energy is None)):
        raise BadInputError(f"the format {format_} is one file per quantity: name --latency FILE and --energy FILE")
    if format_ not in PAIRS and (file is None or latency is not None or energy is not None):
        raise BadInputError(
            f"the format {format_} is one file with both quantities: coordinator lut import FILE --format {format_}"
        )
    return format_


def _read(
    format_: str,
    file: Path | None,
    pair: tuple[Path | None, Path | None],
    space: SearchSpace | None,
    configuration: Configuration | None,
    device_type: str,
) -> Lut:
    from lut_store.formats import tables

    if format_ in PAIRS:
        if space is None or configuration is None:
            raise BadInputError(f"a {format_} table does not say what it is of: name --device-type and --space")
        return tables.load_tables(format_, space, configuration, *pair)
    assert file is not None
    return tables.load_file(format_, file, space, configuration, device_type)


def _check_name(device_type: str) -> None:
    from lut_store.reference import parse_reference

    if parse_reference(device_type).device_type != device_type:
        raise BadInputError(f"--device-type {device_type!r} is no name: leave out '/', '@' and blanks")


def _stored(lut: Lut, db: str) -> tuple[Lut, str]:
    """The LUT with its version, in the database of that URL or the embedded one, and where that is."""
    from coordinator.client import ADDRESS_VARIABLE
    from lut_store.paths import default_database_url
    from lut_store.store import Store

    named = os.environ.get(ADDRESS_VARIABLE)
    if named and not db:
        raise BadInputError(
            f"{ADDRESS_VARIABLE} names the coordinator at {named}, which takes no imports over the network: "
            "write a file with --output, or run the command on its machine with --db URL"
        )
    with closing(Store(db or default_database_url())) as store:
        return store.add_lut(lut), store.name
