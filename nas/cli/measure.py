"""`nas measure`: a child network on the device itself, beside what its LUT predicts."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.options import (
    CoordinatorOption,
    JsonOption,
    console,
    load_lut,
    names_of,
    notice,
    origin,
    print_json,
    table,
)
from nas.cli.train import ChildOption, NumberOption
from protos.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from coordinator.client import Coordinator
    from lut_store.lut import Lut
    from nas.measure import Compared, MeasuredChild
    from protos.types import Run, RunSpec

INTERRUPTED, FAILED = 130, 1
SHIFT_FINDING = 0.02  # of the anchors: the board is not as it was
NOT_KNOWN = "–"
MEASURED = "measured.json"


def measure(
    device: Annotated[
        str, typer.Option("--device", "-d", metavar="D", help="A device type or a device's name at the coordinator.")
    ],
    lut: Annotated[
        str, typer.Option("--lut", metavar="REF|FILE", help="The LUT that predicts. Default: that of --run.")
    ] = "",
    child: ChildOption = None,
    number: NumberOption = 0,
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", metavar="DIR", help="The folder of a training or of a search; repeatable, in one go."),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", "-p", metavar="quick|standard|thorough", help="How much device time.")
    ] = "quick",
    meter: Annotated[
        str, typer.Option("--meter", metavar="KIND:PORT|none", help="Default: the meter that the agent has.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="JSON", help="Write the result there. Default: measured.json in --run."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the order, and of other networks.")] = 0,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Measure child networks end to end, latency and energy, beside the LUT's prediction and its error.

    The agent builds the networks itself: weights do not travel, because latency and energy do not depend on them.

    [bold]Examples[/bold]

    nas measure --device rpi3b --run child1

    nas measure --device rpi3b --run sweep1/trials/01 --run sweep1/trials/02

    nas measure --device rpi3b --lut rpi3b/fbnet-cifar10@3 --child run1/child.json --json
    """
    if device == "local":
        raise BadInputError(
            "--device local has no agent that goes on: start `coordinator serve` and `edgelut-agent run --device-type "
            "TYPE` on this machine, and name that type"
        )
    found, subjects = _subjects(lut, child, number, run or (), coordinator)
    outputs = _outputs(output, subjects)
    from coordinator.client import Coordinator
    from nas.measure import compared, measurement_run

    wanted = list(dict.fromkeys(subject.choices for subject in subjects))
    spec = measurement_run(found, device, wanted, preset=preset, meter=meter, seed=seed)
    with Coordinator(coordinator or None) as client:
        _check_known(client, found)
        ended = _measured(client, spec)
    report = json.loads(ended.report)
    results = {result.choices: result for result in compared(found, report)}
    records = [_record(found, report, results[subject.choices], device, subject) for subject in subjects]
    from nas.run_folder import write_json

    for path, record in zip(outputs, records, strict=True):
        if path is not None:
            write_json(path, record)
    if as_json:
        print_json({"children": records})
        return
    out = console()
    for part in (found.reference, notice(found), _shift(report)):
        if part:
            out.print(part)
    for subject in subjects:
        _print(found, results[subject.choices], subject)


@dataclass(frozen=True)
class _Subject:
    """What is measured, the folder that it comes from, and a remark about its weights."""

    choices: tuple[int, ...]
    folder: Path | None = None
    remark: str = ""


def _check_known(client: Coordinator, lut: Lut) -> None:
    """The coordinator compares with a version that it holds. Raises NotFoundError when it does not hold this one."""
    try:
        client.lut(digest=lut.digest)
    except NotFoundError as error:
        raise NotFoundError(
            f"the coordinator at {client.address} does not hold this very {lut.reference}, which it is to "
            "compare with: put the file into its database, on its machine, with `coordinator lut import FILE.lut`"
        ) from error


def _outputs(output: Path | None, subjects: Sequence[_Subject]) -> list[Path | None]:
    """The file of each result. Raises BadInputError when one is there already."""
    if output is not None and len(subjects) > 1:
        raise BadInputError("--output is one file: with several --run, each folder gets its own measured.json")
    outputs = [output or (None if subject.folder is None else subject.folder / MEASURED) for subject in subjects]
    for path in outputs:
        if path is not None and path.exists():
            raise BadInputError(f"{path} is there already; name another file with --output, or move it away")
    return outputs


