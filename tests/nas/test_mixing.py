"""Shared work gives the numbers of candidates that run one by one: outputs, gradients of weights and of θ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas import mixing
from nas.blocks import build_block, build_network
from nas.config import RELAXATIONS
from nas.mixing import PlainMix, SharedMix, make_mix
from nas.supernet import Draw, Supernet, draw, widest
from nas.theta import allowed_cells
from protos.types import Cell, Layer, SearchSpace
from tests.lut_store.samples import random_choices, space_of

# From 8 × 8 by stride 2 to 4 × 4, odd sizes, and channels that change and that do not.
SPACES = {
    "flat": space_of(((1, 16, 1), (3, 24, 2)), size=8),
    "images": space_of(((2, 16, 1), (1, 24, 2)), size=12),
    "both": space_of(((1, 16, 2), (2, 24, 2)), size=14),
    "odd": space_of(((1, 16, 2), (2, 24, 1)), size=7),
}


def plain(net: Supernet, x: Tensor, drawn: Draw) -> Tensor:
    """The mixture as the papers write it: every candidate's output, weighted and added."""
    x = net.stem(x)
    for cells, ops, weights in zip(net.cells, drawn.ops, drawn.weights, strict=True):
        outputs = [cells[str(op)](x) if str(op) in cells else x for op in ops]  # type: ignore[index, operator]
        x = sum(w * y for w, y in zip(weights, outputs, strict=True))  # type: ignore[assignment]
    logits: Tensor = net.head(x)
    return logits


def with_norm(space: SearchSpace, norm: str) -> SearchSpace:
    def cell(old: Cell) -> Cell:
        return Cell(replace(old.spec, norm=norm)) if old.spec and old.spec.kind == "mbconv" else old

    return replace(space, layers=tuple(Layer(tuple(map(cell, layer.cells))) for layer in space.layers))


def gradients(net: Supernet, theta: Tensor, y: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    theta.grad = None
    y.square().sum().backward()  # type: ignore[no-untyped-call]
    assert theta.grad is not None
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return found | {"θ": theta.grad.clone()}


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("name", SPACES)
def test_numbers_are_those_of_single_candidates(name: str, relaxation: str) -> None:
    space = SPACES[name]
    torch.manual_seed(1)
    net = Supernet(space).double().train()
    x = torch.randn(3, *space.input_shape[1:], dtype=torch.float64)
    theta = torch.randn(space.shape, dtype=torch.float64, requires_grad=True)
    allowed = torch.from_numpy(allowed_cells(space))
    for seed in range(3):
        drawn = draw(theta, allowed, 1.0, relaxation, torch.Generator().manual_seed(seed))
        expected = plain(net, x, drawn)
        wanted = gradients(net, theta, expected)
        drawn = draw(theta, allowed, 1.0, relaxation, torch.Generator().manual_seed(seed))
        found = net(x, drawn)
        torch.testing.assert_close(found, expected)
        own = gradients(net, theta, found)
        assert own.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(own[key], value, msg=lambda text, key=key: f"{key}: {text}")


def test_layers_take_both_ways() -> None:
    ways = {name: [mix.flat for mix in Supernet(space)._mixes] for name, space in SPACES.items()}
    assert all(ways["flat"])
    assert not any(ways["images"][:2])
    assert ways["both"] == [False, True, True]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_norm_keeps_candidates_apart(norm: str) -> None:
    net = Supernet(with_norm(SPACES["both"], norm))
    kind = SharedMix if norm == "none" else PlainMix
    assert all(isinstance(mix, kind) for mix in net._mixes)
    x = torch.randn(4, *SPACES["both"].input_shape[1:])
    net.eval()
    drawn = widest(SPACES["both"], "mixture")
    torch.testing.assert_close(net(x, drawn), plain(net, x, drawn))


def test_blocks_of_another_activation_are_not_put_together() -> None:
    layer = SPACES["flat"].layers[1]
    changed = (Cell(replace(layer.cells[0].spec, activation="relu6")), *layer.cells[1:])  # type: ignore[type-var]
    for cells, kind in ((layer.cells, SharedMix), (changed, PlainMix)):
        blocks = {op: build_block(cell.spec) for op, cell in enumerate(cells) if cell.spec}
        own = {op: block for op, block in blocks.items() if isinstance(block, nn.Module)}
        assert isinstance(make_mix(Layer(cells), own), kind)


def test_a_batch_may_be_empty() -> None:
    """A process that gets none of the last images of an epoch still takes part."""
    for space in SPACES.values():
        net = Supernet(space)
        assert net(torch.zeros(0, *space.input_shape[1:]), widest(space, "mixture")).shape == (0, 10)


def test_a_child_takes_the_parameters_over() -> None:
    space = SPACES["both"]
    net = Supernet(space).eval()
    choices = random_choices(space, 1)[0].tolist()
    child = build_network(space, choices)
    parts = [*net.stem, *(net.cells[i][str(op)] for i, op in enumerate(choices) if op != 8), *net.head]  # type: ignore[index]
    for mine, theirs in zip(child, parts, strict=True):
        mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, *space.input_shape[1:])
    single = Draw(torch.zeros(space.shape), tuple((op,) for op in choices), (torch.ones(1),) * len(choices))
    torch.testing.assert_close(net(x, single), child(x))


def test_bfloat16_is_close() -> None:
    space = SPACES["both"]
    net = Supernet(space).eval()
    x = torch.randn(4, *space.input_shape[1:])
    drawn = widest(space, "mixture")
    expected = net(x, drawn)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(x, drawn)
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.05)


def test_taps_are_a_convolution() -> None:
    x, kernel = torch.randn(1, 1, 5, 6, dtype=torch.float64), torch.randn(1, 1, 3, 3, dtype=torch.float64)
    taps = mixing._taps(3, 2, 5, 6, torch.device("cpu"), torch.float64)
    matrix = (kernel.flatten() @ taps).view(30, 9)  # 3 × 3 positions
    expected = nn.functional.conv2d(x, kernel, stride=2, padding=1)
    torch.testing.assert_close((x.flatten() @ matrix).view(1, 1, 3, 3), expected)
