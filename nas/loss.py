"""The losses of hardware-aware search, by name: how cross entropy, latency and energy become one number.

Every loss takes the cross entropy, the expected latency in seconds and the expected energy in joules as scalars, and is
differentiable in all three. The papers' units stay the papers' units: HANNA has seconds and joules, FBNet milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from protos.errors import BadInputError, unknown

MS_PER_S = 1e3


class Loss(Protocol):
    """Raises BadInputError at birth for a knob that is negative, infinite or NaN."""

    def __call__(self, ce: Tensor, latency_s: Tensor, energy_j: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Knobs:
    positive: ClassVar[tuple[str, ...]] = ()  # knobs for which zero is no budget

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            number = isinstance(value, (int, float)) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and item.name in self.positive):
                least = "above zero" if item.name in self.positive else "zero or more"
                raise BadInputError(f"{item.name} is {value}; it must be a finite number, {least}")


@dataclass(frozen=True)
class Hanna(_Knobs):
    """CE + α·LAT^β + γ·ENER^δ (arXiv 1906.07214), seconds and joules.

    `latency_unit_s` and `energy_unit_j` are what LAT and ENER are counted in: 1 is the paper; the cost of the uniform
    mixture makes both terms dimensionless and of the same size at the start (`normalised`).
    """

    alpha: float = 0.5
    beta: float = 1.5
    gamma: float = 0.5
    delta: float = 0.5
    latency_unit_s: float = 1.0
    energy_unit_j: float = 1.0
    positive: ClassVar[tuple[str, ...]] = ("latency_unit_s", "energy_unit_j")

    def terms(self, latency_s: Tensor, energy_j: Tensor) -> tuple[Tensor, Tensor]:
        """α·LAT^β and γ·ENER^δ: what the paper calls vLAT and vENER."""
        return (
            self.alpha * (latency_s / self.latency_unit_s) ** self.beta,
            self.gamma * (energy_j / self.energy_unit_j) ** self.delta,
        )

    def __call__(self, ce: Tensor, latency_s: Tensor, energy_j: Tensor) -> Tensor:
        latency, energy = self.terms(latency_s, energy_j)
        return ce + latency + energy


def _log_ms(latency_s: Tensor) -> Tensor:
    """log of the latency in milliseconds. Raises BadInputError at 1 ms and below: a power of it would be undefined."""
    latency_ms = latency_s * MS_PER_S
    if not bool((latency_ms > 1).all()):
        raise BadInputError(
            f"the expected latency is {float(latency_ms.min()):g} ms; FBNet's log(LAT)^β is defined above 1 ms alone: "
            "use the loss hanna, proxyless or hinge"
        )
    return torch.log(latency_ms)


@dataclass(frozen=True)
class Fbnet(_Knobs):
    """CE · α·log(LAT)^β, LAT in milliseconds (arXiv 1812.03443, with its α = 0.2 and β = 0.6)."""

    alpha: float = 0.2
    beta: float = 0.6

    def __call__(self, ce: Tensor, latency_s: Tensor, energy_j: Tensor) -> Tensor:  # noqa: ARG002 - one signature
        return ce * self.alpha * _log_ms(latency_s) ** self.beta


@dataclass(frozen=True)
class FbnetAdditive(_Knobs):
    """CE + α·log(LAT)^β, LAT in milliseconds: FBNet's loss as it is often told."""

    alpha: float = 0.2
    beta: float = 0.6

    def __call__(self, ce: Tensor, latency_s: Tensor, energy_j: Tensor) -> Tensor:  # noqa: ARG002 - one signature
        return ce + self.alpha * _log_ms(latency_s) ** self.beta


@dataclass(frozen=True)
class Proxyless(_Knobs):
    """CE + λ·(E[LAT] − ref) / ref (arXiv 1812.00332): ref is the latency that is wanted."""

    ref_latency_s: float
    lam: float = 0.1
    positive: ClassVar[tuple[str, ...]] = ("ref_latency_s",)

    def __call__(self, ce: Tensor, latency_s: Tensor, energy_j: Tensor) -> Tensor:  # noqa: ARG002 - one signature
        return ce + self.lam * (latency_s - self.ref_latency_s) / self.ref_latency_s


