"""From a submitted run to what the operator reads: progress, then the LUT or the validation report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from coordinator.cli import progress, show
from coordinator.cli.connect import Link
from coordinator.cli.local import is_local
from coordinator.cli.lut_lint import section
from coordinator.cli.options import console, print_json
from coordinator.record import errors_of
from coordinator.units import percent
from lut_store.lut import Lut
from protos.errors import UnavailableError
from protos.types import LutQuery, Run

SHIFT_FINDING = 0.02  # of the anchors: beyond this two runs of one board do not describe the same board
EXIT_FAILED = 1


def watched(link: Link, run_id: str) -> Run | None:
    """Show the run on stderr until it ends, and give its last state; None when the operator pressed Ctrl-C.

    Raises UnavailableError when the coordinator goes away meanwhile, with how to attach again.
    """
    try:
        return progress.follow(link.client.watch_run(run_id), console(stderr=True))
    except KeyboardInterrupt:
        return None
    except UnavailableError as error:
        again = f"coordinator runs watch {run_id}{link.option}"
        raise UnavailableError(
            f"{error}. The run goes on when the coordinator is back; watch it again: {again}"
        ) from error


def detached(link: Link, run_id: str) -> None:
    """After Ctrl-C: a daemon's run goes on; one whose coordinator or agent ends with us is stopped tidily."""
    spec = link.client.run(run_id).spec
    if link.embedded or (spec is not None and is_local(spec.device)):
        run = link.client.cancel(run_id)
        print(
            f"\nRun {run_id} is {run.state}, because its agent ends with this command. It keeps what it has measured.",
            file=sys.stderr,
        )
        print(f"Go on with it:  coordinator runs resume {run_id}{link.option}", file=sys.stderr)
    else:
        print(f"\nDetached. Run {run_id} goes on.", file=sys.stderr)
        print(f"Watch it again:  coordinator runs watch {run_id}{link.option}", file=sys.stderr)
        print(f"Stop it:         coordinator runs cancel {run_id}{link.option}", file=sys.stderr)


def finish(link: Link, run: Run, *, as_json: bool) -> None:
    """Print what came of the run. Exits with status 1 when it did not come to its end."""
    if run.state != "done":
        reason = f": {run.reason}" if run.reason else ""
        print(f"coordinator: run {run.run_id} {_ended(run.state)}{reason}", file=sys.stderr)
        print(
            f"What it has measured is kept; go on with it: coordinator runs resume {run.run_id}{link.option}",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_FAILED)
    if run.spec is not None and run.spec.purpose == "validate":
        report_validation(run, as_json=as_json)
    else:
        report_lut(link, run, as_json=as_json)


def _ended(state: str) -> str:
    return "was cancelled" if state == "cancelled" else "failed"


def report_lut(link: Link, run: Run, *, as_json: bool) -> None:
    """Summary, validation, version, where it is, and the next command."""
    lut = link.client.lut(digest=run.lut_digest)
    findings = link.client.findings(LutQuery(digest=lut.digest))
    if as_json:
        from lut_store.document import to_document

        document = to_document(lut)
        print_json({"run": run.run_id, "reference": lut.reference, **document, "lint": [asdict(f) for f in findings]})
        return
    out = console()
    print_lut(lut, out)
    out.print(section(lut, findings))
    out.print()
    out.print(f"It is {lut.reference}, from run {run.run_id}, in {link.where}.")
    out.print("Next:")
    for command in (
        f"coordinator lut show {lut.reference}{link.option}",
        f"coordinator lut plot {lut.reference} --output heatmap.png{link.option}",
        f"coordinator lut export {lut.reference} --output {lut.configuration.device_type}.lut{link.option}",
    ):
        out.print(f"  {command}")


def print_lut(lut: Lut, out: Console) -> None:
    """What it is, what it costs, how true it is."""
    out.print()
    for part in (show.heading(lut), show.summary(lut), show.validation(lut)):
        out.print(part)
        out.print()


def report_validation(run: Run, *, as_json: bool) -> None:
    """Fresh networks against an existing LUT, without and with the anchors' rescaling."""
    report: dict[str, Any] = json.loads(run.report)
    if as_json:
        print_json(report)
        return
    out = console()
    out.print()
    out.print(Text(f"{report['lut']} against fresh networks (run {run.run_id})", style="bold"))
    out.print(Group(_validation_table(report), *(Text(note) for note in validation_notes(report))))


def _validation_table(report: Mapping[str, Any]) -> Table:
    latency = report["latency"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in (
        "latency of the LUT against measured networks",
        "bias",
        "MAPE",
        "max",
        "ρ",
        "noise floor",
        "networks",
    ):
        table.add_column(column, justify="left" if column.startswith("latency") else "right", no_wrap=True)
    floor = percent(latency.get("noise_floor_mape"), sign=False)
    for key, label in (("plain", "as it stands"), ("rescaled", "rescaled by the anchors")):
        if latency.get(key):
            errors = errors_of(latency[key])
            table.add_row(label, *show.error_cells(errors), floor, str(errors.n))
    return table


def validation_notes(report: Mapping[str, Any]) -> list[str]:
    """What the anchors say, in sentences."""
    factor = report.get("anchor_factor")
    if factor is None:
        return ["No anchor network is common to both, so nothing can be said about a shift of the device."]
    shift = float(factor) - 1
    moved = f"{report['anchors']} anchor networks take {percent(shift)} against the time when the LUT was made"
    if abs(shift) <= SHIFT_FINDING:
        return [f"{moved}."]
    return [
        f"FINDING: {moved}: a shift above {percent(SHIFT_FINDING, sign=False, digits=0)}.",
        "The device is not as it was (clock, temperature, other software?): rescale by the anchors, or profile again.",
    ]
