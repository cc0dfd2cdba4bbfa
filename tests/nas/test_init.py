"""First weights: what flows through a deep network without batch norm neither vanishes nor grows."""

from __future__ import annotations

import copy

import pytest
import torch

from nas.blocks import build_network
from nas.init import has_norm, initialise
from nas.space import load_space
from nas.supernet import Supernet
from protos.types import BlockSpec, Cell, Layer, SearchSpace
from tests.lut_store.samples import fbnet, space_of


def spread_of(network: torch.nn.Module, space: SearchSpace) -> float:
    """How much the logits of different images differ."""
    with torch.inference_mode():
        return float(network(torch.randn(16, *space.input_shape[1:])).std(dim=0).mean())


@pytest.mark.parametrize("op", [0, 7])
def test_logits_of_different_images_differ(op: int) -> None:
    torch.manual_seed(0)
    space = fbnet()
    network = build_network(space, (op,) * 22)
    assert spread_of(network, space) < 1e-3  # torch's own first weights: only the biases are left
    initialise(network)
    assert 0.01 < spread_of(network, space) < 10


def test_what_has_a_batch_norm_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    spec = BlockSpec("mbconv", 3, 8, kernel=3, expansion=2, norm="batch", input_height=4, input_width=4)
    network = build_network(SearchSpace("normed", ("a",), (Layer((Cell(spec),)),)), (0,))
    before = copy.deepcopy(network.state_dict())
    initialise(network)
    assert has_norm(network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_the_same_generator_gives_the_same_weights() -> None:
    space = space_of(((1, 16, 1), (2, 24, 2)), size=4)
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        network = Supernet(space)
        initialise(network)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())
    assert not has_norm(Supernet(load_space("fbnet-cifar10")))