def _subjects(
    lut: str, child: Path | None, number: int, folders: Sequence[Path], coordinator: str
) -> tuple[Lut, list[_Subject]]:
    """The LUT, and the networks to measure."""
    if not folders:
        if not lut:
            raise BadInputError("say what to measure: --run DIR (a training or a search), or --lut and --child")
        from nas.child import only_child, read_choices

        found = load_lut(lut, coordinator)
        choices = only_child(found.space) if child is None else read_choices(child, found.space, number)
        return found, [_Subject(choices)]
    if child is not None:
        raise BadInputError("--run names a folder, which has its child: leave out --child")
    from nas import run_folder

    first = folders[0] / run_folder.LUT
    if not lut and not first.exists():
        raise BadInputError(f"{folders[0]} holds no training or search with a LUT; name one: --lut REF|FILE")
    found = load_lut(lut or str(first), coordinator)
    return found, [_of_folder(folder, found) for folder in folders]


def _of_folder(folder: Path, lut: Lut) -> _Subject:
    from nas import run_folder, train_folder

    if not (folder / train_folder.SETTINGS).exists() and (folder / run_folder.CHILD).exists():
        from nas.child import read_choices

        return _Subject(read_choices(folder / run_folder.CHILD, lut.space), folder)
    trained = train_folder.read(folder)
    if lut.space.digest != trained.child.space.digest:
        raise BadInputError(
            f"{lut.reference} is of another space ({lut.space.name}) than {folder} ({trained.child.space.name})"
        )
    remark = ""
    if trained.subnormal:
        remark = (
            f"{trained.subnormal:.2%} of the activations on its test images are subnormal numbers, with which some "
            "processors calculate slower than was measured"
        )
    return _Subject(trained.child.choices, folder, remark)


def _measured(client: Coordinator, spec: RunSpec) -> Run:
    """Submit the run and stay with it to its end. Exits when it fails, or on Ctrl-C."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    client.submit(spec, run_id)
    try:
        ended = _followed(client, run_id)
    except KeyboardInterrupt:
        print(
            f"nas: interrupted; run {run_id} goes on: `coordinator runs watch {run_id}` shows it, "
            f"`coordinator runs cancel {run_id}` stops it",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED) from None
    if ended.state != "done":
        print(f"nas: run {run_id} is {ended.state}: {ended.reason}", file=sys.stderr)
        raise typer.Exit(FAILED)
    return ended


def _followed(client: Coordinator, run_id: str) -> Run:
    """The run's last state, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    ended: Run | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("waiting", total=1.0, left="")
        for ended in client.watch_run(run_id):
            spent_s = max(time.time() - ended.created_wall_s, 0.0)
            done = spent_s / (spent_s + ended.eta_s) if ended.eta_s else None
            left = "" if ended.eta_s is None else f"ETA {round(ended.eta_s)} s"
            said = {"queued": f"waiting: {ended.reason}", "latency": "measuring latency", "energy": "measuring energy"}
            progress.update(task, completed=done, description=said.get(ended.state, ended.state), left=left)
        progress.update(task, completed=1.0, left="")
    assert ended is not None
    return ended


def _record(lut: Lut, report: dict[str, Any], result: MeasuredChild, device: str, subject: _Subject) -> dict[str, Any]:
    return {
        "choices": list(result.choices),
        "latency_s": result.latency.document(),
        "energy_j": result.energy.document(),
        "anchors": report["anchors"],
        "anchor_factor": report["anchor_factor"],
        "device": device,
        "run": report["run"],
        "folder": None if subject.folder is None else str(subject.folder),
        **origin(lut),
    }


def _shift(report: dict[str, Any]) -> str:
    """What the anchors say of the board; "" when there are none."""
    factor = report["anchor_factor"]
    if factor is None:
        return ""
    return f"{report['anchors']} anchor networks take {factor - 1:+.1%} against the time when the LUT was made" + (
        ": the device is not as it was" if abs(factor - 1) > SHIFT_FINDING else ""
    )


def _print(lut: Lut, result: MeasuredChild, subject: _Subject) -> None:
    out, rows = console(), table("", "measured", "± se", "predicted", "95 % interval", "error")
    for name, unit, numbers in (("latency", "s", result.latency), ("energy above idle", "J", result.energy)):
        rows.add_row(name, *_cells(numbers, unit))
    lacks = result.energy.measured is None
    where = "" if subject.folder is None else f"{subject.folder}: "
    without = "no energy: without a meter, or without energy in the LUT, there is none to compare" if lacks else ""
    for part in (where + names_of(lut.space, result.choices), rows, subject.remark, without):
        if part:
            out.print(part)


def _cells(numbers: Compared, unit: str) -> tuple[str, ...]:
    def shown(value: float | None, digits: int = 6) -> str:
        return NOT_KNOWN if value is None else f"{value:.{digits}g} {unit}"

    interval = NOT_KNOWN if numbers.lo is None or numbers.hi is None else f"{numbers.lo:.5g} to {numbers.hi:.5g} {unit}"
    error = NOT_KNOWN if numbers.error is None else f"{numbers.error:+.2%}"
    return shown(numbers.measured), shown(numbers.se, 2), shown(numbers.predicted), interval, error
