"""`coordinator lut diff`: what changed from one LUT to another, beyond what their uncertainties explain."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.options import (
    BatchFilter,
    ContextFilter,
    CoordinatorOption,
    EmulationFilter,
    Filters,
    JsonOption,
    PrecisionFilter,
    RuntimeFilter,
    ThreadsFilter,
    console,
    print_json,
)
from protos.errors import BadInputError

if TYPE_CHECKING:
    from rich.table import Table

    from lut_store.diff import Change, LutDiff, MetricDiff
    from lut_store.lut import Lut
    from protos.types import SearchSpace

LISTED = 20  # changed operators; --json has all
Z95 = 1.959964
WHICH = r"TYPE\[/SPACE]\[@VERSION|@TAG], or a LUT file."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=f"From: {WHICH}")],
    b: Annotated[str, typer.Argument(metavar="B", help=f"To: {WHICH}")],
    choices: Annotated[
        list[str] | None,
        typer.Option(
            "--choices",
            metavar="C,C,…|FILE",
            help="A network whose change is wanted: a candidate's name or position for every layer, or a file with "
            "some (one per line, or JSON with `choices`). May be repeated.",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw the changes of all cells.")
    ] = None,
    fdr: Annotated[
        float,
        typer.Option("--fdr", metavar="SHARE", help="How many of the changes that are called so may be chance."),
    ] = 0.05,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compare two LUTs of one space: operators that changed beyond their joint uncertainty, whole networks, provenance.

    The options that choose a configuration hold for both.

    [bold]Examples[/bold]

    coordinator lut diff rpi3b@stable rpi3b@latest --picture diff.png

    coordinator lut diff rpi3b@2 pi.lut --choices child.json --json
    """
    from coordinator.cli.lut import fetch, is_file
    from lut_store.diff import diff as compare

    filters = Filters(context, threads, batch, emulation, runtime, precision)
    first, second = (fetch(name, Filters() if is_file(name) else filters, coordinator) for name in (a, b))
    networks = [network for text in choices or () for network in architectures(text, first.space)]
    found = compare(first, second, networks, fdr)
    if picture is not None:
        from coordinator.diff_plot import diff_heatmap

        diff_heatmap(found, picture)
    if as_json:
        print_json(document(found))
        return
    _print(found)
    if picture is not None:
        print(f"The picture is in {picture}")


# ---- architectures --------------------------------------------------------------------------------------------------


def architectures(text: str, space: SearchSpace) -> list[tuple[int, ...]]:
    """Of an option or of the file that it names. Raises BadInputError naming what is wrong and where."""
    path = Path(text)
    if "," in text or not path.is_file():
        if "," not in text and path.suffix:
            raise BadInputError(
                f"{text} is no file, and no architecture either: write one choice per layer, with commas"
            )
        return [_architecture(text, space, "--choices")]
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
    if content.lstrip()[:1] in ("{", "["):
        return _from_json(content, path, space)
    lines = [(number, line) for number, line in enumerate(content.splitlines(), start=1) if line.strip()]
    return [_architecture(line, space, f"{path}, line {number}") for number, line in lines]


def _from_json(content: str, path: Path, space: SearchSpace) -> list[tuple[int, ...]]:
    try:
        value: Any = json.loads(content)
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is no JSON: {error}") from error
    value = value.get("choices", value) if isinstance(value, dict) else value
    rows = value if isinstance(value, list) and value and isinstance(value[0], (list, dict)) else [value]
    rows = [row.get("choices") if isinstance(row, dict) else row for row in rows]
    if not all(isinstance(row, list) for row in rows):
        raise BadInputError(f"{path} holds no architecture; it must be a list of choices, or an object with `choices`")
    return [_architecture(",".join(map(str, row)), space, str(path)) for row in rows]


def _architecture(text: str, space: SearchSpace, where: str) -> tuple[int, ...]:
    words = text.replace(",", " ").split()
    positions = {name: index for index, name in enumerate(space.op_names)}
    positions |= {str(index): index for index in range(len(space.op_names))}
    for number, word in enumerate(words):
        if word not in positions:
            raise BadInputError(
                f"{where}: choice {number + 1} is {word!r}; it must be a candidate's name "
                f"({', '.join(space.op_names)}) or its position from 0"
            )
    found = tuple(positions[word] for word in words)
    try:
        space.check_choices(found)
    except ValueError as error:
        raise BadInputError(f"{where}: {error}") from error
    return found


# ---- for programs ---------------------------------------------------------------------------------------------------


def document(found: LutDiff) -> dict[str, Any]:
    """The whole comparison as plain values; None where a number is not known."""
    return {
        "a": {"reference": found.a.reference, "digest": found.a.digest},
        "b": {"reference": found.b.reference, "digest": found.b.digest},
        "false_discovery_rate": found.fdr,
        "notes": list(found.notes),
        **{metric.metric: _metric_document(found.a, metric) for metric in found.metrics},
        "provenance": [{"key": change.key, "a": change.a, "b": change.b} for change in found.record],
    }


