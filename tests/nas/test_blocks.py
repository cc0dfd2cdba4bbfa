"""The modules: HANNA's block to the last bit, one and the same in supernet and child, in eval mode, and trainable."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 — everybody calls it F

from nas.blocks import build_block, build_cells, build_fixed, build_network
from nas.space import load_space
from protos.types import BlockSpec, Cell, Layer, SearchSpace

SPACE = load_space("fbnet-cifar10")
BLOCKS = [
    BlockSpec("mbconv", 8, 8, kernel=3, expansion=1, input_height=6, input_width=5),
    BlockSpec("mbconv", 8, 8, kernel=5, expansion=1, groups=2, input_height=6, input_width=6, batch=2),
    BlockSpec("mbconv", 8, 12, kernel=3, stride=2, expansion=6, input_height=7, input_width=7),
    BlockSpec("mbconv", 8, 12, kernel=5, expansion=3, groups=4, activation="relu6", input_height=5, input_width=5),
    BlockSpec("mbconv", 8, 8, kernel=3, stride=2, expansion=3, activation="none", input_height=5, input_width=5),
]


def shuffled(x: Tensor, groups: int) -> Tensor:
    """As in HANNA's and ShuffleNet's code: (N, g · n, H, W) → groups and channels within a group change places."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def reference(spec: BlockSpec, weights: list[Tensor], x: Tensor) -> Tensor:
    """The block as the paper's text says it, from six tensors: weight and bias of expand, depthwise and project."""
    act = {"relu": F.relu, "relu6": F.relu6, "none": lambda y: y}[spec.activation]
    hidden = spec.in_channels * spec.expansion
    y = act(F.conv2d(x, weights[0], weights[1], groups=spec.groups))
    if spec.groups > 1:
        y = shuffled(y, spec.groups)
    y = act(F.conv2d(y, weights[2], weights[3], spec.stride, spec.kernel // 2, groups=hidden))
    y = F.conv2d(y, weights[4], weights[5], groups=spec.groups)
    if spec.groups > 1:
        y = shuffled(y, spec.groups)
    return y + x if spec.stride == 1 and spec.in_channels == spec.out_channels else y


def built(spec: BlockSpec) -> nn.Module:
    module = build_block(spec)
    assert module is not None
    return module


def input_of(spec: BlockSpec) -> Tensor:
    return torch.randn(spec.batch, spec.in_channels, spec.input_height, spec.input_width)


@pytest.mark.parametrize("spec", BLOCKS, ids=BlockSpec.label)
def test_a_block_computes_what_the_paper_says(spec: BlockSpec) -> None:
    torch.manual_seed(0)
    module, x = built(spec), input_of(spec)
    before = x.clone()
    with torch.inference_mode():
        y = module(x)
        expected = reference(spec, [p.detach() for p in module.parameters()], x)
    assert y.shape == (spec.batch, spec.out_channels, spec.output_height, spec.output_width)
    assert torch.equal(y, expected)
    assert torch.equal(x, before)  # what works in place must leave the input alone: other candidates get it too


@pytest.mark.parametrize("spec", BLOCKS, ids=BlockSpec.label)
def test_its_gradients_too(spec: BlockSpec) -> None:
    torch.manual_seed(0)
    module, x = built(spec).train().double(), input_of(spec).double().requires_grad_()
    parameters = list(module.parameters())
    got = torch.autograd.grad(module(x).square().sum(), [x, *parameters])
    expected = torch.autograd.grad(reference(spec, parameters, x).square().sum(), [x, *parameters])
    assert all(torch.allclose(a, b) for a, b in zip(got, expected, strict=True))


def test_expansion_one_keeps_its_first_convolution_and_all_have_biases() -> None:
    parts = [m for m in built(BLOCKS[0]).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.groups, m.bias is not None) for m in parts] == [
        (1, 1, True),
        (3, 8, True),
        (1, 1, True),
    ]


def test_batch_norm_takes_the_place_of_the_biases() -> None:
    spec = BlockSpec(
        "mbconv", 8, 8, kernel=3, expansion=3, groups=2, norm="batch", input_height=6, input_width=6, batch=4
    )
    module = built(spec)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 3
    assert all(m.bias is None for m in convolutions)
    x = input_of(spec)
    assert torch.equal(module(x), module(x))  # eval mode: nothing is learnt from a call
    assert norms[0].num_batches_tracked == 0
    loss = module.train()(x).square().sum()
    loss.backward()
    assert norms[0].num_batches_tracked == 1
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_stem_and_head_operators() -> None:
    conv = BlockSpec("conv", 3, 16, kernel=3, stride=2, activation="none", input_height=32, input_width=32)
    module, x = built(conv), input_of(conv)
    weight, bias = module.parameters()
    assert torch.equal(module(x), F.conv2d(x, weight, bias, 2, 1))
    active = BlockSpec("conv", 3, 16, activation="relu", input_height=4, input_width=4)
    assert built(active)(input_of(active)).min() >= 0
    pool = BlockSpec("pool_linear", 20, 10, input_height=4, input_width=3, batch=2)
    module, x = built(pool), input_of(pool)
    weight, bias = module.parameters()
    assert torch.allclose(module(x), F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), weight, bias), atol=1e-6)


