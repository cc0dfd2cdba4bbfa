"""`nas cost` and `nas preview`: what θ and the knobs mean before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def cost(
    lut: LutOption,
    theta: Annotated[Path, typer.Option("--theta", metavar="FILE", help="Logits: a line per layer, HANNA's text.")],
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """What θ costs: its most probable architecture, and the expectation over all of them.

    [bold]Examples[/bold]

    nas cost --lut rpi3b/fbnet-cifar10 --theta theta.txt

    nas cost --lut hanna.lut --theta theta_model29.txt --json
    """
    found = load_lut(lut, coordinator)
    from nas.theta import argmax_choices, read_theta

    logits = read_theta(theta, found.space)
    choices = argmax_choices(logits, found.space)
    import torch

    from nas.cost import CostTable

    costs = CostTable.from_lut(found)
    latency_s, energy_j = costs.exact(choices)
    mean_latency_s, mean_energy_j = map(float, costs.expected(costs.probabilities(torch.from_numpy(logits))))
    if as_json:
        print_json(
            {
                "argmax": {"latency_s": latency_s, "energy_j": energy_j, "choices": list(choices)},
                "expected": {"latency_s": mean_latency_s, "energy_j": mean_energy_j},
                **origin(found),
            }
        )
        return
    out, rows = console(), table("", "latency", "energy")
    rows.add_row("most probable", f"{latency_s:.6g} s", f"{energy_j:.6g} J")
    rows.add_row("expected", f"{mean_latency_s:.6g} s", f"{mean_energy_j:.6g} J")
    for part in (found.reference, notice(found), rows, names_of(found.space, choices)):
        if part:
            out.print(part)


def preview(
    lut: LutOption,
    alpha: Annotated[float, typer.Option("--alpha", metavar="α", help="Weight of latency.")],
    beta: Annotated[float, typer.Option("--beta", metavar="β", help="Power of latency.")],
    gamma: Annotated[float, typer.Option("--gamma", metavar="γ", help="Weight of energy.")],
    delta: Annotated[float, typer.Option("--delta", metavar="δ", help="Power of energy.")],
    normalise: Annotated[
        bool, typer.Option("--normalise", metavar="", help="Count costs in those of the uniform mixture, not s and J.")
    ] = False,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """What the knobs of CE + α·LAT^β + γ·ENER^δ weigh at the start of a search, where every candidate is as probable.

    [bold]Examples[/bold]

    nas preview --lut rpi3b/fbnet-cifar10 --alpha 0.5 --beta 1.5 --gamma 0.5 --delta 0.5
    """
    for name, value in (("--alpha", alpha), ("--beta", beta), ("--gamma", gamma), ("--delta", delta)):
        not_negative(name, value)
    found = load_lut(lut, coordinator)
    from nas import loss
    from nas.cost import CostTable

    uniform = CostTable.from_lut(found).uniform()
    knobs = loss.Hanna(alpha, beta, gamma, delta)
    seen = loss.preview(loss.normalised(knobs, uniform) if normalise else knobs, uniform)
    if as_json:
        print_json(
            {
                "latency_s": seen.latency_s,
                "energy_j": seen.energy_j,
                "v_latency": seen.v_latency,
                "v_energy": seen.v_energy,
                "energy_dominance": seen.energy_dominance,
                "latency_dominance": seen.latency_dominance,
                "normalised": normalise,
                **origin(found),
            }
        )
        return
    out, rows = console(), table("", "latency", "energy")
    rows.add_row("uniform mixture", f"{seen.latency_s:.6g} s", f"{seen.energy_j:.6g} J")
    rows.add_row("vLAT, vENER", f"{seen.v_latency:.6g}", f"{seen.v_energy:.6g}")
    rows.add_row("dominance", f"{seen.latency_dominance:.6g}", f"{seen.energy_dominance:.6g}")
    for part in (found.reference, notice(found), rows):
        if part:
            out.print(part)
