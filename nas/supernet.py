"""The supernet: every candidate of every layer with weights of its own, mixed by samples of θ.

Relaxations: `mixture` runs all candidates (HANNA, FBNet); `two-path` runs the two that a draw puts first and weighs
them against each other (after ProxylessNAS, arXiv 1812.00332); `single-path` runs one, and θ's gradient comes straight
through. The cost term always sees all candidates: it needs no image. Memory and time are those of the paths that run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nas.blocks import build_cells, build_fixed
from nas.theta import allowed_cells
from protos.types import SearchSpace

PATHS = {"two-path": 2, "single-path": 1}


@dataclass(frozen=True, eq=False)
class Draw:
    """One sample of the architecture distribution.

    soft: (L, K) Gumbel softmax over all allowed candidates, for the expected cost. ops: the candidates that run on each
    layer; weights: for each layer, their weights, which sum to 1.
    """

    soft: Tensor
    ops: tuple[tuple[int, ...], ...]
    weights: tuple[Tensor, ...]


def draw(theta: Tensor, allowed: Tensor, temperature: float, relaxation: str, generator: torch.Generator) -> Draw:
    """Sample with Gumbel noise (Jang et al., arXiv 1611.01144); differentiable in θ (L, K). Padding is never drawn."""
    exponential = torch.empty_like(theta, requires_grad=False).exponential_(generator=generator)
    gumbel = -torch.log(exponential.clamp_min(torch.finfo(theta.dtype).tiny))  # (L, K)
    logits = ((theta + gumbel) / temperature).masked_fill(~allowed, -torch.inf)  # (L, K)
    soft = logits.softmax(dim=-1)
    if relaxation == "mixture":
        ops = tuple(tuple(row.nonzero().flatten().tolist()) for row in allowed)
        return Draw(soft, ops, tuple(soft[layer, list(chosen)] for layer, chosen in enumerate(ops)))
    widths = allowed.sum(dim=-1).clamp_max(PATHS[relaxation]).tolist()
    ranks = logits.topk(max(widths), dim=-1).indices.tolist()
    ops = tuple(tuple(sorted(row[:width])) for row, width in zip(ranks, widths, strict=True))
    if relaxation == "two-path":
        return Draw(soft, ops, tuple(logits[layer, list(chosen)].softmax(0) for layer, chosen in enumerate(ops)))
    chosen = (soft[layer, list(run)] for layer, run in enumerate(ops))
    # Straight through: the value is exactly 1, the gradient that of the soft weight.
    return Draw(soft, ops, tuple(1 + (weight - weight.detach()) for weight in chosen))


class Supernet(nn.Module):
    """Stem → L layers of mixed candidates → head. (N, C, H, W) → (N, classes)."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        stem, head = build_fixed(space)
        self.stem, self.head = nn.Sequential(*stem), nn.Sequential(*head)
        # An absent candidate is skip, or is not allowed and is never drawn.
        self.cells = nn.ModuleList(
            nn.ModuleDict({str(op): cell for op, cell in enumerate(row) if cell is not None})
            for row in build_cells(space)
        )
        self.register_buffer("allowed", torch.from_numpy(allowed_cells(space)), persistent=False)

    def forward(self, x: Tensor, drawn: Draw) -> Tensor:
        x = self.stem(x)
        for cells, ops, weights in zip(self.cells, drawn.ops, drawn.weights, strict=True):
            candidates = cast(nn.ModuleDict, cells)
            outputs = [candidates[str(op)](x) if str(op) in candidates else x for op in ops]
            mixed = weights[0] * outputs[0]
            for weight, output in zip(weights[1:], outputs[1:], strict=True):
                mixed = mixed + weight * output
            x = mixed  # (N, C', H', W')
        logits: Tensor = self.head(x)
        return logits
