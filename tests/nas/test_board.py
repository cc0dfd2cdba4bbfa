"""The TensorBoard log: every epoch once, also after a resumed search, and θ as a picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.board import CELL_PIXELS, GROUPS, NOT_ALLOWED, Board, heatmap
from nas.config import SearchConfig
from nas.cost import CostTable
from nas.data import Images
from nas.search import Epoch, Search
from tests.lut_store.samples import lut_of, space_of

SPACE = space_of(((1, 16, 1), (2, 24, 2)), size=4)
LUT = lut_of(SPACE)


def search() -> Search:
    x = torch.randn(40, *SPACE.input_shape[1:], generator=torch.Generator().manual_seed(0))
    config = SearchConfig(epochs=4, warmup_epochs=1, batch=16, relaxation="single-path", theta_lr=0.1)
    return Search(config, CostTable.from_lut(LUT), Images(x, torch.arange(40) % 10), LUT.digest)


def test_curves_and_pictures_of_a_resumed_search(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def log(board: Board, job: Search, first: int, epoch: Epoch) -> None:
        if epoch.epoch >= first:
            board.add(epoch, job.probabilities, job.costs.allowed.numpy())

    for first in (0, 2):  # the second process repeats epochs 2 and 3
        with Board(tmp_path, SPACE, first) as board:
            job = search()
            job.run(partial(log, board, job, first))
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert set(found.Tags()["scalars"]) == set(GROUPS.values())
    for name, tag in GROUPS.items():
        events = found.Scalars(tag)
        wanted = [(epoch.epoch, getattr(epoch, name)) for epoch in job.done if getattr(epoch, name) is not None]
        assert [event.step for event in events] == [step for step, _ in wanted]
        assert [event.value for event in events] == pytest.approx([value for _, value in wanted], rel=1e-5)
    pictures = found.Images("θ/probabilities")
    assert [picture.step for picture in pictures] == [0, 1, 2, 3]
    assert (pictures[0].height, pictures[0].width) == (3 * CELL_PIXELS, 9 * CELL_PIXELS)


def test_the_picture_shows_what_is_not_allowed() -> None:
    allowed = np.array([[True, False], [True, True]])
    image = heatmap(np.array([[1.0, 0.0], [0.5, 0.5]]), allowed)
    middle = CELL_PIXELS // 2
    assert (image[middle, CELL_PIXELS + middle] == NOT_ALLOWED).all()
    assert (image[CELL_PIXELS + middle, middle] == image[CELL_PIXELS + middle, CELL_PIXELS + middle]).all()
