"""From BlockSpec to the torch module that the supernet trains, a child network keeps and an agent times.

It is one and the same module. The block is HANNA's (arXiv 1906.07214), after FBNet's (arXiv 1812.03443, figure 3). A
network is a plain `nn.Sequential` of operators and a supernet calls the same operators one by one, so that both pay the
same overhead for a call; skips are not there at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from protos.types import SKIP, BlockSpec, SearchSpace


def _identity(x: Tensor) -> Tensor:
    return x


def _relu(x: Tensor) -> Tensor:
    return torch.relu_(x)


def _relu6(x: Tensor) -> Tensor:
    return nn.functional.hardtanh_(x, 0.0, 6.0)


# In place: what comes in is a fresh result of a convolution or a norm, which backward passes do not need.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": _identity, "relu": _relu, "relu6": _relu6}


def _convolution(norm: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
    """A convolution with bias, or one without bias and the batch norm behind it; padding keeps the size at stride 1."""
    batch_norm = norm == "batch"
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not batch_norm)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if batch_norm else conv


class MBConv(nn.Module):
    """1×1 expand → activation → [shuffle] → depthwise k×k → activation → 1×1 project → [shuffle] → [+ input].

    Shuffles stand where the 1×1 convolutions are grouped, so that groups mix; the residual where stride is 1 and the
    channels match. Expansion 1 keeps its first convolution. (N, C_in, H, W) → (N, C_out, ⌈H / stride⌉, ⌈W / stride⌉).
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        hidden = spec.in_channels * spec.expansion
        self.expand = _convolution(spec.norm, spec.in_channels, hidden, groups=spec.groups)
        self.depthwise = _convolution(spec.norm, hidden, hidden, spec.kernel, spec.stride, groups=hidden)
        self.project = _convolution(spec.norm, hidden, spec.out_channels, groups=spec.groups)
        self.groups = spec.groups
        self.residual = spec.stride == 1 and spec.in_channels == spec.out_channels
        self.activation = _ACTIVATIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        # Functions in place and torch's own shuffle give the same bits as nn.ReLU modules, a shuffle by transposition
        # and a sum out of place, and take 9 % less time for a whole network at batch 1 on a server core.
        y = self.activation(self.expand(x))  # (N, C_in · e, H, W)
        if self.groups > 1:
            y = torch.channel_shuffle(y, self.groups)
        y = self.activation(self.depthwise(y))  # (N, C_in · e, H', W')
        y = self.project(y)  # (N, C_out, H', W')
        if self.groups > 1:
            y = torch.channel_shuffle(y, self.groups)
        return y.add_(x) if self.residual else y


class Conv(nn.Module):
    """One convolution and an activation. (N, C_in, H, W) → (N, C_out, ⌈H / stride⌉, ⌈W / stride⌉)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.conv = _convolution(
            spec.norm, spec.in_channels, spec.out_channels, spec.kernel, spec.stride, groups=spec.groups
        )
        self.activation = _ACTIVATIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x))


class PoolLinear(nn.Module):
    """Global average pool and a linear layer. (N, C, H, W) → (N, classes)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.in_channels, spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class DenseLayer(nn.Module):
    """A layer of CondenseNet as it runs after training (Huang et al., arXiv 1711.09224, section 3).

    select → norm → activation → grouped 1×1 to expansion · growth → shuffle → norm → activation → grouped k×k to growth
    → beside the input. What training has learnt is which inputs each group of the 1×1 convolution reads: an index, here
    a random one, in which a group reads no input twice. (N, C, H, W) → (N, C + growth, H, W).
    """

    index: Tensor

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        growth = spec.out_channels - spec.in_channels
        hidden, bias = growth * spec.expansion, spec.norm == "none"
        share = spec.in_channels // spec.groups  # what a group reads
        read = [torch.randperm(spec.in_channels)[:share] for _ in range(spec.groups)]
        self.register_buffer("index", torch.cat(read))  # (C,)
        self.norm1 = None if bias else nn.BatchNorm2d(spec.in_channels)
        self.conv1 = nn.Conv2d(spec.in_channels, hidden, 1, groups=spec.groups, bias=bias)
        self.norm2 = None if bias else nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, growth, spec.kernel, 1, spec.kernel // 2, groups=spec.groups, bias=bias)
        self.groups = spec.groups
        self.activation = _ACTIVATIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        y = x.index_select(1, self.index)  # (N, C, H, W)
        y = self.conv1(self.activation(y if self.norm1 is None else self.norm1(y)))  # (N, e · growth, H, W)
        if self.groups > 1:
            y = torch.channel_shuffle(y, self.groups)
        y = self.conv2(self.activation(y if self.norm2 is None else self.norm2(y)))  # (N, growth, H, W)
        return torch.cat((x, y), 1)


class Pool(nn.Module):
    """Averages windows of stride × stride. (N, C, H, W) → (N, C, ⌈H / stride⌉, ⌈W / stride⌉)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.stride = spec.stride

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, self.stride, ceil_mode=True)


class NormActivation(nn.Module):
    """Batch norm and activation alone, where no convolution stands before them. (N, C, H, W) → the same."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(spec.in_channels)
        self.activation = _ACTIVATIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(x))


_MODULES: dict[str, Callable[[BlockSpec], nn.Module]] = {
    "mbconv": MBConv,
    "conv": Conv,
    "pool_linear": PoolLinear,
    "dense": DenseLayer,
    "pool": Pool,
    "norm": NormActivation,
}


def build_block(spec: BlockSpec) -> nn.Module | None:
    """The operator with fresh weights, in eval mode; None for a skip, which is nothing and must cost nothing."""
    return None if spec.kind == SKIP else _MODULES[spec.kind](spec).eval()


def build_fixed(space: SearchSpace) -> tuple[list[nn.Module], list[nn.Module]]:
    """The operators of stem and of head, with fresh weights, in eval mode."""
    return _present(space.stem), _present(space.head)


def build_cells(space: SearchSpace) -> list[list[nn.Module | None]]:
    """(layers, candidates): every cell with weights of its own, in eval mode.

    None stands for a skip, whose output is its input, and for a candidate that is not allowed, whose spec is None too.
    """
    return [[build_block(cell.spec) if cell.spec else None for cell in layer.cells] for layer in space.layers]


def build_network(space: SearchSpace, choices: Sequence[int]) -> nn.Sequential:
    """One architecture with weights of its own, in eval mode: stem, the chosen operators without skips, head.

    Raises ValueError naming the first choice that is out of range or not allowed.
    """
    space.check_choices(tuple(choices))
    stem, head = build_fixed(space)
    chosen = (space.spec(layer, op) for layer, op in enumerate(choices))
    return nn.Sequential(*stem, *_present(spec for spec in chosen if spec is not None), *head).eval()


def _present(specs: Iterable[BlockSpec]) -> list[nn.Module]:
    return [module for module in map(build_block, specs) if module is not None]
