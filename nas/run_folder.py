"""What a search leaves on disk: settings, LUT, one row per epoch, θ and a checkpoint, so that it can be repeated."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lut_store.formats import files
from lut_store.lut import Lut
from nas.config import SearchConfig
from nas.git_state import git_state
from nas.hardware import World
from nas.search import Epoch, Search
from nas.theta import write_theta
from protos.errors import BadInputError, StorageError

CHECKPOINT = "checkpoint.pt"
SETTINGS, LUT, EPOCHS, THETA, CHILD = "settings.json", "lut.lut", "epochs.csv", "theta.txt", "child.json"
BOARD = "tensorboard"


def begin(folder: Path, config: SearchConfig, lut: Lut, *, resume: bool, world: World | None = None) -> None:
    """Make the folder and write down what the search rests on.

    Raises BadInputError when it holds whole epochs already and `resume` is False: nothing is overwritten.
    """
    if resume:
        return
    if (folder / CHECKPOINT).exists():
        raise BadInputError(f"{folder} holds a search already: go on with it by --resume, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
    lut.save(folder / LUT)
    settings = {
        "settings": asdict(config),
        "lut": lut.reference,
        "lut_digest": lut.digest,
        "processes": (world or World()).size,
        **origin_of_code(),
    }
    write_json(folder / SETTINGS, settings)


def origin_of_code() -> dict[str, Any]:
    """Versions, threads, and the state of the checkout."""
    return {
        "versions": {name: metadata.version(name) for name in ("edgelut", "torch", "numpy")},
        "threads": torch.get_num_threads(),
        "git": git_state(),
    }


def write_json(path: Path, value: Any) -> None:
    files.write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def after_epoch(folder: Path, search: Search) -> None:
    """Write everything anew; the checkpoint last, so that it never stands for an epoch that the rest lacks."""
    files.write(folder / EPOCHS, _csv(search.done))
    write_theta(folder / THETA, search.logits, search.costs.space)
    search.save(folder / CHECKPOINT)


def _csv(epochs: Sequence[Epoch]) -> bytes:
    text = io.StringIO(newline="")
    rows = [asdict(epoch) for epoch in epochs]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def child(lut: Lut, choices: Sequence[int]) -> dict[str, Any]:
    """A child network as a record: its choices, and what the LUT predicts for it."""
    latency_s, energy_j = lut.predict([list(choices)])[0].tolist()
    return {
        "space": lut.space.name,
        "space_digest": lut.space.digest,
        "choices": [int(op) for op in choices],
        "ops": [lut.space.op_names[op] for op in choices],
        "latency_s": latency_s,
        "energy_j": energy_j,
        "lut": lut.reference,
        "lut_digest": lut.digest,
        "fixed_included": lut.fixed_included,
    }
