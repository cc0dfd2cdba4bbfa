"""The `coordinator` command: its sub-commands, and what becomes of an error."""

from __future__ import annotations

import logging
import sys
from importlib import metadata
from typing import Annotated, Any

import typer

from coordinator.cli import (
    certificates,
    db,
    devices,
    drift,
    lut,
    lut_build,
    lut_diff,
    lut_export,
    lut_import,
    lut_lint,
    lut_log,
    lut_tags,
    profile,
    runs,
    serve,
)
from protos.errors import EdgelutError

EPILOG = "Start with:  coordinator profile --device local"

app = typer.Typer(
    name="coordinator",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
app.command()(profile.profile)
app.command()(serve.serve)
app.command()(devices.devices)
app.command()(drift.drift)
for command in (certificates.enroll, certificates.join, certificates.revoke, certificates.certificates):
    app.command()(command)
app.add_typer(certificates.ca, name="ca")
app.add_typer(runs.app, name="runs")
lut.app.command("build")(lut_build.build)
lut.app.command("log")(lut_log.log)
lut.app.command("tag")(lut_tags.tag)
lut.app.command("tags")(lut_tags.tags)
lut.app.command("lint")(lut_lint.lint)
lut.app.command("diff")(lut_diff.diff)
lut.app.command("import")(lut_import.import_)
lut.app.command()(lut_export.export)
app.add_typer(lut.app, name="lut")
app.add_typer(db.app, name="db")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"edgelut {metadata.version('edgelut')}")
        raise typer.Exit


@app.callback()
def _coordinator(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Print the version and exit."),
    ] = False,
) -> None:
    """Turns edge devices into latency and energy look-up tables that say how true they are."""


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what standard error is now, not to what it was when the first command ran in this process."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        """Nobody else chooses it."""


class _OneLine(logging.Formatter):
    """What the coordinator inside this process logs, for people: no traceback. `coordinator serve` logs in full."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        return f"({ei[0].__name__}: {ei[1]})"


def main() -> None:
    """Run the command line. A domain error is one sentence on stderr and exit status 2."""
    handler = _Stderr()
    handler.setFormatter(_OneLine("coordinator: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        app(prog_name="coordinator")
    except EdgelutError as error:
        print(f"coordinator: {error}", file=sys.stderr)
        sys.exit(2)
