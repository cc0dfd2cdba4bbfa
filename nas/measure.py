"""A child network measured end to end by an agent, beside what its LUT predicts.

The agent builds the network from its BlockSpecs with weights of its own: trained weights need not travel, because what
a convolution, a norm or an activation costs does not depend on the numbers in it. The one exception is subnormal
numbers, with which some processors calculate much slower. Training sets such weights to zero
(nas.train.flush_subnormals), and its result says which share of the activations is subnormal.

The run is one of the purpose "validate": networks alone, called as the LUT's configuration says, together with the
LUT's anchors, which tell whether the board has moved since.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lut_store.lut import Lut
from protos.errors import BadInputError, unknown
from protos.types import Configuration, MeasurementPlan, Network, RunSpec, SearchSpace

OTHERS = 5  # networks that run between the child's executions: what ran before must not be the child itself
ROUNDS_PER_TASK = 4
WARMUP_CALLS, TIMED_CALLS = 4, 8  # in `steady`, as a profile has them
SEGMENT_S = 300.0
TRIES = 1000  # at drawing other networks; a small space has no more


@dataclass(frozen=True)
class Effort:
    """Device time for latency and, with a meter, for energy."""

    latency_s: float
    energy_s: float


EFFORTS = {
    "quick": Effort(latency_s=40.0, energy_s=120.0),
    "standard": Effort(latency_s=120.0, energy_s=300.0),
    "thorough": Effort(latency_s=600.0, energy_s=1200.0),
}


@dataclass(frozen=True)
class Compared:
    """A measured number with its standard error, what the LUT predicts and its 95 % interval; None: not known."""

    measured: float | None
    se: float | None
    predicted: float | None
    lo: float | None
    hi: float | None

    @property
    def error(self) -> float | None:
        """Relative: predicted ÷ measured − 1."""
        return self.predicted / self.measured - 1 if self.predicted is not None and self.measured else None

    def document(self) -> dict[str, Any]:
        return {
            "measured": self.measured,
            "se": self.se,
            "predicted": self.predicted,
            "predicted_interval": [self.lo, self.hi],
            "error": self.error,
        }


@dataclass(frozen=True)
class MeasuredChild:
    choices: tuple[int, ...]
    latency: Compared  # seconds
    energy: Compared  # joules above idle


def measurement_run(
    lut: Lut, device: str, children: Sequence[tuple[int, ...]], *, preset: str = "quick", meter: str = "", seed: int = 0
) -> RunSpec:
    """A run that measures `children` as the LUT's configuration says. Raises BadInputError for what cannot be asked."""
    if preset not in EFFORTS:
        raise unknown("preset", preset, EFFORTS)
    own, effort = lut.configuration, EFFORTS[preset]
    if (own.runtime, own.precision) != (Configuration.runtime, Configuration.precision):
        raise BadInputError(
            f"{lut.reference} is for {own.runtime} {own.precision}; agents measure {Configuration.runtime} "
            f"{Configuration.precision}"
        )
    bursts = own.context == "steady"
    plan = MeasurementPlan(
        method="isolated",  # no supernet is built: networks alone
        context=own.context,
        threads=own.threads,
        rounds_per_task=ROUNDS_PER_TASK,
        paths_per_round=0,
        warmup_calls=WARMUP_CALLS if bursts else 0,
        timed_calls=TIMED_CALLS if bursts else 1,
        latency_budget_s=effort.latency_s,
        energy_budget_s=0.0 if meter == "none" else effort.energy_s,
        segment_s=min(effort.energy_s, SEGMENT_S),
    )
    try:
        return RunSpec(
            device=device,
            space=lut.space,
            items=(),
            networks=(*(Network("validation", choices) for choices in children), *_others(lut, children, seed)),
            plan=plan,
            preset=preset,
            meter=meter,
            seed=seed,
            purpose="validate",
            lut_digest=lut.digest,
        )
    except ValueError as error:
        raise BadInputError(str(error)) from error


def _others(lut: Lut, children: Sequence[tuple[int, ...]], seed: int) -> list[Network]:
    """The LUT's anchors, then random architectures, all different from `children`: OTHERS of them where there are."""
    anchors = [tuple(anchor["choices"]) for anchor in lut.validation.get("anchors") or ()]
    found = [Network("anchor", choices) for choices in anchors if choices not in children]
    rng, seen = random.Random(f"measure {seed}"), {*children, *anchors}
    for _ in range(TRIES):
        if len(found) >= OTHERS:
            break
        choices = _drawn(lut.space, rng)
        if choices not in seen:
            seen.add(choices)
            found.append(Network("fit", choices))
    return found


def _drawn(space: SearchSpace, rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.choice(space.allowed(layer)) for layer in range(len(space.layers)))


def compared(lut: Lut, report: dict[str, Any]) -> list[MeasuredChild]:
    """The children of a run's report (coordinator.validate.validation_report), with the LUT's own intervals."""
    found = []
    for network in report["networks"]:
        if network["role"] != "validation":
            continue
        choices = tuple(network["choices"])
        bounds = lut.predict_interval([list(choices)])[0]  # (2, 2)
        latency, energy = (
            Compared(
                network[name],
                network[f"{kind}_se_{unit}"],
                network[f"predicted_{name}"],
                *(float(bound) if bound == bound else None for bound in bounds[row]),
            )
            for row, (name, kind, unit) in enumerate((("latency_s", "latency", "s"), ("energy_j", "energy", "j")))
        )
        found.append(MeasuredChild(choices, latency, energy))
    return found
