"""The `nas` command: its sub-commands, and what becomes of an error."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from nas.cli import baselines, costs, measure, optimise, report, search, sweep, train
from protos.errors import EdgelutError

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with:  nas pareto --lut rpi3b/fbnet-cifar10",
)
app.command()(costs.cost)
app.command()(costs.preview)
app.command()(optimise.optimise)
app.command()(optimise.pareto)
app.command()(search.search)
app.command()(search.derive)
app.command()(train.train)
app.command()(train.evaluate)
app.command()(train.export)
app.command()(measure.measure)
app.command()(baselines.baselines)
app.command()(sweep.sweep)
app.command()(report.report)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"edgelut {metadata.version('edgelut')}")
        raise typer.Exit


@app.callback()
def _nas(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Print the version and exit."),
    ] = False,
) -> None:
    """Finds architectures by what they cost on a device, read from its look-up table."""


def main() -> None:
    """Run the command line. A domain error is one sentence on stderr and exit status 2."""
    try:
        app(prog_name="nas")
    except EdgelutError as error:
        print(f"nas: {error}", file=sys.stderr)
        sys.exit(2)