@dataclass(frozen=True)
class ProxylessPower(_Knobs):
    """CE · (E[LAT] / ref)^w: the power form, after the reward ACC·(LAT/T)^w of MnasNet (arXiv 1807.11626)."""

    ref_latency_s: float
    power: float = 0.07
    positive: ClassVar[tuple[str, ...]] = ("ref_latency_s",)

    def __call__(self, ce: Tensor, latency_s: Tensor, energy_j: Tensor) -> Tensor:  # noqa: ARG002 - one signature
        return ce * (latency_s / self.ref_latency_s) ** self.power


@dataclass(frozen=True)
class Hinge(_Knobs):
    """CE + λ·max(E − C, 0): nothing while the energy is within the cap C, linear beyond it."""

    max_energy_j: float
    lam: float = 1.0
    positive: ClassVar[tuple[str, ...]] = ("max_energy_j",)

    def __call__(self, ce: Tensor, latency_s: Tensor, energy_j: Tensor) -> Tensor:  # noqa: ARG002 - one signature
        return ce + self.lam * torch.relu(energy_j - self.max_energy_j)


LOSSES: Mapping[str, type[Hanna | Fbnet | FbnetAdditive | Proxyless | ProxylessPower | Hinge]] = {
    "hanna": Hanna,
    "fbnet": Fbnet,
    "fbnet-additive": FbnetAdditive,
    "proxyless": Proxyless,
    "proxyless-power": ProxylessPower,
    "hinge": Hinge,
}


def make_loss(name: str, knobs: Mapping[str, float]) -> Loss:
    """The loss of that name. Raises BadInputError for an unknown name, and a knob that it lacks or does not have."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    names = {item.name: item for item in fields(LOSSES[name])}
    for knob in knobs:
        if knob not in names:
            raise unknown(f"knob of the loss {name}", knob, names)
    lacking = [item.name for item in names.values() if item.default is MISSING and item.name not in knobs]
    if lacking:
        raise BadInputError(f"the loss {name} needs {' and '.join(lacking)}")
    return LOSSES[name](**knobs)


def normalised(loss: Hanna, uniform_cost: tuple[float, float]) -> Hanna:
    """`loss` with LAT and ENER relative to the costs (seconds, joules) of the uniform mixture."""
    latency_s, energy_j = uniform_cost
    return Hanna(loss.alpha, loss.beta, loss.gamma, loss.delta, latency_s, energy_j)


@dataclass(frozen=True)
class Preview:
    """What the knobs weigh before any training: the terms at the cost of the uniform mixture, and their ratios.

    A ratio is infinite when the term below is zero, and NaN when both are.
    """

    latency_s: float
    energy_j: float
    v_latency: float
    v_energy: float

    @property
    def energy_dominance(self) -> float:
        return _ratio(self.v_energy, self.v_latency)

    @property
    def latency_dominance(self) -> float:
        return _ratio(self.v_latency, self.v_energy)


def _ratio(above: float, below: float) -> float:
    if below:
        return above / below
    return math.inf if above else math.nan


def preview(loss: Hanna, uniform_cost: tuple[float, float]) -> Preview:
    """vLAT, vENER and both dominance ratios of the paper. Raises BadInputError when a term overflows."""
    latency, energy = (torch.tensor(value, dtype=torch.float64) for value in uniform_cost)
    v_latency, v_energy = map(float, loss.terms(latency, energy))
    if not (math.isfinite(v_latency) and math.isfinite(v_energy)):
        raise BadInputError(f"the knobs give vLAT = {v_latency:g} and vENER = {v_energy:g}; choose smaller powers")
    return Preview(*uniform_cost, v_latency, v_energy)
