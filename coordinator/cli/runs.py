"""`coordinator runs`: what is being measured, and what was."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.options import CoordinatorOption, JsonOption, console, print_json
from coordinator.units import NOT_KNOWN, duration
from protos.errors import NotFoundError
from protos.types import ENDED_STATES, Run

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="List, watch, cancel and resume runs.", no_args_is_help=False)
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `coordinator runs list` prints it.")]
STYLES = {"done": "green", "failed": "red", "cancelled": "yellow"}
LISTED = 20


@app.callback(invoke_without_command=True)
def _runs(context: typer.Context) -> None:
    """List, watch, cancel and resume runs. Without a command: list."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="The newest so many.")] = LISTED,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the newest runs.

    [bold]Examples[/bold]

    coordinator runs list

    coordinator runs list --limit 100 --json
    """
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        runs = link.client.runs(limit)
    if as_json:
        print_json([record(run) for run in runs])
    elif runs:
        out = console()
        out.print(table(runs))
        for note in notes(runs):
            out.print(note, style="dim")
    else:
        print("No run yet. Begin one: coordinator profile --device local")


def record(run: Run) -> dict[str, Any]:
    """A run for JSON: of its specification what tells runs apart, and the space by its name."""
    document = dataclasses.asdict(dataclasses.replace(run, spec=None))
    if run.spec is not None:
        spec, plan = run.spec, run.spec.plan
        document["spec"] = {
            "device": spec.device,
            "space": spec.space.name,
            "preset": spec.preset,
            "purpose": spec.purpose,
            "meter": spec.meter,
            "dedupe": spec.dedupe,
            "seed": spec.seed,
            "plan": dataclasses.asdict(plan),
        }
    return document


@app.command()
def watch(run: RunArgument, coordinator: CoordinatorOption = "", as_json: JsonOption = False) -> None:
    """Attach to a run and show its progress until it ends, then its LUT. Ctrl-C detaches; the run goes on.

    [bold]Examples[/bold]

    coordinator runs watch 20260301-101500-4f2a
    """
    from coordinator.cli.connect import connected
    from coordinator.cli.profile import stay

    with connected(coordinator) as link:
        stay(link, run, as_json=as_json)


@app.command()
def cancel(run: RunArgument, coordinator: CoordinatorOption = "", as_json: JsonOption = False) -> None:
    """Stop a run. What it has measured is kept, and it can be resumed.

    [bold]Examples[/bold]

    coordinator runs cancel 20260301-101500-4f2a
    """
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        found = link.client.cancel(run)
    if as_json:
        print_json(record(found))
    else:
        print(f"Run {run} is {found.state}. Go on with it: coordinator runs resume {run}")


@app.command()
def resume(
    run: RunArgument,
    detach: Annotated[bool, typer.Option("--detach", metavar="", help="Print the run's id and return.")] = False,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Go on with a failed or cancelled run from what it has measured. A run on `local` gets its agent again.

    [bold]Examples[/bold]

    coordinator runs resume 20260301-101500-4f2a
    """
    from coordinator.cli.connect import connected
    from coordinator.cli.profile import agent_for, check_detach, stay

    with connected(coordinator) as link:
        spec = link.client.run(run).spec
        if spec is None:
            raise NotFoundError(f"run {run} has no specification")
        if detach:
            check_detach(link, spec.device)
        with agent_for(link, spec):
            link.client.resume(run)
            if detach:
                print(run)
            else:
                stay(link, run, as_json=as_json)


def table(runs: Sequence[Run]) -> Table:
    """One row per run."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "state", "device", "space", "preset", "rounds", "time", "begun", "LUT"):
        found.add_column(column, no_wrap=True)
    for run in runs:
        spec = run.spec
        found.add_row(
            run.run_id,
            run.state,
            spec.device if spec else NOT_KNOWN,
            spec.space.name if spec else NOT_KNOWN,
            (spec.preset if spec.purpose == "profile" else "validate") if spec else NOT_KNOWN,
            f"{run.rounds}+{run.rounds_flagged}!" if run.rounds_flagged else str(run.rounds),
            duration(run.latency_device_s + run.energy_device_s),
            time.strftime("%m-%d %H:%M", time.localtime(run.created_wall_s)),
            run.lut_reference or NOT_KNOWN,
            style=STYLES.get(run.state, "" if run.state in ENDED_STATES else "cyan"),
        )
    return found


def notes(runs: Sequence[Run]) -> list[str]:
    """What does not fit into a row: why a run waits or has ended, and what the signs mean."""
    found = [f"{run.run_id}: {run.reason}" for run in runs if run.reason and run.state != "done"]
    if any(run.rounds_flagged for run in runs):
        found.append("rounds: clean + flagged!; time: of the device")
    return found
