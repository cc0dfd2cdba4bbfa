"""`nas train`, `nas evaluate` and `nas export`: from a child network to weights that other programs can use."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.options import CoordinatorOption, JsonOption, console, load_lut, names_of, print_json, table
from protos.errors import BadInputError

if TYPE_CHECKING:
    from lut_store.lut import Lut
    from nas.child import Child
    from nas.train import Evaluation, TrainEpoch, Training

INTERRUPTED = 130

ChildOption = Annotated[
    Path | None,
    typer.Option("--child", metavar="JSON", help="What `nas search`, `derive` or `optimise --json` wrote."),
]
NumberOption = Annotated[
    int, typer.Option("--number", min=0, metavar="N", help="Which one, when the file names several; from 0.")
]
RunOption = Annotated[Path, typer.Option("--run", metavar="DIR", help="The folder of a training.")]


def train(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The training's folder.")],
    lut: Annotated[
        str,
        typer.Option("--lut", metavar="REF|FILE", help=r"The child's LUT: TYPE\[/SPACE]\[@VERSION], or a LUT file."),
    ] = "",
    space: Annotated[
        str, typer.Option("--space", metavar="NAME|FILE", help="The child's space, where there is no LUT: a baseline.")
    ] = "",
    child: ChildOption = None,
    number: NumberOption = 0,
    config: Annotated[Path | None, typer.Option("--config", metavar="TOML", help="Settings.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, after the file.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with the training in the folder.")
    ] = False,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Train a child network from new weights. Ctrl-C keeps every whole epoch.

    [bold]Examples[/bold]

    nas train --lut run1/lut.lut --child run1/child.json --output child1

    nas train --space mobilenetv2-cifar10 --output mobilenet --set data=cifar10 --set data_folder=/data/cifar
    """
    from nas.config import load_settings
    from nas.train import TrainConfig

    chosen = load_settings(TrainConfig, config, settings or ())
    network, found = find_child(lut, space, child, number, coordinator)
    from nas import train_folder
    from nas.data import load_dataset
    from nas.train import Training, evaluate

    data = load_dataset(chosen.source, network.space)
    job = Training(chosen, network, data)
    if resume:
        job.resume(output / train_folder.CHECKPOINT)
    train_folder.begin(output, chosen, network, data, found, resume=resume)
    _run(job, output)
    record = train_folder.finish(output, job, evaluate(job.network, data.test, job.device, activations=True))
    if as_json:
        print_json({"training": str(output), **record})
        return
    out = console()
    out.print(names_of(network.space, network.choices))
    out.print(_evaluation(record["test"]))
    out.print(f"weights, log and result are in {output}; next: nas export --run {output} --output child.onnx")


def find_child(lut: str, space: str, path: Path | None, number: int, coordinator: str) -> tuple[Child, Lut | None]:
    """The child that the options name, with the LUT where there is one."""
    if bool(lut) == bool(space):
        raise BadInputError("say either --lut (a LUT, which has its space) or --space (a space or a baseline)")
    from nas.child import Child, child_of, only_child, read_choices

    found = load_lut(lut, coordinator) if lut else None
    if found is None:
        from nas.space import load_space

        own = load_space(space)
        return Child(own, only_child(own) if path is None else read_choices(path, own, number)), None
    choices = only_child(found.space) if path is None else read_choices(path, found.space, number)
    return child_of(found, choices), found


def _run(job: Training, output: Path) -> None:
    """Run to the end with a bar on stderr; Ctrl-C ends the command with a sentence."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from nas import train_folder

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("train", total=job.config.epochs, completed=len(job.done))

        def after_epoch(epoch: TrainEpoch) -> None:
            train_folder.after_epoch(output, job)
            said = f"CE {epoch.train_ce:.3f}, test {epoch.test_accuracy:.1%}"
            progress.update(task, advance=1, description=said)

        try:
            job.run(after_epoch)
        except KeyboardInterrupt:
            progress.stop()
            kept = f"{len(job.done)} epochs are in {output}; go on with the same command and --resume"
            print(f"nas: interrupted; {kept if job.done else 'no epoch was complete'}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


def _evaluation(test: dict[str, Any]) -> str:
    text = f"accuracy {test['accuracy']:.2%} ({test['accuracy_lo']:.2%} to {test['accuracy_hi']:.2%}) on "
    text += f"{test['images']} test images, cross entropy {test['ce']:.4f}"
    return text + (f"; {test['subnormal']:.2%} of the activations are subnormal" if test["subnormal"] else "")


def evaluate(
    run: RunOption,
    data: Annotated[str, typer.Option("--data", metavar="NAME", help="Other images than those of the training.")] = "",
    data_folder: Annotated[str, typer.Option("--data-folder", metavar="DIR", help="Where they are.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Accuracy of a trained child on the test images, with its 95 % interval.

    [bold]Examples[/bold]

    nas evaluate --run child1
    """
    from nas import train_folder

    trained = train_folder.read(run)
    from dataclasses import replace

    from nas.data import load_dataset
    from nas.hardware import pick_device
    from nas.train import evaluate as measure

    source = trained.config.source
    if data or data_folder:
        source = replace(source, data=data or source.data, data_folder=data_folder or source.data_folder)
    found = load_dataset(source, trained.child.space)
    if found.classes != trained.classes:
        raise BadInputError(
            f"{source.data} has the classes {_short(found.classes)}; {run} was trained on {_short(trained.classes)}"
        )
    device = pick_device(trained.config.device)
    result: Evaluation = measure(trained.network.to(device), found.test, device, activations=True)
    if as_json:
        print_json({"training": str(run), "data": source.data, "epochs": len(trained.epochs), **asdict(result)})
        return
    if len(trained.epochs) < trained.config.epochs:
        console().print(f"after {len(trained.epochs)} of {trained.config.epochs} epochs:")
    console().print(_evaluation(asdict(result)))


def _short(classes: tuple[str, ...]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', …' if len(classes) > 3 else ''})"


def export(
    run: RunOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Ends in .pt (state dict) or .onnx (whole network).")
    ],
    as_json: JsonOption = False,
) -> None:
    """Write a trained child for other programs. ONNX is checked against the network itself.

    [bold]Examples[/bold]

    nas export --run child1 --output child1.onnx
    """
    from nas import train_folder
    from nas.export import export as write

    trained = train_folder.read(run)
    said = write(trained, output)
    record = {"file": str(output), "bytes": output.stat().st_size, **said}
    record |= {"mean": list(trained.mean), "spread": list(trained.spread), "classes": list(trained.classes)}
    if as_json:
        print_json(record)
        return
    rows = table("", "")
    rows.add_row("file", f"{output}, {record['bytes']} bytes")
    rows.add_row("checked with", str(said["checked"]))
    rows.add_row("input", f"(pixel - mean) / spread, pixels from 0 to 1; mean {_list(trained.mean)}")
    rows.add_row("", f"spread {_list(trained.spread)}")
    console().print(rows)


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
