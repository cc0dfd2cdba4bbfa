"""Checkpoints: one file, whole or not there, of one configuration and one LUT. Tensors and plain values, no pickle."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from lut_store.formats import files
from protos.errors import BadInputError

FORMAT = "edgelut-search-2"
TRAINING_FORMAT = "edgelut-training-1"


def save_checkpoint(path: Path, state: dict[str, Any], config_digest: str, lut_digest: str, form: str = FORMAT) -> None:
    """Raises StorageError; then the checkpoint before still stands there. lut_digest: of a training, its network's."""
    buffer = io.BytesIO()
    torch.save({**state, "format": form, "config_digest": config_digest, "lut_digest": lut_digest}, buffer)
    files.write(path, buffer.getvalue())


def load_checkpoint(path: Path, config_digest: str, lut_digest: str, form: str = FORMAT) -> dict[str, Any]:
    """Raises BadInputError for a file that is none, or one of another configuration or LUT."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInputError(f"there is no checkpoint {path}; leave out --resume to begin") from None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise BadInputError(f"{path} is no checkpoint, or is damaged ({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get("format") != form:
        raise BadInputError(f"{path} is no checkpoint of this version of edgelut")
    what, other = ("search", "on another LUT") if form == FORMAT else ("training", "of another network")
    for name, wanted in (("config_digest", config_digest), ("lut_digest", lut_digest)):
        if state.get(name) != wanted:
            how = "with other settings" if name == "config_digest" else other
            raise BadInputError(f"{path} is of a {what} {how}; go on with the same, or begin in another folder")
    return state