def test_a_skip_is_nothing() -> None:
    assert build_block(BlockSpec("skip", 8, 8, activation="none")) is None


def test_a_child_is_stem_chosen_blocks_and_head() -> None:
    torch.manual_seed(0)
    choices = tuple(8 if 8 in SPACE.allowed(layer) and layer % 2 else layer % 8 for layer in range(22))
    child = build_network(SPACE, choices)
    assert len(child) == 1 + sum(op != 8 for op in choices) + 2
    assert not any(isinstance(m, nn.Identity) for m in child.modules())
    assert not any(m.training for m in child.modules())
    with torch.inference_mode():
        assert child(torch.randn(SPACE.input_shape)).shape == (1, 10)


def test_a_child_with_the_supernets_weights_computes_what_the_path_computes() -> None:
    torch.manual_seed(0)
    cells = build_cells(SPACE)
    stem, head = build_fixed(SPACE)
    assert [len(layer) for layer in cells] == [9] * 22
    assert not any(m.training for layer in cells for m in layer if m is not None)
    choices = tuple(SPACE.allowed(layer)[-1 - layer % 3] for layer in range(22))
    path = [*stem, *(m for layer, op in enumerate(choices) if (m := cells[layer][op]) is not None), *head]
    child = build_network(SPACE, choices)
    for own, shared in zip(child, path, strict=True):
        assert type(own) is type(shared)
        own.load_state_dict(shared.state_dict())
    x = torch.randn(SPACE.input_shape)
    with torch.inference_mode():
        y = x
        for module in path:
            y = module(y)
        assert torch.equal(child(x), y)


def test_every_cell_has_weights_of_its_own() -> None:
    modules = [m for layer in build_cells(SPACE) for m in layer if m is not None]
    pointers = [p.data_ptr() for m in modules for p in m.parameters()]
    assert len(modules) == 176
    assert len(set(pointers)) == len(pointers) == 176 * 6


def test_a_choice_that_is_not_allowed_is_named() -> None:
    with pytest.raises(ValueError, match="layer 0: skip is not allowed"):
        build_network(SPACE, (8,) * 22)
    with pytest.raises(ValueError, match="21 choices for 22 layers"):
        build_network(SPACE, (0,) * 21)


def test_a_space_without_stem_and_head() -> None:
    spec = BLOCKS[0]
    space = SearchSpace("bare", ("a",), (Layer((Cell(spec),)), Layer((Cell(spec),))))
    assert build_fixed(space) == ([], [])
    assert build_network(space, (0, 0))(input_of(spec)).shape == (1, 8, 6, 5)


def test_modules_can_be_copied_and_pickled() -> None:
    module, x = built(BLOCKS[3]), input_of(BLOCKS[3])
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(module)(x), module(x))
        assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    block = BlockSpec("mbconv", 3, 8, kernel=3, stride=2, expansion=4, norm="batch", input_height=8, input_width=8)
    pool = BlockSpec("pool_linear", 8, 8, activation="none", input_height=4, input_width=4)
    space = SearchSpace("small", ("a",), (Layer((Cell(block),)),), head=(pool,))
    child = build_network(space, (0,)).train()
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8)
    optimiser = torch.optim.Adam(child.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(child(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
