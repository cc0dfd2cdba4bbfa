"""`nas optimise` and `nas pareto`: the provably best architectures of a LUT."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import (
    CoordinatorOption,
    JsonOption,
    LutOption,
    console,
    load_lut,
    names_of,
    not_negative,
    notice,
    origin,
    print_json,
    table,
)
from protos.errors import BadInputError, unknown

if TYPE_CHECKING:
    from lut_store.lut import Lut
    from lut_store.metric import Array
    from nas.budgets import Costs

GOALS = ("latency", "energy", "weighted")
SHOWN = 20  # points of a front in the table


def optimise(
    lut: LutOption,
    minimise: Annotated[str, typer.Option("--minimise", metavar="|".join(GOALS), help="What is to be least.")] = "",
    weights: Annotated[
        str, typer.Option("--weights", metavar="W_LAT,W_ENERGY", help="Of seconds and joules, for `weighted`.")
    ] = "",
    max_latency_s: Annotated[float | None, typer.Option("--max-latency-s", metavar="X", help="Budget.")] = None,
    max_energy_j: Annotated[float | None, typer.Option("--max-energy-j", metavar="Y", help="Budget.")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores", metavar="FILE", help="A score per cell, as θ files are written: the best sum is looked for."
        ),
    ] = None,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """The one best architecture of all, with proof: least cost, or best score, within budgets.

    [bold]Examples[/bold]

    nas optimise --lut rpi3b/fbnet-cifar10 --minimise energy --max-latency-s 0.25

    nas optimise --lut rpi3b/fbnet-cifar10 --scores theta.txt --max-latency-s 0.25 --max-energy-j 0.4 --json
    """
    if (scores is None) == (not minimise):
        raise BadInputError("say either --minimise (a cost) or --scores (a score that is to be best)")
    weighting = _weights(minimise, weights)
    from nas.budgets import Budgets, Costs
    from nas.exact import minimise as solve

    budgets = Budgets(max_latency_s, max_energy_j)
    found = load_lut(lut, coordinator)
    costs = Costs.from_lut(found)
    objective = _objective(costs, minimise, weighting) if scores is None else -_scores(scores, found)
    begun = time.perf_counter()
    best = solve(objective, costs, budgets)
    solve_s = time.perf_counter() - begun
    if as_json:
        answer = {
            "latency_s": best.latency_s,
            "energy_j": best.energy_j,
            "choices": list(best.choices),
            "optimal": True,
            "solve_s": solve_s,
        }
        print_json(answer | ({} if scores is None else {"score": -best.objective}) | origin(found))
        return
    out, rows = console(), table("", "latency", "energy", *(() if scores is None else ("score",)))
    score = () if scores is None else (f"{-best.objective:.6g}",)
    rows.add_row("optimal", f"{best.latency_s:.6f} s", f"{best.energy_j:.6f} J", *score)
    for part in (found.reference, notice(found), rows, names_of(found.space, best.choices)):
        if part:
            out.print(part)


def _weights(minimise: str, weights: str) -> tuple[float, float]:
    """Of latency and energy. Raises BadInputError for words that are no weights, and weights that are not asked for."""
    if minimise and minimise not in GOALS:
        raise unknown("goal", minimise, GOALS)
    if minimise != "weighted":
        if weights:
            raise BadInputError("--weights belongs to --minimise weighted")
        return (1.0, 0.0) if minimise == "latency" else (0.0, 1.0)
    try:
        latency, energy = map(float, weights.split(","))
    except ValueError:
        raise BadInputError(f"--weights is {weights!r}; write two numbers, W_LAT,W_ENERGY, for example 1,0.5") from None
    for value in (latency, energy):
        not_negative("a weight", value)
    if not (latency or energy):
        raise BadInputError("--weights is 0,0; one of the two must be above zero")
    return latency, energy


def _objective(costs: Costs, minimise: str, weighting: tuple[float, float]) -> Array:
    if minimise == "weighted":
        return weighting[0] * costs.latency_s + weighting[1] * costs.energy_j
    return costs.latency_s if minimise == "latency" else costs.energy_j


def _scores(path: Path, lut: Lut) -> Array:
    from nas.theta import read_theta

    return read_theta(path, lut.space)


def pareto(
    lut: LutOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PNG|SVG", help="Draw the front into this file.")
    ] = None,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """The whole front: every architecture that no other one beats in both latency and energy.

    [bold]Examples[/bold]

    nas pareto --lut rpi3b/fbnet-cifar10 --output front.png
    """
    if output is not None and output.suffix.lower() not in (".png", ".svg"):
        raise BadInputError(f"{output}: the ending chooses the picture's format and must be .png or .svg")
    from nas.budgets import Costs
    from nas.pareto import pareto as front_of

    found = load_lut(lut, coordinator)
    begun = time.perf_counter()
    front = front_of(Costs.from_lut(found))
    solve_s = time.perf_counter() - begun
    if output is not None:
        from nas.plots import draw_front

        draw_front(found, front, output)
    points = list(zip(front.latency_s.tolist(), front.energy_j.tolist(), front.choices.tolist(), strict=True))
    if as_json:
        entries = [{"latency_s": t, "energy_j": e, "choices": choices} for t, e, choices in points]
        print_json({"front": entries, "optimal": True, "solve_s": solve_s, **origin(found)})
        return
    out, rows = console(), table("", "latency", "energy")
    step = max((len(points) - 1) / (SHOWN - 1), 1.0)
    for index in sorted({round(step * i) for i in range(min(SHOWN, len(points)))}):
        latency_s, energy_j, choices = points[index]
        rows.add_row(names_of(found.space, choices), f"{latency_s:.6f} s", f"{energy_j:.6f} J")
    count = f"{len(points)} architectures" + (f", {SHOWN} of them below" if len(points) > SHOWN else "")
    where = f"the picture is in {output}" if output is not None else ""
    for part in (f"{found.reference}: {count}", notice(found), rows, where):
        if part:
            out.print(part)
