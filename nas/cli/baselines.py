"""`nas baselines`: MobileNetV2 and CondenseNet-74 as the agents measured them, the rows of HANNA's Table 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import CoordinatorOption, JsonOption, console, load_lut, notice, print_json, table
from protos.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lut_store.lut import Lut
    from nas.baseline_rows import BaselineRow

NOT_KNOWN = "–"


def baselines(
    device_type: Annotated[
        str, typer.Option("--device-type", "-d", metavar="TYPE", help="Whose LUTs of the baselines.")
    ] = "",
    lut: Annotated[
        list[str] | None, typer.Option("--lut", metavar="REF|FILE", help="LUTs of the baselines by name; repeatable.")
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", metavar="DIR", help="A training of a baseline (nas train --space); repeatable."),
    ] = None,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """The networks that HANNA is compared with: their size, and what they cost whole and as sums of operators.

    [bold]Examples[/bold]

    coordinator profile --device rpi3b --space mobilenetv2-cifar10

    coordinator profile --device rpi3b --space condensenet74-cifar10

    nas baselines --device-type rpi3b
    """
    from nas.baseline_rows import baseline_rows
    from nas.baselines import baselines as names

    found = baseline_luts(lut or (), coordinator)
    missing: list[str] = []
    for name in names() if device_type else ():
        try:
            found.setdefault(name, load_lut(f"{device_type}/{name}", coordinator))
        except NotFoundError:
            missing.append(f"coordinator profile --device {device_type} --space {name}")
    rows = baseline_rows(found, dict(_accuracy(folder) for folder in run or ()))
    if as_json:
        print_json({"rows": [row.document() for row in rows]})
        return
    _print(rows, missing, sorted({notice(one) for one in found.values()} - {""}))


def baseline_luts(references: Iterable[str], coordinator: str) -> dict[str, Lut]:
    """LUTs of baselines by their names. Raises BadInputError for one of another space."""
    from nas.baselines import baseline, baselines

    found: dict[str, Lut] = {}
    for reference in references:
        one = load_lut(reference, coordinator)
        if one.space.name not in baselines() or one.space.digest != baseline(one.space.name).digest:
            raise BadInputError(
                f"{reference} is of space {one.space.name}, which is no baseline ({', '.join(baselines())})"
            )
        found[one.space.name] = one
    return found


def _accuracy(folder: Path) -> tuple[str, float]:
    """Name and accuracy of a trained baseline. Raises BadInputError when the training is of something else."""
    from nas import train_folder
    from nas.baselines import baseline, baselines

    trained = train_folder.read(folder)
    space = trained.child.space
    if space.name not in baselines() or space.digest != baseline(space.name).digest:
        raise BadInputError(f"{folder} trained space {space.name}, which is no baseline ({', '.join(baselines())})")
    return space.name, trained.epochs[-1].test_accuracy


def _print(rows: list[BaselineRow], missing: list[str], notices: list[str]) -> None:
    columns = (
        "network",
        "parameters",
        "MACs",
        "accuracy",
        "latency",
        "sum",
        "error",
        "energy",
        "sum",
        "error",
        "published",
        "LUT",
    )
    shown = table(*columns)
    for row in rows:
        shown.add_row(
            row.title,
            f"{row.parameters:,}",
            f"{row.macs / 1e6:.1f} M",
            NOT_KNOWN if row.accuracy is None else f"{row.accuracy:.1%}",
            *_compared(row.whole_latency_s, row.sum_latency_s, "s"),
            *_compared(row.whole_energy_j, row.sum_energy_j, "J"),
            f"{row.published.accuracy:.1%}, {row.published.latency_s} s, {row.published.energy_j} J",
            row.lut or NOT_KNOWN,
        )
    out = console()
    for part in (*notices, shown, *(f"not profiled yet: {command}" for command in missing)):
        out.print(part)


def _compared(whole: float | None, total: float | None, unit: str) -> tuple[str, str, str]:
    error = NOT_KNOWN if not whole or total is None else f"{total / whole - 1:+.1%}"
    shown = [NOT_KNOWN if value is None else f"{value:.4g} {unit}" for value in (whole, total)]
    return shown[0], shown[1], error
