"""The look-up table that users keep: what every candidate costs, how well that is known, and where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lut_store import document
from lut_store.metric import Array, BoolArray, Metric
from lut_store.plain import plain_mapping
from lut_store.predict import Choices, IntervalTable, SumTable, UnusableChoiceError
from protos.errors import BadInputError, NotFoundError
from protos.types import FIXED_LAYER, CellRef, Configuration, SearchSpace

if TYPE_CHECKING:  # slow to import, and only single methods need them
    import pandas as pd
    import torch

    from lut_store.arrays import LutArrays
    from lut_store.tensors import LutTensors

METRICS = ("latency", "energy")  # the columns of a prediction, in this order
_NAME = re.compile(r"[^@\s]+")  # what lut_store.reference can name
LATEST_WALL_S = 1e11  # the year 5138: every platform can still write it as a date


class BadChoiceError(BadInputError, ValueError):
    """An architecture that the space does not have."""


class MissingCellError(NotFoundError, ValueError):
    """An allowed cell that has no number."""


@dataclass(frozen=True, eq=False)
class Lut:
    """An immutable look-up table of one configuration: L layers × K candidates, latency and energy.

    `latency` or `energy` is None when it was not measured. `flags` holds words about single cells ("disturbed",
    "budget"), CellRef(-1, i) being the i-th of stem and head. `validation` and `provenance` are JSON-able records; of
    the provenance, "evidence" and "method" are part of the digest (docs/lut-format.md). `fixed_included` is False for
    an imported table that holds no stem and head: they then contribute nothing to a prediction, which is a sum of
    cells alone. `version` is 0 until a store has assigned one.

    Raises ValueError when the parts contradict each other: wrong shapes, or numbers in cells that are not allowed.
    """

    configuration: Configuration
    space: SearchSpace
    latency: Metric | None
    energy: Metric | None
    flags: Mapping[CellRef, tuple[str, ...]] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    created_wall_s: float = 0.0
    fixed_included: bool = True

    def __post_init__(self) -> None:
        if self.configuration.space != self.space.name:
            raise ValueError(f"the configuration names space {self.configuration.space}, not {self.space.name}")
        if self.version < 0:
            raise ValueError(f"version is {self.version}; it must not be negative")
        if not 0 <= self.created_wall_s <= LATEST_WALL_S:  # NaN is refused too
            raise ValueError(
                f"created_wall_s is {self.created_wall_s:g}; it must be seconds since 1970, at most {LATEST_WALL_S:g}"
            )
        self._check_words()
        for name in METRICS:
            self._check_metric(name, getattr(self, name))
        for cell in self.flags:
            self._check_cell(cell)
        flags = {cell: tuple(words) for cell, words in self.flags.items() if words}
        object.__setattr__(self, "flags", flags)
        object.__setattr__(self, "validation", plain_mapping("validation", self.validation))
        object.__setattr__(self, "provenance", plain_mapping("provenance", self.provenance))

    def _check_words(self) -> None:
        """People see these words in their terminals, and name a LUT by some of them."""
        c = self.configuration
        for what, word in (("device type", c.device_type), ("space", c.space)):
            if not _NAME.fullmatch(word) or not word.isprintable():
                raise ValueError(f"the {what} {word[:80]!r} is no name: leave out '@', blanks and control characters")
        words = [c.runtime, c.precision, *self.space.op_names, *(word for own in self.flags.values() for word in own)]
        for word in words:
            if not word.isprintable():
                raise ValueError(f"the word {word[:80]!r} holds a control character")

    def _check_metric(self, name: str, metric: Metric | None) -> None:
        if metric is None:
            return
        fixed = len(self.space.stem) + len(self.space.head)
        if metric.value.shape != self.space.shape or metric.fixed_value.shape != (fixed,):
            raise ValueError(
                f"{name} is {metric.value.shape} with {metric.fixed_value.size} fixed operators; "
                f"space {self.space.name} is {self.space.shape} with {fixed}"
            )
        stray = np.argwhere(~np.isnan(metric.value) & ~self.allowed)
        if stray.size:
            raise ValueError(f"{name} has a number at {self._name(*stray[0])}, which is not allowed")
        if name == "latency" and ((metric.value < 0).any() or (metric.fixed_value < 0).any()):
            raise ValueError("latency holds a negative time")
        # A ridge may take a small operator below zero, so that whole networks come out right; nothing else does.
        strict = name == "latency" and metric.correction.get("method") != "ridge"
        if strict and ((metric.corrected < 0).any() or (metric.fixed_corrected < 0).any()):
            raise ValueError("latency holds a negative corrected time")
        if not self.fixed_included and not np.isnan(metric.fixed_value).all():
            raise ValueError(f"{name} has numbers for stem and head, which fixed_included says are not there")

    def _check_cell(self, cell: CellRef) -> None:
        layers, ops = self.space.shape
        fixed = len(self.space.stem) + len(self.space.head)
        if not (FIXED_LAYER <= cell.layer < layers and 0 <= cell.op < (fixed if cell.layer == FIXED_LAYER else ops)):
            raise ValueError(f"flags name layer {cell.layer}, candidate {cell.op}, which the space does not have")

    def _name(self, layer: int, op: int) -> str:
        return f"layer {layer}, {self.space.op_names[op]}"

    # ---- the numbers ----

    @cached_property
    def allowed(self) -> BoolArray:
        """(L, K): True where a candidate may be chosen."""
        array = np.array([[cell.spec is not None for cell in layer.cells] for layer in self.space.layers])
        array.flags.writeable = False
        return array

    @cached_property
    def _unmeasured(self) -> Array:
        array = np.full(self.space.shape, np.nan)
        array.flags.writeable = False
        return array

    @property
    def latency_s(self) -> Array:
        """(L, K) seconds as measured, without the correction; NaN where a candidate is not allowed or has no number."""
        return self._unmeasured if self.latency is None else self.latency.value

    @property
    def energy_j(self) -> Array:
        """(L, K) joules above idle as measured, without the correction; NaN as in latency_s."""
        return self._unmeasured if self.energy is None else self.energy.value

    @property
    def latency_corrected_s(self) -> Array:
        """(L, K) seconds, corrected: what predict() sums."""
        return self._unmeasured if self.latency is None else self.latency.corrected

    @property
    def energy_corrected_j(self) -> Array:
        """(L, K) joules, corrected: what predict() sums."""
        return self._unmeasured if self.energy is None else self.energy.corrected

    @property
    def fixed_latency_s(self) -> float:
        """Stem and head together, uncorrected; NaN when they were not measured or are not included."""
        return self._fixed(self.latency, corrected=False)

    @property
    def fixed_energy_j(self) -> float:
        return self._fixed(self.energy, corrected=False)

    @property
    def fixed_latency_corrected_s(self) -> float:
        """Stem and head together, corrected: the constant part of predict() (NaN when they are not included)."""
        return self._fixed(self.latency, corrected=True)

    @property
    def fixed_energy_corrected_j(self) -> float:
        return self._fixed(self.energy, corrected=True)

    def _fixed(self, metric: Metric | None, *, corrected: bool) -> float:
        if metric is None or not self.fixed_included:
            return float("nan")
        return float((metric.fixed_corrected if corrected else metric.fixed_value).sum())

    @property
    def coverage(self) -> dict[str, float]:
        """Share of the allowed cells that have a number, by metric."""
        return {
            name: 0.0 if metric is None else float((~np.isnan(metric.value)).sum() / self.allowed.sum())
            for name, metric in self._metrics()
        }

    def _metrics(self) -> tuple[tuple[str, Metric | None], tuple[str, Metric | None]]:
        return ("latency", self.latency), ("energy", self.energy)

    # ---- predictions ----

    def predict(self, choices: npt.ArrayLike) -> Array:
        """Cost of whole networks, correction applied, stem and head included.

        choices: whole numbers (N, L), a candidate's position for every layer. Returns (N, 2): latency_s, energy_j; a
        metric that was not measured is NaN. Raises BadChoiceError (a ValueError) naming the first cell that is out of
        range or not allowed, and MissingCellError (a ValueError) naming the first allowed cell without a number. A
        metric whose stem or head has no number counts as not measured; when that leaves none, it is a missing cell.
        """
        checked = self._choices(choices)
        try:
            sums = self._sums.sums(checked)  # (N, 2)
        except UnusableChoiceError as error:
            raise self._unusable(checked, error.row, error.layer) from None
        held = [metric for _, metric in self._metrics() if metric is not None]
        if held and all(self._lacks_fixed(metric) for metric in held):
            first = min(int(np.flatnonzero(np.isnan(metric.fixed_corrected))[0]) for metric in held)
            raise MissingCellError(f"{self.reference}: {self.fixed_name(first)} has no number; it was not measured")
        for column, (_, metric) in enumerate(self._metrics()):
            if metric is None or self._lacks_fixed(metric):
                sums[:, column] = np.nan
        return sums

    def predict_interval(self, choices: npt.ArrayLike, level: float = 0.95) -> Array:
        """Bounds of predict() at `level`, (N, 2, 2): for latency_s and energy_j, lower and upper.

        A normal interval from the standard errors of the entries (cells that share an operator err together), the
        common error of the correction and the spread of networks around the corrected sum. NaN where one of them is
        not known.
        """
        if not 0 < level < 1:
            raise BadInputError(f"level is {level}; it must lie between 0 and 1, for example 0.95")
        checked = self._choices(choices)
        sums = self.predict(checked)  # (N, 2)
        half = np.full_like(sums, np.nan)
        z = NormalDist().inv_cdf(0.5 + level / 2)
        for column, table in enumerate(self._spreads):
            if table is not None:
                half[:, column] = z * table.standard_errors(checked, sums[:, column])
        return np.stack((sums - half, sums + half), axis=-1)

    def _choices(self, choices: npt.ArrayLike) -> Choices:
        array = np.asarray(choices)
        layers = len(self.space.layers)
        if array.ndim != 2 or array.shape[1] != layers or array.dtype.kind not in "iu":
            raise BadChoiceError(
                f"choices must be whole numbers of the shape (N, {layers}), one candidate for every layer; "
                f"got {array.dtype} of the shape {array.shape}"
            )
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _unusable(self, choices: Choices, row: int, layer: int) -> ValueError:
        op, ops = int(choices[row, layer]), len(self.space.op_names)
        where = f"architecture {row}, layer {layer}"
        if not 0 <= op < ops:
            return BadChoiceError(f"{where}: choice {op} is out of range 0…{ops - 1}")
        if not self.allowed[layer, op]:
            names = ", ".join(self.space.op_names[other] for other in self.space.allowed(layer))
            return BadChoiceError(f"{where}: {self.space.op_names[op]} is not allowed there; allowed are {names}")
        lacking = " and ".join(
            name for name, metric in self._metrics() if metric is not None and np.isnan(metric.corrected[layer, op])
        )
        return MissingCellError(
            f"{self.reference}: {self._name(layer, op)} has no {lacking}; it was not measured"
            " (lut.estimated() fills such cells with guesses)"
        )

    def _lacks_fixed(self, metric: Metric) -> bool:
        """Whether stem or head has no number, so that no network can be predicted in this metric."""
        return self.fixed_included and bool(np.isnan(metric.fixed_corrected).any())

    def fixed_name(self, index: int) -> str:
        """ "stem0", "head2": the name in frame() of the index-th of stem and head."""
        stem = len(self.space.stem)
        return f"stem{index}" if index < stem else f"head{index - stem}"

    @cached_property
    def _sums(self) -> SumTable:
        free = np.where(self.allowed, 0.0, np.nan)
        latency, energy = (
            free if metric is None or self._lacks_fixed(metric) else metric.corrected for _, metric in self._metrics()
        )
        fixed = (self.fixed_latency_corrected_s, self.fixed_energy_corrected_j)
        # Not included or not measured: nothing to add.
        return SumTable.of(latency, energy, complex(*(0.0 if np.isnan(value) else value for value in fixed)))

    @cached_property
    def _spreads(self) -> tuple[IntervalTable | None, ...]:
        return tuple(
            None if metric is None else IntervalTable.of(self.space, metric, fixed_included=self.fixed_included)
            for _, metric in self._metrics()
        )

    # ---- identity and views ----

    @cached_property
    def digest(self) -> str:
        """SHA-256 over numbers, evidence and method; equal for the same content under any version number."""
        return document.digest(self)

    @property
    def reference(self) -> str:
        """``rpi3b/fbnet-cifar10@3``; a LUT that no store has numbered yet is named by its digest."""
        head = f"{self.configuration.device_type}/{self.configuration.space}"
        return f"{head}@{self.version}" if self.version else f"{head} ({self.digest[:12]})"

    def frame(self) -> pd.DataFrame:
        """One row for every allowed cell, after the stem's and before the head's (layer -1); columns in docs/lut-
        format.md.
        """
        from lut_store.frame import frame

        return frame(self)

    def arrays(self) -> LutArrays:
        """What predict() sums as plain numpy arrays, 0 where a candidate is not allowed (lut_store.arrays).

        Raises MissingCellError naming the first missing cell.
        """
        from lut_store.arrays import arrays

        return arrays(self)

    def tensors(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> LutTensors:
        """`arrays()` as torch tensors on `device`, float64 unless `dtype` says otherwise (lut_store.tensors)."""
        import torch

        from lut_store.tensors import tensors

        return tensors(self, device, torch.float64 if dtype is None else dtype)

    def estimated(self) -> Lut:
        """This LUT with a guess, flagged "estimated", in every missing cell; itself when nothing is missing.

        The guesses come from a regressor fitted to the measured operators; how well it predicts operators that were
        left out stands in the provenance under "estimates" (lut_store.estimated). Raises BadInputError when nothing
        can be guessed.
        """
        from lut_store.estimated import estimated

        return estimated(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file in the format of its ending (.lut, .json, .parquet; .csv is the frame alone)."""
        from lut_store import formats

        formats.save(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lut:
        """Read what save() wrote (not .csv). Raises BadInputError with file and field."""
        from lut_store import formats

        return formats.load(Path(path))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lut):
            return NotImplemented
        return document.to_document(self) == document.to_document(other)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Lut {self.reference}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Lut, tuple(getattr(self, item.name) for item in fields(self))
