"""Knob settings for a sweep: HANNA's thirty, or a file's."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lut_store.formats import files
from nas.loss import Hanna, normalised, preview
from protos.errors import BadInputError

# HANNA's evaluation has 30 settings, half of them dominated by energy, half by latency (arXiv 1906.07214, section 5.1),
# but does not print them. These are ours: five strengths of the stronger term times three powers, in both directions.
STRENGTHS = (0.1, 0.3, 0.6, 1.2, 2.4)  # times the cost of the uniform mixture; cross entropy begins at ln(classes)
POWERS = (0.5, 1.0, 1.5)  # those of the paper's example, and between
DOMINANCE = 4.0  # how much stronger one term is than the other before training
HANNA30 = "hanna30"


@dataclass(frozen=True)
class Knobs:
    """Of CE + α·LAT^β + γ·ENER^δ."""

    alpha: float
    beta: float
    gamma: float
    delta: float


@dataclass(frozen=True)
class Setting:
    """Knobs and what they weigh before training; dominant: "energy" or "latency"."""

    knobs: Knobs
    v_latency: float
    v_energy: float

    @property
    def dominant(self) -> str:
        return "energy" if self.v_energy > self.v_latency else "latency"


def hanna30() -> tuple[Knobs, ...]:
    """Thirty settings for costs that are counted in those of the uniform mixture (`normalise`)."""
    pairs = [(strength, power) for strength in STRENGTHS for power in POWERS]
    energy = [Knobs(strength / DOMINANCE, power, strength, power) for strength, power in pairs]
    latency = [Knobs(strength, power, strength / DOMINANCE, power) for strength, power in pairs]
    return (*energy, *latency)


def load_grid(name_or_path: str) -> tuple[Knobs, ...]:
    """`hanna30`, or a CSV file with the columns alpha, beta, gamma, delta. Raises BadInputError with file and line."""
    if name_or_path == HANNA30:
        return hanna30()
    path = Path(name_or_path)
    if path.suffix.lower() != ".csv":
        raise BadInputError(f"unknown grid {name_or_path!r}; there is {HANNA30}, or name a .csv file")
    rows = list(csv.DictReader(files.text_of(files.read(path), str(path)).splitlines()))
    names = [item.name for item in fields(Knobs)]
    if not rows or set(names) - set(rows[0]):
        raise BadInputError(f"{path} must have the columns {', '.join(names)} and at least one line")
    found = []
    for number, row in enumerate(rows, start=2):
        try:
            knobs = Knobs(**{name: float(row[name]) for name in names})
            Hanna(**asdict(knobs))
        except (TypeError, ValueError):
            raise BadInputError(f"{path}, line {number}: {', '.join(names)} must be numbers") from None
        except BadInputError as error:
            raise BadInputError(f"{path}, line {number}: {error}") from None
        found.append(knobs)
    return tuple(found)


def previewed(grid: Sequence[Knobs], uniform_cost: tuple[float, float], *, normalise: bool) -> tuple[Setting, ...]:
    """What each setting weighs on a LUT whose uniform mixture costs that (seconds, joules)."""
    settings = []
    for knobs in grid:
        loss = Hanna(**asdict(knobs))
        seen = preview(normalised(loss, uniform_cost) if normalise else loss, uniform_cost)
        settings.append(Setting(knobs, seen.v_latency, seen.v_energy))
    return tuple(settings)
