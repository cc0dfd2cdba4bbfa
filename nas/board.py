"""The log of a search for TensorBoard: curves of every epoch, and θ as a picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from lut_store.metric import Array, BoolArray
from nas.search import Epoch
from protos.errors import BadInputError
from protos.types import SearchSpace

CELL_PIXELS = 16
NOT_ALLOWED = 235  # light grey
GROUPS = {
    "weight_ce": "loss/weights: cross entropy",
    "theta_ce": "loss/θ: cross entropy",
    "theta_loss": "loss/θ: with costs",
    "weight_accuracy": "accuracy/images of the weights",
    "theta_accuracy": "accuracy/images of θ",
    "expected_latency_s": "latency in s/expected",
    "argmax_latency_s": "latency in s/most probable",
    "expected_energy_j": "energy in J/expected",
    "argmax_energy_j": "energy in J/most probable",
    "temperature": "θ/temperature",
    "entropy": "θ/entropy in nats",
}


class Board:
    """Writes `folder`; epochs from `first` on replace those that an earlier process wrote."""

    def __init__(self, folder: Path, space: SearchSpace, first: int) -> None:
        """Raises BadInputError when TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BadInputError(
                "TensorBoard is not installed: pip install tensorboard, or search with --no-tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=first if first else None)
        if not first:
            names = "".join(f"\n- column {column}: {name}" for column, name in enumerate(space.op_names))
            text = f"Rows: layers, the first on top. Dark violet: 0, yellow: 1, grey: not allowed.\n{names}"
            self._writer.add_text("θ/how to read the picture", text, 0)

    def add(self, epoch: Epoch, probabilities: Array, allowed: BoolArray) -> None:
        """One epoch; `probabilities` (L, K) are θ's softmax."""
        for name, value in asdict(epoch).items():
            if name in GROUPS and value is not None:
                self._writer.add_scalar(GROUPS[name], value, epoch.epoch)
        image = heatmap(probabilities, allowed)
        self._writer.add_image("θ/probabilities", image, epoch.epoch, dataformats="HWC")
        self._writer.flush()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def heatmap(probabilities: Array, allowed: BoolArray) -> npt.NDArray[np.uint8]:
    """(L, K) as an image (L · CELL_PIXELS, K · CELL_PIXELS, 3), from 0 to 1 in matplotlib's viridis."""
    from matplotlib import colormaps

    colours = (colormaps["viridis"](probabilities)[..., :3] * 255).astype(np.uint8)  # (L, K, 3)
    colours[~allowed] = NOT_ALLOWED
    image = colours.repeat(CELL_PIXELS, 0).repeat(CELL_PIXELS, 1)
    image[::CELL_PIXELS], image[:, ::CELL_PIXELS] = 255, 255  # lines between the cells
    return image
