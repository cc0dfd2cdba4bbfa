"""The supernet: every candidate of every layer with weights of its own, mixed by samples of θ.

Relaxations: `mixture` runs all candidates (HANNA, FBNet); `two-path` runs the two that a draw puts first and weighs
them against each other (after ProxylessNAS, arXiv 1812.00332); `single-path` runs one, and θ's gradient comes straight
through. The cost term always sees all candidates: it needs no image. Memory and time are those of the paths that run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nas.blocks import build_cells, build_fixed
from nas.mixing import flattened, imaged, make_mix
from nas.opstats import activation_bytes
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

    def to(self, device: torch.device) -> Draw:
        """The weights on `device`, in one copy; `soft` stays where the costs are."""
        if device.type == "cpu":
            return self
        together = torch.cat(self.weights).to(device)
        return replace(self, weights=torch.split(together, [len(weights) for weights in self.weights]))


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


def widest(space: SearchSpace, relaxation: str) -> Draw:
    """The draw whose paths hold the most numbers: what a step may need at worst."""
    paths = PATHS.get(relaxation, len(space.op_names))

    def size(layer: int, op: int) -> int:
        spec = space.spec(layer, op)
        return activation_bytes(spec) if spec else 0

    chosen = [
        sorted(space.allowed(layer), key=lambda op, layer=layer: -size(layer, op))[:paths]  # type: ignore[misc]
        for layer in range(len(space.layers))
    ]
    weights = tuple(torch.full((len(ops),), 1 / len(ops)) for ops in chosen)
    return Draw(torch.zeros(space.shape), tuple(tuple(sorted(ops)) for ops in chosen), weights)


class Supernet(nn.Module):
    """Stem → L layers of mixed candidates → head. (N, C, H, W) → (N, classes).

    `cells.LAYER.CANDIDATE` in its state are the parameters of `nas.blocks`; a child takes them over as they are.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        stem, head = build_fixed(space)
        self.stem, self.head = nn.Sequential(*stem), nn.Sequential(*head)
        cells = [{op: cell for op, cell in enumerate(row) if cell is not None} for row in build_cells(space)]
        # An absent candidate is skip, or is not allowed and is never drawn.
        self.cells = nn.ModuleList(nn.ModuleDict({str(op): cell for op, cell in row.items()}) for row in cells)
        self._mixes = [make_mix(layer, row) for layer, row in zip(space.layers, cells, strict=True)]

    def forward(self, x: Tensor, drawn: Draw) -> Tensor:
        images, flat = len(x), False
        x = self.stem(x)
        for mix, ops, weights in zip(self._mixes, drawn.ops, drawn.weights, strict=True):
            if mix.flat and not flat:
                x = flattened(x)
            elif flat and not mix.flat:
                x = imaged(x, images, mix.entry.input_height, mix.entry.input_width)
            flat = mix.flat
            x = mix(x, images, ops, weights)  # (C', N · H' · W') or (N, C', H', W')
        if flat:
            last = self._mixes[-1].entry
            x = imaged(x, images, last.output_height, last.output_width)
        logits: Tensor = self.head(x)
        return logits
