"""The supernet and its draws: what runs, what it weighs, and where gradients go."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.config import RELAXATIONS
from nas.supernet import Draw, Supernet, draw
from nas.theta import allowed_cells
from tests.lut_store.samples import random_choices, space_of

SPACE = space_of(((1, 16, 1), (2, 24, 2)), size=4)
ALLOWED = torch.from_numpy(allowed_cells(SPACE))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> torch.Tensor:
    return torch.randn(3, *SPACE.input_shape[1:], generator=generator())


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_padding_is_never_drawn_and_weights_sum_to_one(relaxation: str) -> None:
    theta = torch.zeros(SPACE.shape)
    theta[~ALLOWED] = 100.0
    for seed in range(50):
        drawn = draw(theta, ALLOWED, 0.5, relaxation, generator(seed))
        assert drawn.soft.sum(-1) == pytest.approx(torch.ones(3))
        assert (drawn.soft[~ALLOWED] == 0).all()
        for layer, (ops, weights) in enumerate(zip(drawn.ops, drawn.weights, strict=True)):
            assert ALLOWED[layer, list(ops)].all()
            assert float(weights.sum()) == pytest.approx(1.0)
            expected = {"mixture": int(ALLOWED[layer].sum()), "two-path": 2, "single-path": 1}[relaxation]
            assert len(ops) == expected


def test_draws_follow_theta() -> None:
    """The greatest of logits with Gumbel noise is a draw from their softmax, at any temperature."""
    theta = torch.tensor([[0.0, 1.0, 2.0]])
    allowed = torch.ones(1, 3, dtype=torch.bool)
    seen = [draw(theta, allowed, 3.0, "single-path", generator(seed)).ops[0][0] for seed in range(3000)]
    shares = torch.bincount(torch.tensor(seen), minlength=3) / 3000
    assert shares.tolist() == pytest.approx(theta[0].softmax(0).tolist(), abs=0.04)


def test_one_candidate_on_a_layer_is_always_taken() -> None:
    allowed = ALLOWED.clone()
    allowed[1] = False
    allowed[1, 4] = True
    for relaxation in RELAXATIONS:
        drawn = draw(torch.zeros(SPACE.shape), allowed, 1.0, relaxation, generator())
        assert drawn.ops[1] == (4,)
        assert float(drawn.weights[1][0]) == 1.0


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_gradients_reach_theta_and_the_blocks_that_ran(relaxation: str) -> None:
    net = Supernet(SPACE).train()
    theta = torch.zeros(SPACE.shape, requires_grad=True)
    drawn = draw(theta, ALLOWED, 1.0, relaxation, generator())
    nn.functional.cross_entropy(net(images(), drawn), torch.tensor([0, 1, 2])).backward()
    assert theta.grad is not None
    assert torch.isfinite(theta.grad).all()
    assert (theta.grad[0] != 0).any()
    assert (theta.grad[~ALLOWED] == 0).all()
    for cells, ops in zip(net.cells, drawn.ops, strict=True):
        ran = {name for name, cell in cells.items() if any(p.grad is not None for p in cell.parameters())}  # type: ignore[operator]
        assert ran == {str(op) for op in ops if op != 8}


def test_a_single_path_is_the_network_of_its_candidates() -> None:
    net = Supernet(SPACE).eval()
    x = images()
    for choices in random_choices(SPACE, 5).tolist():
        single = Draw(torch.zeros(SPACE.shape), tuple((op,) for op in choices), (torch.ones(1),) * 3)
        expected = net.stem(x)
        for cells, op in zip(net.cells, choices, strict=True):
            expected = cells[str(op)](expected) if op != 8 else expected  # type: ignore[index]
        torch.testing.assert_close(net(x, single), net.head(expected))


def test_a_mixture_is_the_weighted_sum() -> None:
    net = Supernet(SPACE).eval()
    x = images()
    weights = torch.tensor([0.25, 0.75])
    drawn = Draw(torch.zeros(SPACE.shape), ((0, 3), (1,), (8,)), (weights, torch.ones(1), torch.ones(1)))
    stem = net.stem(x)
    mixed = 0.25 * net.cells[0]["0"](stem) + 0.75 * net.cells[0]["3"](stem)  # type: ignore[index]
    expected = net.head(net.cells[1]["1"](mixed))  # type: ignore[index]
    assert torch.allclose(net(x, drawn), expected, atol=1e-6)
