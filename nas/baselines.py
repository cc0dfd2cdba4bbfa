"""The networks that HANNA is compared with (arXiv 1906.07214, Table 1), built from their papers for 32×32 images.

Each is a search space with one candidate on every layer, so that the same agents measure it whole and operator by
operator, and the same commands train it. Standard library only.

`mobilenetv2-cifar10`: MobileNetV2 at width 1.0 (Sandler et al., arXiv 1801.04381, table 2). Five halvings would leave a
map of 1×1 of a 32×32 image, so stem and second stage keep the resolution, as is usual.

`condensenet74-cifar10`: CondenseNet-74 (Huang et al., arXiv 1711.09224): three stages of 12 layers with growth 8, 16
and 32, bottleneck 4, groups and condensation factor 4, as it runs after training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protos.types import BlockSpec, Cell, Layer, SearchSpace

OP = "block"  # the only candidate

# Expansion, channels, repeats and stride of each stage; the first stage, without expansion, stands apart.
MOBILENETV2_STAGES = ((6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
CONDENSENET_BOTTLENECK, CONDENSENET_GROUPS = 4, 4


class _Chain:
    """Operators one after another, each with the shape that the one before gives."""

    def __init__(self, channels: int, size: int, activation: str) -> None:
        self.channels, self.size, self._activation = channels, size, activation
        self.specs: list[BlockSpec] = []

    def add(
        self,
        kind: str,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        expansion: int = 1,
        groups: int = 1,
        norm: str = "batch",
        activation: str | None = None,
    ) -> None:
        spec = BlockSpec(
            kind,
            self.channels,
            channels,
            kernel,
            stride,
            expansion,
            groups,
            activation=self._activation if activation is None else activation,
            norm=norm,
            input_height=self.size,
            input_width=self.size,
        )
        self.specs.append(spec)
        self.channels, self.size = channels, spec.output_height

    def space(self, name: str, stem: int, head: int) -> SearchSpace:
        """The first `stem` operators are the stem, the last `head` the head, the rest a layer each."""
        layers = self.specs[stem : len(self.specs) - head]
        return SearchSpace(
            name,
            (OP,),
            tuple(Layer((Cell(spec),)) for spec in layers),
            tuple(self.specs[:stem]),
            tuple(self.specs[len(self.specs) - head :]),
        )


def mobilenet_v2(name: str, size: int, classes: int, stem_stride: int, strides: Sequence[int]) -> SearchSpace:
    """MobileNetV2 at width 1.0; `strides` are those of the six stages with expansion.

    With size 224, 1000 classes, stem stride 2 and the paper's strides it has 3,504,872 parameters and 301 million
    multiply-adds (the paper: 3.4 and 300 million).
    """
    chain = _Chain(3, size, "relu6")
    chain.add("conv", 32, kernel=3, stride=stem_stride)
    # The bottleneck without expansion has no first convolution: a depthwise one and the projection are left.
    chain.add("conv", 32, kernel=3, groups=32)
    chain.add("conv", 16, activation="none")
    for (expansion, channels, repeats, _), stride in zip(MOBILENETV2_STAGES, strides, strict=True):
        for index in range(repeats):
            chain.add("mbconv", channels, kernel=3, stride=stride if index == 0 else 1, expansion=expansion)
    chain.add("conv", 1280)
    chain.add("pool_linear", classes, norm="none", activation="none")
    return chain.space(name, stem=1, head=2)


def condensenet(name: str, classes: int, stages: Sequence[int], growth: Sequence[int]) -> SearchSpace:
    """CondenseNet for 32×32: `stages` are layers per stage, `growth` what a layer of each adds.

    Between stages the map is halved by an average pool alone, and every layer sees all earlier ones. CondenseNet-74 has
    405,482 parameters (the authors: 0.41 million; their stem lacks its 16 biases) and 49.2 million multiply-adds; the
    authors' 51.9 million also count one operation for every number that an activation or a pool reads, which brings
    these to 51.9 as well.
    """
    chain = _Chain(3, 32, "relu")
    chain.add("conv", 2 * growth[0], kernel=3, norm="none", activation="none")
    for stage, (layers, more) in enumerate(zip(stages, growth, strict=True)):
        if stage:
            chain.add("pool", chain.channels, stride=2, norm="none", activation="none")
        for _ in range(layers):
            chain.add(
                "dense",
                chain.channels + more,
                kernel=3,
                expansion=CONDENSENET_BOTTLENECK,
                groups=CONDENSENET_GROUPS,
            )
    chain.add("norm", chain.channels)
    chain.add("pool_linear", classes, norm="none", activation="none")
    return chain.space(name, stem=1, head=2)


_BASELINES: dict[str, Callable[[str], SearchSpace]] = {
    "condensenet74-cifar10": lambda name: condensenet(name, 10, (12, 12, 12), (8, 16, 32)),
    "mobilenetv2-cifar10": lambda name: mobilenet_v2(name, 32, 10, stem_stride=1, strides=(1, 2, 2, 1, 2, 1)),
}


def baselines() -> tuple[str, ...]:
    """The names of the baselines."""
    return tuple(_BASELINES)


def baseline(name: str) -> SearchSpace:
    """The baseline of that name, as a space of one architecture."""
    return _BASELINES[name](name)
