"""A LUT for a search: numpy and torch, with nothing missing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from lut_store.lut import MissingCellError
from tests.lut_store.samples import fbnet, lut_of, random_choices
from tests.lut_store.test_lut import missing_at


def test_arrays_and_tensors_are_what_predict_sums() -> None:
    lut = lut_of(fbnet())
    choices = random_choices(lut.space, 20)
    layers = np.arange(choices.shape[1])
    arrays, tensors = lut.arrays(), lut.tensors()
    assert arrays.latency_s is not None
    assert arrays.energy_j is not None
    assert tensors.energy_j is not None
    by_hand = arrays.latency_s[layers, choices].sum(axis=1) + arrays.fixed_latency_s
    np.testing.assert_allclose(by_hand, lut.predict(choices)[:, 0], rtol=1e-12)
    by_torch = tensors.energy_j[torch.tensor(layers), torch.tensor(choices)].sum(dim=1) + tensors.fixed_energy_j
    np.testing.assert_allclose(by_torch.numpy(), lut.predict(choices)[:, 1], rtol=1e-12)
    assert tensors.allowed.dtype == torch.bool
    assert (arrays.latency_s[~lut.allowed] == 0).all()
    assert lut.tensors(device="cpu", dtype=torch.float32).energy_j.dtype == torch.float32  # type: ignore[union-attr]


def test_tensors_are_copies() -> None:
    lut = lut_of()
    tensor = lut.tensors().latency_s
    assert tensor is not None
    tensor.zero_()
    assert lut.latency_s[0, 0] > 0


def test_what_was_not_measured_is_none_and_what_is_missing_raises() -> None:
    lut = lut_of(energy=False)
    assert lut.tensors().energy_j is None
    assert lut.arrays().fixed_energy_j == 0.0
    assert lut.latency is not None
    holed = replace(lut, latency=missing_at(lut.latency, 2, 4))
    with pytest.raises(MissingCellError, match="layer 2, k5_e1 has no latency"):
        holed.tensors()


def test_a_lut_alone_loads_no_torch() -> None:
    code = "import sys, lut_store.lut, lut_store.arrays; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
