"""`coordinator lut lint`: what is wrong with a table, or might be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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
from protos.types import CellRef, Finding, LutQuery

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lut_store.lut import Lut

EXIT_ERRORS = 1
STYLES = {"error": "bold red", "warning": "yellow"}
_SHOWN = 6  # cells of a finding


def lint(
    reference: ReferenceArgument,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a LUT: what was found when the version was stored, or what is found in a file now.

    Ends with status 1 when there are errors, which keep a version from being `stable`; with 0 when there are warnings
    alone, or nothing.

    [bold]Examples[/bold]

    coordinator lut lint rpi3b/fbnet-cifar10@3

    coordinator lut lint hanna.lut --json
    """
    found, findings = fetch_linted(
        reference, Filters(context, threads, batch, emulation, runtime, precision), coordinator
    )
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        print_json(
            {
                "reference": found.reference,
                "digest": found.digest,
                "errors": errors,
                "warnings": len(findings) - errors,
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        out = console()
        out.print(found.reference, style="bold")
        out.print(section(found, findings, cells=True))
    if errors:
        raise typer.Exit(EXIT_ERRORS)


def fetch_linted(reference: str, filters: Filters, coordinator: str) -> tuple[Lut, list[Finding]]:
    """The one LUT that fits and what lint found in it; a file is looked at now."""
    from coordinator.cli.lut import fetch, is_file

    if is_file(reference):
        from lut_store.lint import lint as findings_of

        lut = fetch(reference, filters, coordinator)
        return lut, list(findings_of(lut))
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        lut = link.client.lut(**asdict(query(reference, filters)))
        return lut, link.client.findings(LutQuery(digest=lut.digest))


def section(lut: Lut, findings: Sequence[Finding], *, cells: bool = False) -> RenderableType:
    """The findings as lines, errors first; with `cells`, which ones they are about."""
    from rich.console import Group
    from rich.text import Text

    lines: list[Any] = []
    for finding in findings:
        about = f"{finding.metric}: " if finding.metric else ""
        line = Text(f"{finding.severity}  ", STYLES[finding.severity])
        line.append(f"{finding.rule}  ", "dim")
        line.append(f"{about}{finding.sentence}", "")
        lines.append(line)
        if cells and finding.cells:
            lines.append(Text(f"         {_cells(lut, finding.cells)}", "dim"))
    return Group(*lines) if lines else Text("lint: nothing found", "dim")


def _cells(lut: Lut, cells: Sequence[CellRef]) -> str:
    from lut_store.entries import name_of

    more = len(cells) - _SHOWN
    listed = "; ".join(name_of(lut, cell) for cell in cells[:_SHOWN])
    return listed + (f"; and {more} more (--json lists them)" if more > 0 else "")
