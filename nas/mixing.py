"""One layer of the supernet: the weighted sum of the candidates that run, with their work shared.

Blocks of one layer read the same input and differ in kernel, expansion and groups alone. So all blocks with one kernel
are one block: their 1×1 expansions are one product with the rows of all, their depthwise convolutions one, and the
weighted sum of their projections is one product whose columns carry the weights, Σ w_i · P_i(h_i) = [w_i P_i] · [h_i].
No candidate's output is ever made. Parameters stay where they are, in the blocks, so that a child can take them over.

Maps of at most FLAT_POSITIONS pixels go through a layer as a matrix (C, N · H · W): there everything is a matrix
product, the depthwise convolution too (one matrix of input by output positions for each channel). That costs more
multiplications and far less time than a convolution of four by four pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from nas.blocks import MBConv
from protos.types import BlockSpec, Layer

FLAT_POSITIONS = 64  # an 8 × 8 map (benchmarks/supernet.py)


class LayerMix(Protocol):
    """`flat` says whether x and the result are matrices (C, N · H · W) or images (N, C, H, W)."""

    @property
    def flat(self) -> bool: ...

    @property
    def entry(self) -> BlockSpec:
        """Any candidate: the shapes of all are the same."""
        ...

    def __call__(self, x: Tensor, images: int, ops: Sequence[int], weights: Tensor) -> Tensor:
        """Σ weights (ops,) · candidates; `images` is N."""
        ...


def make_mix(layer: Layer, blocks: Mapping[int, nn.Module]) -> LayerMix:
    """How a layer is calculated; `blocks` are its candidates by number, without skips and what is not allowed."""
    specs = {op: cell.spec for op, cell in enumerate(layer.cells) if cell.spec is not None}
    entry = next(iter(specs.values()))
    own = {op: specs[op] for op in blocks}
    shared = len({spec.activation for spec in own.values()}) <= 1 and all(map(_shareable, own.values()))
    if not shared:
        return PlainMix(entry, blocks)
    mbconvs = {op: block for op, block in blocks.items() if isinstance(block, MBConv)}
    return SharedMix(entry, mbconvs, {op: spec.kernel for op, spec in own.items()})


def _shareable(spec: BlockSpec) -> bool:
    """A batch norm looks at the output of its own candidate, which then must be made."""
    return spec.kind == "mbconv" and spec.norm == "none"


@dataclass(frozen=True, eq=False)
class PlainMix:
    """Each candidate by itself. A number that is not in `blocks` is a skip."""

    entry: BlockSpec
    blocks: Mapping[int, nn.Module]
    flat: bool = False

    def __call__(self, x: Tensor, images: int, ops: Sequence[int], weights: Tensor) -> Tensor:  # noqa: ARG002
        outputs = [self.blocks[op](x) if op in self.blocks else x for op in ops]
        mixed = weights[0] * outputs[0]
        for weight, output in zip(weights[1:], outputs[1:], strict=True):
            mixed = mixed + weight * output
        return mixed  # (N, C', H', W')


@dataclass(frozen=True, eq=False)
class SharedMix:
    """Blocks without norm, those of one kernel as one block."""

    entry: BlockSpec
    blocks: Mapping[int, MBConv]
    kernels: Mapping[int, int]

    @property
    def flat(self) -> bool:
        return self.entry.input_height * self.entry.input_width <= FLAT_POSITIONS

    def __call__(self, x: Tensor, images: int, ops: Sequence[int], weights: Tensor) -> Tensor:
        parts = []
        for kernel in sorted({self.kernels[op] for op in ops if op in self.blocks}):
            places = [place for place, op in enumerate(ops) if self.kernels.get(op) == kernel]
            together = _gathered([self.blocks[ops[place]] for place in places], weights[places])
            parts.append(self._flat(x, images, together) if self.flat else self._image(x, together))
        if self.entry.stride == 1 and self.entry.in_channels == self.entry.out_channels:
            parts.append(weights.sum() * x)  # every block's residual, and the skip
        return sum(parts[1:], parts[0])

    def _flat(self, x: Tensor, images: int, own: _Together) -> Tensor:
        spec, hidden = self.entry, len(own.expand)
        before, after = spec.input_height * spec.input_width, spec.output_height * spec.output_width
        taps = _taps(own.kernel, spec.stride, spec.input_height, spec.input_width, x.device, own.depthwise.dtype)
        joined = (own.depthwise.flatten(1) @ taps).view(hidden, before, after)
        y = own.activation(torch.addmm(own.expand_bias[:, None], own.expand, x))  # (E, N · P)
        y = torch.baddbmm(own.depthwise_bias[:, None, None], y.view(hidden, images, before), joined)
        y = own.activation(y).view(hidden, images * after)  # (E, N · P')
        return torch.addmm(own.project_bias[:, None], own.project, y)  # (C', N · P')

    def _image(self, x: Tensor, own: _Together) -> Tensor:
        hidden = len(own.expand)
        y = own.activation(nn.functional.conv2d(x, own.expand[:, :, None, None], own.expand_bias))  # (N, E, H, W)
        pad = own.kernel // 2
        y = nn.functional.conv2d(y, own.depthwise, own.depthwise_bias, self.entry.stride, pad, groups=hidden)
        y = own.activation(y)  # (N, E, H', W')
        return nn.functional.conv2d(y, own.project[:, :, None, None], own.project_bias)  # (N, C', H', W')


# ---- several blocks as one -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Together:
    """Blocks of one kernel: E is the sum of their hidden channels."""

    expand: Tensor  # (E, C)
    expand_bias: Tensor  # (E,)
    depthwise: Tensor  # (E, 1, k, k)
    depthwise_bias: Tensor  # (E,)
    project: Tensor  # (C', E), the weights in it
    project_bias: Tensor  # (C',)
    activation: _Activation

    @property
    def kernel(self) -> int:
        return self.depthwise.shape[-1]


class _Activation(Protocol):
    def __call__(self, x: Tensor, /) -> Tensor: ...


def _gathered(blocks: Sequence[MBConv], weights: Tensor) -> _Together:
    expands = [_dense(_conv(block.expand)) for block in blocks]
    depthwises = [_conv(block.depthwise) for block in blocks]
    projects = [_dense(_conv(block.project)) for block in blocks]
    widths = torch.tensor([len(weight) for weight, _ in expands], device=weights.device)
    columns = weights.repeat_interleave(widths, output_size=sum(len(weight) for weight, _ in expands))  # (E,)
    return _Together(
        expand=_cat([weight for weight, _ in expands]),
        expand_bias=_cat([bias for _, bias in expands]),
        depthwise=_cat([conv.weight for conv in depthwises]),
        depthwise_bias=_cat([_bias(conv) for conv in depthwises]),
        project=_cat([weight for weight, _ in projects], 1) * columns,
        project_bias=weights @ torch.stack([bias for _, bias in projects]),
        activation=blocks[0].activation,
    )


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)  # no norm: see _shareable
    return module


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _cat(parts: list[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _dense(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """A 1×1 convolution as a matrix (C', C) and a bias (C',), with the channel shuffle that follows a grouped one."""
    weight, bias, groups = conv.weight.flatten(1), _bias(conv), conv.groups
    if groups == 1:
        return weight, bias
    rows = len(weight) // groups
    whole = torch.block_diag(*weight.view(groups, rows, -1))  # type: ignore[no-untyped-call] # (C', C)
    shuffled = whole.view(groups, rows, -1).transpose(0, 1).reshape(len(weight), -1)
    return shuffled, bias.view(groups, rows).t().reshape(-1)


@lru_cache(maxsize=64)
def _taps(kernel: int, stride: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(kernel², P · P'): one where a tap joins an input to an output position. A kernel times this is its matrix."""
    with torch.inference_mode(False), torch.no_grad():
        one_each = torch.eye(height * width, dtype=dtype).view(-1, 1, height, width)
        joins = nn.functional.unfold(one_each, kernel, padding=kernel // 2, stride=stride)  # (P, kernel², P')
        return joins.transpose(0, 1).reshape(kernel**2, -1).to(device)


def flattened(x: Tensor) -> Tensor:
    """(N, C, H, W) → (C, N · H · W)."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def imaged(x: Tensor, images: int, height: int, width: int) -> Tensor:
    """(C, N · H · W) → (N, C, H, W)."""
    return x.view(len(x), images, height, width).transpose(0, 1).contiguous()
