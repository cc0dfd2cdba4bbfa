"""The rows of HANNA's Table 1 (arXiv 1906.07214): a baseline as it was measured, beside what was published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lut_store.lut import Lut
from nas.baselines import baseline, baselines
from nas.opstats import macs, parameters
from protos.types import SearchSpace


@dataclass(frozen=True)
class Published:
    """HANNA's Table 1: a Raspberry Pi 3B and an image of 32 × 32."""

    title: str
    accuracy: float
    latency_s: float
    energy_j: float


PUBLISHED = {
    "mobilenetv2-cifar10": Published("MobileNetV2", 0.924, 7.1, 18.24),
    "condensenet74-cifar10": Published("CondenseNet-74", 0.911, 4.83, 9.28),
}


@dataclass(frozen=True)
class BaselineRow:
    """`whole`: the network measured end to end; `sum`: of its operators; energy above idle. None: not measured.

    accuracy: of a training on the test images, None without one.
    """

    name: str
    title: str
    parameters: int
    macs: int
    operators: int
    accuracy: float | None
    lut: str
    whole_latency_s: float | None
    sum_latency_s: float | None
    whole_energy_j: float | None
    sum_energy_j: float | None
    published: Published

    def document(self) -> dict[str, Any]:
        return asdict(self)


def baseline_rows(luts: Mapping[str, Lut], accuracies: Mapping[str, float] | None = None) -> list[BaselineRow]:
    """A row for every baseline; `luts` and `accuracies` by its name, where it was profiled and trained."""
    names = sorted(baselines(), reverse=True)
    return [_row(name, baseline(name), luts.get(name), (accuracies or {}).get(name)) for name in names]


def _row(name: str, space: SearchSpace, lut: Lut | None, accuracy: float | None) -> BaselineRow:
    specs = [*space.stem, *(c.spec for layer in space.layers for c in layer.cells if c.spec is not None), *space.head]
    choices = (0,) * len(space.layers)
    sums: Sequence[float] = (math.nan, math.nan) if lut is None else lut.predict([list(choices)])[0].tolist()
    return BaselineRow(
        name=name,
        title=PUBLISHED[name].title,
        parameters=sum(map(parameters, specs)),
        macs=sum(map(macs, specs)),
        operators=len(specs),
        accuracy=accuracy,
        lut="" if lut is None else lut.reference,
        whole_latency_s=_whole(lut, "latency"),
        sum_latency_s=_known(sums[0]),
        whole_energy_j=_whole(lut, "energy"),
        sum_energy_j=_known(sums[1]),
        published=PUBLISHED[name],
    )


def _whole(lut: Lut | None, metric: str) -> float | None:
    """The one network of the space, which every profile measures end to end to validate its sums."""
    record = {} if lut is None else lut.validation.get(metric) or {}
    networks = record.get("networks")
    measured: float | None = networks[0].get("measured") if isinstance(networks, list) and networks else None
    return measured


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
