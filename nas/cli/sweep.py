"""`nas sweep`: many searches over one LUT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import (
    CoordinatorOption,
    JsonOption,
    LutOption,
    console,
    load_lut,
    notice,
    origin,
    print_json,
    table,
)
from protos.errors import BadInputError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.grid import Setting
    from nas.sweep import Trial

ENGINES = ("local", "ray")
FAILED, INTERRUPTED = 1, 130


def sweep(
    lut: LutOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The sweep's folder.")],
    grid: Annotated[str, typer.Option("--grid", metavar="hanna30|CSV", help="The knob settings.")] = "hanna30",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="TOML", help="Settings that all searches share.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One of them, after the file.")
    ] = None,
    train: Annotated[bool, typer.Option("--train", metavar="", help="Also train every child.")] = False,
    train_settings: Annotated[
        list[str] | None, typer.Option("--train-set", metavar="KEY=VALUE", help="A setting of `nas train`.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", metavar="local|ray", help="Where searches run.")] = "local",
    jobs: Annotated[int, typer.Option("--jobs", min=1, metavar="N", help="Searches at a time (local).")] = 1,
    ray_address: Annotated[
        str, typer.Option("--ray-address", metavar="HOST:PORT|auto", help="The cluster; none: Ray on this machine.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with the sweep in the folder; what failed is repeated.")
    ] = False,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Search once for each knob setting. A search that fails fails alone; Ctrl-C keeps every whole epoch of each.

    hanna30 is fifteen settings dominated by energy and fifteen by latency, counted in costs of the uniform mixture.

    [bold]Examples[/bold]

    nas sweep --lut rpi3b/fbnet-cifar10 --grid hanna30 --output sweep1 --set relaxation=single-path --jobs 2

    nas sweep --lut sweep1/lut.lut --output sweep1 --set relaxation=single-path --resume

    nas sweep --lut rpi3b.lut --output sweep2 --set epochs=30 --train --train-set epochs=60

    nas report sweep1
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if train_settings and not train:
        raise BadInputError("--train-set belongs to --train")
    if ray_address and engine != "ray":
        raise BadInputError("--ray-address belongs to --engine ray")
    from nas import sweep as sweeps
    from nas.config import load_config, load_settings
    from nas.cost import CostTable
    from nas.grid import HANNA30, load_grid, previewed
    from nas.train import TrainConfig

    words = list(settings or ())
    if grid == HANNA30:
        words.append("normalise=true")
    shared = load_config(config, words)
    if shared.loss != "hanna" or shared.knobs:
        raise BadInputError("a sweep sets the knobs of the loss hanna itself; leave out loss and knobs")
    training = load_settings(TrainConfig, None, train_settings or ()) if train else None
    chosen = load_grid(grid)
    found = load_lut(lut, coordinator)
    seen = previewed(chosen, CostTable.from_lut(found).uniform(), normalise=shared.normalise)
    output = output.resolve()  # the same on every node of a cluster
    cluster = sweeps.connect_ray(ray_address) if engine == "ray" else None
    trials = sweeps.begin(output, found, shared, seen, training, resume=resume)
    if not as_json:
        half = sum(setting.dominant == "energy" for setting in seen)
        console().print(f"{found.reference}: {len(seen)} settings, {half} of them dominated by energy by the preview")
        if notice(found):
            console().print(notice(found))
    waiting = [trial for trial in trials if not trial.done]
    if engine == "ray":
        _watch(sweeps.run_ray(waiting, cluster), trials, output)
    else:
        _watch(sweeps.run_local(waiting, jobs), trials, output)
    _print(trials, seen, output, {**origin(found)} if as_json else None)
    if any(trial.failure for trial in trials):
        raise typer.Exit(FAILED)


def _watch(ended: Iterable[tuple[Trial, str]], trials: list[Trial], output: Path) -> None:
    """A bar on stderr, and a line for every trial that failed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("sweep", total=len(trials), completed=sum(trial.done for trial in trials))
        try:
            for trial, reason in ended:
                if reason:
                    progress.console.print(f"trial {trial.number} failed: {reason}", markup=False, soft_wrap=True)
                progress.update(task, advance=1)
        except KeyboardInterrupt:
            progress.stop()
            done = sum(trial.done for trial in trials)
            print(
                f"nas: interrupted; {done} of {len(trials)} searches are done in {output}, and what runs has kept its "
                "whole epochs; go on with the same command and --resume",
                file=sys.stderr,
            )
            raise typer.Exit(INTERRUPTED) from None


def _print(trials: list[Trial], settings: tuple[Setting, ...], output: Path, origin: dict[str, object] | None) -> None:
    """All trials: a table, or (with the LUT's `origin`) JSON."""
    import json

    from nas import run_folder

    children = [json.loads((t.folder / run_folder.CHILD).read_text()) if t.searched else None for t in trials]
    if origin is not None:
        entries = [
            {
                "trial": trial.number,
                "knobs": vars(setting.knobs),
                "dominant": setting.dominant,
                "child": child,
                "failure": trial.failure,
            }
            for trial, setting, child in zip(trials, settings, children, strict=True)
        ]
        print_json({"trials": entries, **origin})
        return
    rows = table("trial", "α", "β", "γ", "δ", "dominant", "latency", "energy")
    for trial, setting, child in zip(trials, settings, children, strict=True):
        cost = (f"{child['latency_s']:.6g} s", f"{child['energy_j']:.6g} J") if child else ("failed", "")
        knobs = (f"{value:g}" for value in vars(setting.knobs).values())
        rows.add_row(str(trial.number), *knobs, setting.dominant, *cost)
    console().print(rows)
    console().print(f"tables and pictures: nas report {output}")
