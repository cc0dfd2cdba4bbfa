"""Two processes share a search: torchrun, gloo, one batch between them."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from nas import run_folder
from nas.config import load_config
from nas.cost import CostTable
from nas.data import load_images
from nas.search import Search
from nas.theta import read_theta
from tests.lut_store.samples import lut_of, space_of

SPACE = space_of(((1, 16, 1), (2, 24, 2)), size=4)
SETTINGS = (
    "data=synthetic",
    "relaxation=single-path",
    "epochs=2",
    "warmup_epochs=1",
    "samples=155",  # 124 for the weights, 31 for θ
    "batch=30",
    "theta_lr=0.05",
    "device=cpu",
    "seed=3",
)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    """Batches of 30 images are shared out as 15 and 15, the last of θ with one image as 1 and none."""
    lut = lut_of(SPACE)
    lut.save(tmp_path / "sample.lut")
    config = load_config(None, SETTINGS)
    one = Search(config, CostTable.from_lut(lut), load_images(config, SPACE)[0], lut.digest)
    one.run(lambda _epoch: None)

    words = "-m torch.distributed.run --standalone --nproc-per-node=2 -m nas search --json --no-tensorboard"
    command = [sys.executable, *words.split()]
    command += ["--lut", str(tmp_path / "sample.lut"), "--output", str(tmp_path / "run")]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["child"]["choices"] == list(one.choices)  # one process speaks

    theta = read_theta(tmp_path / "run" / run_folder.THETA, SPACE)
    assert not (theta == 1.0).all()
    np.testing.assert_allclose(theta[one.costs.allowed], one.logits[one.costs.allowed], rtol=1e-4)
    with (tmp_path / "run" / run_folder.EPOCHS).open() as file:
        rows = [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]
    for row, epoch in zip(rows, one.done, strict=True):
        wanted = {name: math.nan if value is None else value for name, value in asdict(epoch).items()}
        assert row == pytest.approx(wanted, rel=1e-4, nan_ok=True)
    assert json.loads((tmp_path / "run" / run_folder.SETTINGS).read_text())["processes"] == 2
