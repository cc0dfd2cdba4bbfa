"""`coordinator lut import`: tables of others as LUTs of ours."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.options import JsonOption, one_of, print_json
from protos.errors import BadInputError

if TYPE_CHECKING:
    from lut_store.lut import Lut

FORMATS = ("hanna",)


def import_(
    format_: Annotated[str, typer.Option("--format", metavar="|".join(FORMATS), help="What the files are.")],
    device_type: Annotated[
        str, typer.Option("--device-type", metavar="TYPE", help="What the table was measured on, as a name to keep.")
    ],
    space: Annotated[str, typer.Option("--space", metavar="NAME|FILE", help="The space whose cells the table holds.")],
    latency: Annotated[Path, typer.Option("--latency", metavar="FILE", help="Seconds: a line per layer.")],
    energy: Annotated[Path, typer.Option("--energy", metavar="FILE", help="Joules: a line per layer.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.lut", help="Write a file; without it, a version is stored."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import a table that others have measured: no uncertainty, no validation, its origin kept.

    [bold]Examples[/bold]

    coordinator lut import --format hanna --device-type rpi3b-hanna --space fbnet-cifar10 --latency rpi_speed.txt --energy new_rpi_energy.txt --output hanna.lut
    """  # noqa: E501 - a command stands on one line
    one_of("format", format_, FORMATS)
    _check_name(device_type)
    from lut_store.formats import hanna
    from nas.space import load_space

    lut = hanna.load_pair(load_space(space), device_type, latency, energy)
    if output is None:
        lut, where = _stored(lut)
    else:
        lut.save(output)
        where = str(output)
    if as_json:
        print_json({"reference": lut.reference, "digest": lut.digest, "version": lut.version, "where": where})
    else:
        print(f"{lut.reference} is in {where} (stem and head not included, no uncertainty)")


def _check_name(device_type: str) -> None:
    from lut_store.reference import parse_reference

    if parse_reference(device_type).device_type != device_type:
        raise BadInputError(f"--device-type {device_type!r} is no name: leave out '/', '@' and blanks")


def _stored(lut: Lut) -> tuple[Lut, str]:
    """The LUT with its version, in the embedded database, and where that is."""
    from coordinator.client import ADDRESS_VARIABLE
    from lut_store.paths import default_database_url
    from lut_store.store import Store

    named = os.environ.get(ADDRESS_VARIABLE)
    if named:
        raise BadInputError(
            f"{ADDRESS_VARIABLE} names the coordinator at {named}, which takes no imports over the network: "
            "write a file with --output, or run the command on its machine without that variable"
        )
    with closing(Store(default_database_url())) as store:
        return store.add_lut(lut), store.name
