"""`nas search` and `nas derive`: from a LUT to θ, from θ to a child network."""

from __future__ import annotations

import sys
from contextlib import ExitStack
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
    notice,
    print_json,
    table,
)
from protos.errors import BadInputError

if TYPE_CHECKING:
    from lut_store.lut import Lut
    from nas.config import SearchConfig
    from nas.hardware import World
    from nas.search import Epoch, Search

INTERRUPTED = 130


def search(
    lut: LutOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The run's folder.")],
    config: Annotated[
        Path | None, typer.Option("--config", metavar="TOML", help="Settings; [knobs] for those of the loss.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, after the file; knobs as knobs.alpha=0.5."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", metavar="", help="Go on with the search in the folder.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard/--no-tensorboard", help="Log into DIR/tensorboard after every epoch.")
    ] = True,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Search: weights and θ of a supernet, with the LUT's costs in the loss. Ctrl-C keeps every whole epoch.

    [bold]Examples[/bold]

    nas search --lut rpi3b/fbnet-cifar10 --output run1 --set relaxation=single-path --set epochs=30 --set batch=64

    nas search --lut run1/lut.lut --output run1 --config search.toml --resume

    torchrun --nproc-per-node 4 -m nas search --lut rpi3b.lut --output run2 --set data=cifar10 --set data_folder=cifar
    """
    from nas.config import load_config
    from nas.hardware import joined

    chosen = load_config(config, settings or ())
    with joined() as world:
        _run(chosen, load_lut(lut, coordinator), output, world, resume=resume, board=tensorboard, as_json=as_json)


def _run(
    config: SearchConfig, lut: Lut, output: Path, world: World, *, resume: bool, board: bool, as_json: bool
) -> None:
    from nas import run_folder
    from nas.cost import CostTable
    from nas.data import load_images
    from nas.search import Search

    train, _ = load_images(config, lut.space)
    job = Search(config, CostTable.from_lut(lut), train, lut.digest, world)
    if resume:
        job.resume(output / run_folder.CHECKPOINT)
    job.check_memory()
    if not world.first:
        _follow(job)
        return
    run_folder.begin(output, config, lut, resume=resume, world=world)
    _train(job, output, board=board)
    record = run_folder.child(lut, job.choices)
    run_folder.write_json(output / run_folder.CHILD, record)
    if as_json:
        print_json({"child": record, "epochs": len(job.done), "theta": str(output / run_folder.THETA)})
        return
    _print_child(lut, [record])
    console().print(f"θ, the log and the child are in {output}")


def _follow(job: Search) -> None:
    """Work along; the first process writes and speaks."""
    try:
        job.run(lambda _epoch: None)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _train(job: Search, output: Path, *, board: bool) -> None:
    """Run to the end with a bar on stderr; Ctrl-C ends the command with a sentence."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from nas import run_folder
    from nas.board import Board
    from nas.search import DivergedError

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        log = stack.enter_context(Board(output / run_folder.BOARD, job.costs.space, len(job.done))) if board else None
        progress = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
        task = progress.add_task("search", total=job.config.epochs, completed=len(job.done))

        def after_epoch(epoch: Epoch) -> None:
            run_folder.after_epoch(output, job)
            if log is not None:
                log.add(epoch, job.probabilities, job.costs.allowed.numpy())
            progress.update(task, advance=1, description=_described(epoch))

        try:
            job.run(after_epoch)
        except DivergedError as error:
            raise DivergedError(f"{error} ({output / run_folder.CHECKPOINT})" if job.done else str(error)) from None
        except KeyboardInterrupt:
            progress.stop()
            kept = f"{len(job.done)} epochs are in {output}; go on with the same command and --resume"
            print(f"nas: interrupted; {kept if job.done else 'no epoch was complete'}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


def _described(epoch: Epoch) -> str:
    ce = epoch.weight_ce if epoch.theta_ce is None else epoch.theta_ce
    return f"CE {ce:.3f}, {epoch.expected_latency_s:.4g} s, {epoch.expected_energy_j:.4g} J"


def derive(
    lut: LutOption,
    theta: Annotated[Path, typer.Option("--theta", metavar="FILE", help="Logits: a line per layer, HANNA's text.")],
    samples: Annotated[
        int, typer.Option("--samples", min=0, metavar="N", help="Draw N architectures from θ; 0: the most probable.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the draws.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JSON", help="Write the child networks into this file.")
    ] = None,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Derive child networks from θ: the most probable one, or samples.

    [bold]Examples[/bold]

    nas derive --lut run1/lut.lut --theta run1/theta.txt --output child.json

    nas derive --lut rpi3b/fbnet-cifar10 --theta theta.txt --samples 5 --seed 1
    """
    if output is not None and output.exists():
        raise BadInputError(f"{output} is there already; name another file")
    found = load_lut(lut, coordinator)
    from nas import run_folder
    from nas.theta import argmax_choices, read_theta, sampled_choices

    logits = read_theta(theta, found.space)
    chosen = sampled_choices(logits, found.space, samples, seed) if samples else [argmax_choices(logits, found.space)]
    records = [run_folder.child(found, choices) for choices in chosen]
    if output is not None:
        run_folder.write_json(output, {"children": records})
    if as_json:
        print_json({"children": records})
    else:
        _print_child(found, records)


def _print_child(lut: Lut, records: list[dict[str, object]]) -> None:
    rows, names = table("child", "latency", "energy"), []
    for number, record in enumerate(records):
        choices = record["choices"]
        assert isinstance(choices, list)
        rows.add_row(str(number), f"{record['latency_s']:.6g} s", f"{record['energy_j']:.6g} J")
        names.append(f"{number}: {names_of(lut.space, choices)}")
    for part in (lut.reference, notice(lut), rows, *names):
        if part:
            console().print(part)