def _metric_document(lut: Lut, metric: MetricDiff) -> dict[str, Any]:
    return {
        "unit": {"latency": "s", "energy": "J"}[metric.metric],
        "operators": len(metric.changes),
        "tested": metric.tested,
        "changed": [_change_document(lut, change) for change in metric.changed],
        "all": [_change_document(lut, change) for change in metric.changes],
        "only_in_a": [[cell.layer, cell.op] for cell in metric.only_in_a],
        "only_in_b": [[cell.layer, cell.op] for cell in metric.only_in_b],
        "totals": [
            {
                "name": total.name,
                "choices": None if total.choices is None else list(total.choices),
                "a": _known(total.a),
                "b": _known(total.b),
                "relative": _known(total.relative),
                "relative_se": _known(total.relative_se),
            }
            for total in metric.totals
        ],
    }


def _change_document(lut: Lut, change: Change) -> dict[str, Any]:
    from lut_store.entries import name_of

    return {
        "cells": [[cell.layer, cell.op] for cell in change.cells],
        "name": name_of(lut, change.cells[0]),
        "operator": change.label,
        "a": change.a,
        "b": change.b,
        "relative": _known(change.relative),
        "relative_se": _known(change.relative_se),
        "q": _known(change.q),
        "changed": change.changed,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---- for people -----------------------------------------------------------------------------------------------------


def _print(found: LutDiff) -> None:
    out = console()
    out.print(f"{found.a.reference} → {found.b.reference}", style="bold")
    for note in found.notes:
        out.print(f"! {note}", style="yellow")
    for metric in found.metrics:
        out.print()
        out.print(headline(metric, found.fdr), style="bold")
        if metric.changed:
            out.print(changes(found.a, metric))
        out.print(totals(metric))
    out.print()
    if found.record:
        out.print(record(found))
    else:
        out.print("configuration and provenance say the same", style="dim")


def headline(metric: MetricDiff, fdr: float) -> str:
    """``latency: 12 of 96 operators changed beyond their joint uncertainty (false-discovery rate 5 %)``."""
    said = f"{len(metric.changed)} of {metric.tested} operators changed beyond their joint uncertainty"
    if not metric.tested:
        said = "without uncertainties nothing can be called changed"
    holes = [f"{len(cells)} cells only in {name}" for name, cells in _holes(metric) if cells]
    rate = f" (false-discovery rate {100 * fdr:g} %)" if metric.tested else ""
    return f"{metric.metric}: {'; '.join([said + rate, *holes])}"


def _holes(metric: MetricDiff) -> list[tuple[str, Sequence[Any]]]:
    return [("A", metric.only_in_a), ("B", metric.only_in_b)]


def changes(lut: Lut, metric: MetricDiff) -> Table:
    """The largest changes, one row per operator."""
    from rich.table import Table

    from coordinator.units import percent, scale_for
    from lut_store.entries import name_of

    shown = metric.changed[:LISTED]
    scale = scale_for(metric.metric, [change.a for change in shown])
    more = len(metric.changed) - len(shown)
    table = Table(box=None, pad_edge=False, header_style="dim", caption=f"and {more} more (--json)" if more else None)
    for column in ("cell", "operator", f"A, {scale.unit}", f"B, {scale.unit}", "change", "± 95 %", "q"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("cell", "operator") else "right")
    for change in shown:
        others = f" and {len(change.cells) - 1} more" if len(change.cells) > 1 else ""
        table.add_row(
            name_of(lut, change.cells[0]) + others,
            change.label,
            scale.text(change.a, 4),
            scale.text(change.b, 4),
            percent(change.relative, digits=1),
            percent(Z95 * change.relative_se, sign=False, digits=1),
            f"{change.q:.1g}" if change.q >= 1e-4 else "<1e-4",
        )
    return table


def totals(metric: MetricDiff) -> Table:
    """The uniform mixture and the given architectures."""
    from rich.table import Table

    from coordinator.units import percent, scale_for

    scale = scale_for(metric.metric, [total.a for total in metric.totals])
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("whole networks", f"A, {scale.unit}", f"B, {scale.unit}", "change", "± 95 %"):
        table.add_column(column, no_wrap=True, justify="left" if column == "whole networks" else "right")
    for total in metric.totals:
        half = percent(Z95 * total.relative_se, sign=False)
        table.add_row(total.name, scale.text(total.a, 4), scale.text(total.b, 4), percent(total.relative), half)
    return table


def record(found: LutDiff) -> Table:
    """What configuration and provenance say differently."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("changed provenance", "A", "B"):
        table.add_column(column, overflow="fold")
    for change in found.record:
        table.add_row(change.key, *("–" if value is None else _short(value) for value in (change.a, change.b)))
    return table


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
