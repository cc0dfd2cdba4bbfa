"""`coordinator drift`: does the LUT that people use still describe the board?"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
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
from protos.errors import BadInputError, NotFoundError, unknown
from protos.types import Device, LutQuery, Run

if TYPE_CHECKING:
    from coordinator.cli.connect import Link
    from coordinator.drift import Verdict
    from lut_store.lut import Lut

EXIT_DRIFTED, EXIT_NOT_MEASURED = 1, 3
LISTED = 8  # changed operators


def drift(
    device: Annotated[
        str,
        typer.Option("--device", "-d", metavar="D", help="A device's name, a device type, or `local`: this machine."),
    ],
    space: Annotated[
        str, typer.Option("--space", "-s", metavar="NAME", help="Of the LUT, when there are several.")
    ] = "",
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="PERCENT", help="A change of the anchors that does not matter.")
    ] = 2.0,
    budget_s: Annotated[
        float, typer.Option("--budget-s", metavar="S", help="Device time; quick boards need less.")
    ] = 60.0,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Measure a few networks and operators again, and say whether the `stable` LUT still holds on the device.

    Without a `stable` version the latest is taken, which is said. Exit status: 0 it holds, 1 it has drifted, 2 the
    question cannot be answered as it was asked, 3 the device could not be measured.

    [bold]Examples[/bold]

    coordinator drift --device pi-01

    coordinator drift --device rpi3b --space fbnet-cifar10 --tolerance 3 --json
    """
    from coordinator.cli.connect import connected

    if not 0 < tolerance <= 100:
        raise BadInputError(f"--tolerance is {tolerance}; it must be above 0 and at most 100 percent")
    if not 1 <= budget_s <= 86400:
        raise BadInputError(f"--budget-s is {budget_s}; it must be 1 to 86400 seconds")
    filters = Filters(context, threads, batch, emulation, runtime, precision)
    with connected(coordinator) as link:
        lut, tag = compared(link, device, space, filters)
        verdict, run = measured(link, lut, device, budget_s, tolerance / 100)
    if as_json:
        about: dict[str, Any] = {
            "device": device,
            "lut": lut.reference,
            "digest": lut.digest,
            "tag": tag,
            "run": run.run_id,
        }
        about |= {"rounds": run.rounds, "rounds_flagged": run.rounds_flagged}
        print_json(about | verdict.document())
    else:
        _print(lut, tag, device, verdict)
        if run.rounds_flagged > run.rounds:
            console().print(
                f"{run.rounds_flagged} of {run.rounds + run.rounds_flagged} rounds were hot, throttled or disturbed "
                "while they ran: look at the board before you believe this",
                style="yellow",
            )
    if not verdict.holds:
        raise typer.Exit(EXIT_DRIFTED)


# ---- which LUT ------------------------------------------------------------------------------------------------------


def compared(link: Link, device: str, space: str, filters: Filters) -> tuple[Lut, str]:
    """The LUT of the device's type that people use, and the tag that says so.

    An emulated device is compared with a LUT of emulated devices, a real one with a LUT of real ones.
    """
    from coordinator.cli.options import one_of
    from lut_store.reference import LATEST, STABLE
    from protos.types import CONTEXTS, EMULATIONS

    one_of("context", filters.context, CONTEXTS, empty=True)
    one_of("emulation", filters.emulation, EMULATIONS, empty=True)
    device_type, emulated = type_of(device, link.client.devices())
    if not filters.emulation and emulated:
        filters = replace(filters, emulation="device")
    query = LutQuery(device_type, space, **vars(filters))
    tags = link.client.tags(query)
    if not filters.emulation:
        real = [tag for tag in tags if tag.emulation == "none"]
        if real:  # latency is measured under an emulated meter too, but energy is not
            query, tags = replace(query, emulation="none"), real
    tag = STABLE if any(move.name == STABLE for move in tags) else LATEST
    return link.client.lut(**vars(replace(query, version=tag))), tag


def type_of(device: str, devices: Sequence[Device]) -> tuple[str, bool]:
    """The type of a device that is named, or a device type itself; and whether what it names is emulated."""
    from coordinator.cli.local import DEVICE_TYPE, is_local

    if is_local(device):
        return DEVICE_TYPE, False
    named = [own for own in devices if own.name == device] or [own for own in devices if own.device_type == device]
    if not named:
        raise NotFoundError(str(unknown("device", device, sorted({own.name for own in devices}))))
    return named[0].device_type, all(own.emulation == "device" for own in named)


# ---- measuring ------------------------------------------------------------------------------------------------------


def measured(link: Link, lut: Lut, device: str, budget_s: float, tolerance: float) -> tuple[Verdict, Run]:
    """Run the reference set on the device; the verdict and the run. Exits with status 3 when that cannot be."""
    from coordinator.cli.outcome import detached, watched
    from coordinator.cli.profile import begun
    from coordinator.drift import judge, reference_run

    spec = reference_run(lut, device, budget_s=budget_s, seed=secrets.randbelow(1 << 31))
    with begun(link, spec) as run_id:
        run = watched(link, run_id)
        if run is None:
            detached(link, run_id)
            raise typer.Exit(EXIT_NOT_MEASURED)
    if run.state != "done":
        print(
            f"coordinator: {device} could not be measured: run {run_id} is {run.state}: {run.reason}", file=sys.stderr
        )
        raise typer.Exit(EXIT_NOT_MEASURED)
    report: dict[str, Any] = json.loads(run.report)
    return judge(report, tolerance), run


# ---- for people -----------------------------------------------------------------------------------------------------


def _print(lut: Lut, tag: str, device: str, verdict: Verdict) -> None:
    from rich.table import Table

    from coordinator.units import percent, scale_for
    from lut_store.entries import name_of
    from protos.types import CellRef

    out = console()
    which = "stable" if tag == "stable" else "latest, because no version is stable"
    says = "still holds on" if verdict.holds else "does NOT hold any more on"
    out.print(f"{lut.reference} ({which}) {says} {device}", style="bold green" if verdict.holds else "bold red")
    for reason in verdict.reasons:
        out.print(f"  {reason}")
    out.print(
        f"{verdict.anchors} anchor networks: {percent(verdict.shift)} ± {percent(verdict.halfwidth, sign=False)} "
        f"(tolerance {percent(verdict.tolerance, sign=False)})"
    )
    if verdict.halfwidth > verdict.tolerance:
        out.print(
            "This measurement is too short to see a change as small as the tolerance: raise --budget-s", style="yellow"
        )
    operators = verdict.operators
    if not operators:
        out.print("No operator could be compared: the LUT has no uncertainty, or the run was too short", style="dim")
        return
    out.print(
        f"{operators['tested']} operators: {percent(operators['shift'])} in the median; {operators['changed']} changed "
        f"beside that (false-discovery rate {100 * operators['fdr']:g} %)"
    )
    if operators["changes"]:
        scale = scale_for("latency", [change["then_s"] for change in operators["changes"]])
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("cell", "operator", f"then, {scale.unit}", f"now, {scale.unit}", "beside the median"):
            table.add_column(column, no_wrap=True)
        for change in operators["changes"][:LISTED]:
            cell = CellRef(change["layer"], change["op"])
            row = (name_of(lut, cell), change["label"], scale.text(change["then_s"]), scale.text(change["now_s"]))
            table.add_row(*row, percent(change["beside_shift"], digits=1))
        out.print(table)
