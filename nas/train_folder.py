"""What a training leaves on disk: settings, network, LUT, one row per epoch, a checkpoint and the result."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lut_store.formats import files
from lut_store.lut import Lut
from nas.blocks import build_network
from nas.checkpoint import TRAINING_FORMAT, load_checkpoint
from nas.child import Child, from_document
from nas.data import Dataset
from nas.git_state import git_state
from nas.run_folder import write_json
from nas.train import Evaluation, TrainConfig, TrainEpoch, Training
from protos.errors import BadInputError, StorageError

SETTINGS, NETWORK, LUT, EPOCHS = "training.json", "network.json", "lut.lut", "training.csv"
CHECKPOINT, RESULT = "training.pt", "result.json"


@dataclass(frozen=True, eq=False)
class Trained:
    """A training as its folder has it: `network` with the weights of the last whole epoch, in eval mode.

    mean, spread (C,): x = (pixel − mean) / spread, pixels from 0 to 1. subnormal: share of the activations on the test
    set; None before the training has ended.
    """

    config: TrainConfig
    child: Child
    network: nn.Sequential
    epochs: tuple[TrainEpoch, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    subnormal: float | None


def begin(folder: Path, config: TrainConfig, child: Child, data: Dataset, lut: Lut | None, *, resume: bool) -> None:
    """Make the folder and write down what the training rests on.

    Raises BadInputError when it holds a training already and `resume` is False: nothing is overwritten.
    """
    if resume:
        return
    if (folder / SETTINGS).exists():
        raise BadInputError(f"{folder} holds a training already: go on with it by --resume, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
    if lut is not None and not (folder / LUT).exists():
        lut.save(folder / LUT)
    write_json(folder / NETWORK, child.document())
    record = {
        "settings": asdict(config),
        "augmentation": config.augmentation,
        "network_digest": child.digest,
        "lut": child.lut,
        "lut_digest": child.lut_digest,
        "images": {"train": len(data.train), "test": len(data.test), "classes": list(data.classes)},
        "input": {"mean": data.mean.tolist(), "spread": data.spread.tolist()},
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in ("edgelut", "torch", "numpy")},
        "git": git_state(),
    }
    write_json(folder / SETTINGS, record)


def after_epoch(folder: Path, training: Training) -> None:
    """Write everything anew; the checkpoint last, so that it never stands for an epoch that the rest lacks."""
    text = io.StringIO(newline="")
    rows = [asdict(epoch) for epoch in training.done]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(folder / EPOCHS, text.getvalue().encode())
    training.save(folder / CHECKPOINT)


def finish(folder: Path, training: Training, result: Evaluation) -> dict[str, Any]:
    """Write and give the result of a whole training."""
    record = {"epochs": len(training.done), "test": asdict(result), **_costs(training.child)}
    write_json(folder / RESULT, record)
    return record


def _costs(child: Child) -> dict[str, Any]:
    document = child.document()
    document["space"] = child.space.name
    return document


def read(folder: Path) -> Trained:
    """The training of a folder. Raises BadInputError when there is none, or a file of it is damaged."""
    settings = _json(folder / SETTINGS)
    try:
        config = TrainConfig(**settings["settings"])
        classes = tuple(map(str, settings["images"]["classes"]))
        mean, spread = (tuple(map(float, settings["input"][name])) for name in ("mean", "spread"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{folder / SETTINGS} is not of this version of edgelut, or damaged: {error}") from error
    child = from_document(_json(folder / NETWORK), str(folder / NETWORK))
    path = folder / CHECKPOINT
    if not path.exists():
        raise BadInputError(f"{folder} holds no whole epoch yet: train first (nas train --output {folder} --resume)")
    state = load_checkpoint(path, config.digest, child.digest, TRAINING_FORMAT)
    network = build_network(child.space, child.choices)
    network.load_state_dict(state["network"])
    subnormal = _json(folder / RESULT)["test"]["subnormal"] if (folder / RESULT).exists() else None
    epochs = tuple(TrainEpoch(**epoch) for epoch in state["epochs"])
    return Trained(config, child, network.eval(), epochs, classes, mean, spread, subnormal)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInputError(
            f"{path.parent} holds no training ({path.name} is missing); make one with nas train"
        ) from None
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read, or is damaged: {error}") from error
    if not isinstance(found, dict):
        raise BadInputError(f"{path} is damaged: it holds no record")
    return found
