"""How two LUTs of one space differ: operators beyond their joint uncertainty, whole networks, and how they were made.

>>> found = diff(Lut.load("old.lut"), Lut.load("new.lut"))                                 # doctest: +SKIP
>>> found.metrics[0].changed

Costs are the corrected ones, which predict() sums. Cells that hold one estimate of one operator are tested once. The
test is Welch's: the difference over the root of the squares of both standard errors and of both corrections' common
errors (`factor_rel_se`), against Student's t with the degrees of freedom that few samples leave (Welch, Biometrika
34, 1947): a standard error from three samples of a slow meter is itself uncertain. Of many operators some differ by
chance, so that p-values are adjusted by Benjamini and Hochberg (J. R. Stat. Soc. B 57, 1995): of those that are
called changed, a share of at most `fdr` is expected to be false. A table without uncertainty cannot be tested; its
changes are given, and nothing is called changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from lut_store.diff_record import RecordChange, record_changes, shared_runs
from lut_store.entries import Entries
from lut_store.lut import METRICS, Lut
from lut_store.metric import Array, Metric
from protos.errors import BadInputError
from protos.types import BlockSpec, CellRef

FDR = 0.05
UNIFORM = "uniform mixture"


@dataclass(frozen=True)
class Change:
    """One estimate of one operator in both LUTs, corrected, in seconds or joules; `cells` hold it.

    relative: b ÷ a − 1; relative_se and q, the adjusted p-value, are NaN where an uncertainty is not known. changed:
    q is at most the false-discovery rate.
    """

    cells: tuple[CellRef, ...]
    label: str
    a: float
    b: float
    relative: float
    relative_se: float
    q: float
    changed: bool


@dataclass(frozen=True)
class Total:
    """A whole network, or the mean of all: every allowed candidate of a layer equally likely (choices None).

    NaN where a cell of it has no number; the standard error is that of the tables, not of the networks.
    """

    name: str
    choices: tuple[int, ...] | None
    a: float
    b: float
    relative: float
    relative_se: float


@dataclass(frozen=True)
class MetricDiff:
    """tested: how many of the changes have an uncertainty; only_in_a, only_in_b: cells with a number in one alone."""

    metric: str
    changes: tuple[Change, ...]
    tested: int
    only_in_a: tuple[CellRef, ...]
    only_in_b: tuple[CellRef, ...]
    totals: tuple[Total, ...]

    @property
    def changed(self) -> tuple[Change, ...]:
        """The largest first."""
        return tuple(sorted((c for c in self.changes if c.changed), key=lambda c: -abs(c.relative)))


@dataclass(frozen=True)
class LutDiff:
    """From a to b. notes: what a reader must know before comparing, in sentences."""

    a: Lut
    b: Lut
    fdr: float
    metrics: tuple[MetricDiff, ...]
    record: tuple[RecordChange, ...]
    notes: tuple[str, ...]


def diff(a: Lut, b: Lut, architectures: Sequence[Sequence[int]] = (), fdr: float = FDR) -> LutDiff:
    """architectures: networks whose change is wanted, a candidate's position for every layer.

    Raises BadInputError for LUTs of different spaces, for architectures that the space does not have, and for a rate
    outside 0 to 1.
    """
    if a.space.digest != b.space.digest:
        raise BadInputError(
            f"{a.reference} and {b.reference} are of different spaces ({_space(a)} and {_space(b)}); "
            "only tables of the same operators can be compared"
        )
    if not 0 < fdr < 1:
        raise BadInputError(f"the false-discovery rate is {fdr}; it must lie between 0 and 1, for example 0.05")
    try:
        for choices in architectures:
            a.space.check_choices(tuple(choices))
    except ValueError as error:
        raise BadInputError(str(error)) from error
    both = [name for name in METRICS if getattr(a, name) is not None and getattr(b, name) is not None]
    metrics = tuple(_metric_diff(a, b, name, architectures, fdr) for name in both)
    return LutDiff(a, b, fdr, metrics, record_changes(a, b), tuple(_notes(a, b, metrics)))


def _space(lut: Lut) -> str:
    return f"{lut.space.name}, {lut.space.shape[0]} layers"


def _notes(a: Lut, b: Lut, metrics: Sequence[MetricDiff]) -> list[str]:
    said = []
    for name in METRICS:
        if (getattr(a, name) is None) != (getattr(b, name) is None):
            holds = (a if getattr(b, name) is None else b).reference
            said.append(f"only {holds} holds {name}")
    if a.fixed_included != b.fixed_included:
        said.append("stem and head are in one of them alone, and in no total below")
    runs = shared_runs(a, b)
    if runs:
        said.append(f"both rest on run {', '.join(runs)}: their errors go together, so that less is called changed")
    for found in metrics:
        if found.tested < len(found.changes):
            rest = len(found.changes) - found.tested
            said.append(
                f"{rest} of {len(found.changes)} {found.metric} entries have no uncertainty and cannot be tested"
            )
    return said


def _metric_diff(lut_a: Lut, lut_b: Lut, name: str, architectures: Sequence[Sequence[int]], fdr: float) -> MetricDiff:
    a, b, entries = getattr(lut_a, name), getattr(lut_b, name), Entries.of(lut_a.space)
    value_a, value_b = entries.pick(a, "corrected"), entries.pick(b, "corrected")  # (N,)
    known_a, known_b = np.isfinite(value_a), np.isfinite(value_b)
    places = _estimates(entries, value_a, value_b)
    first = np.array([own[0] for own in places], np.intp)  # (E,)
    se_a, se_b = (_test_se(entries, metric)[first] for metric in (a, b))
    degrees = welch_degrees(se_a, se_b, *(entries.pick(metric, "n")[first] for metric in (a, b)))
    changes = _changes(entries, places, value_a[first], value_b[first], se_a, se_b, degrees, fdr)
    fixed = lut_a.fixed_included and lut_b.fixed_included
    space = lut_a.space
    mixture = lut_a.allowed / lut_a.allowed.sum(axis=1, keepdims=True)  # (L, K)
    totals = [_total(UNIFORM, None, mixture, lut_a, lut_b, name, fixed=fixed)]
    for number, choices in enumerate(architectures, start=1):
        weight = np.zeros(space.shape)
        weight[np.arange(len(choices)), list(choices)] = 1
        totals.append(_total(f"architecture {number}", tuple(choices), weight, lut_a, lut_b, name, fixed=fixed))
    return MetricDiff(
        name,
        changes,
        int(sum(np.isfinite(change.q) for change in changes)),
        tuple(entries.cells[i] for i in np.flatnonzero(known_a & ~known_b)),
        tuple(entries.cells[i] for i in np.flatnonzero(known_b & ~known_a)),
        tuple(totals),
    )


def _se(entries: Entries, metric: Metric) -> Array:
    """(N,) standard errors of the corrected entries, without what all have in common."""
    return entries.pick(metric, "se") * metric.se_scale


def _test_se(entries: Entries, metric: Metric) -> Array:
    """(N,) with what all entries have in common: another process is another draw of it."""
    common = np.nan_to_num(metric.factor_rel_se) * entries.pick(metric, "corrected")
    return np.asarray(np.hypot(_se(entries, metric), common), np.float64)


def welch_degrees(se_a: Array, se_b: Array, n_a: Array, n_b: Array) -> Array:
    """(E,) degrees of freedom of a difference whose parts have these standard errors from so many samples; at least 1,
    NaN where an uncertainty is not known. Source: Welch 1947, Satterthwaite 1946.
    """
    parts = [se**4 / np.maximum(n - 1, 1) for se, n in ((se_a, n_a), (se_b, n_b))]
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.where(parts[0] + parts[1] > 0, (se_a**2 + se_b**2) ** 2 / (parts[0] + parts[1]), np.inf)
    return np.asarray(np.where(np.isfinite(se_a + se_b), np.maximum(degrees, 1.0), np.nan), np.float64)


def _estimates(entries: Entries, value_a: Array, value_b: Array) -> list[list[int]]:
    """Positions of entries with numbers in both LUTs; those that share one estimate stand together."""
    found: dict[tuple[BlockSpec, float, float], list[int]] = {}
    for index in np.flatnonzero(np.isfinite(value_a) & np.isfinite(value_b)):
        key = entries.specs[index], float(value_a[index]), float(value_b[index])
        found.setdefault(key, []).append(int(index))
    return list(found.values())


def _changes(
    entries: Entries,
    places: list[list[int]],
    a: Array,
    b: Array,
    se_a: Array,
    se_b: Array,
    degrees: Array,
    fdr: float,
) -> tuple[Change, ...]:
    """a, b, se_a, se_b, degrees: (E,) of the estimates at `places`."""
    difference, joint = b - a, np.hypot(se_a, se_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(difference == 0, 0.0, np.abs(difference) / joint)
        relative, relative_se = b / a - 1, np.hypot(se_b / b, se_a / a) * np.abs(b / a)
    q = np.full(len(a), np.nan)
    testable = np.isfinite(joint)
    if testable.any():
        q[testable] = stats.false_discovery_control(2 * stats.t.sf(z[testable], degrees[testable]), method="bh")
    return tuple(
        Change(
            tuple(entries.cells[i] for i in own),
            entries.specs[own[0]].label(),
            float(a[index]),
            float(b[index]),
            float(relative[index]),
            float(relative_se[index]),
            float(q[index]),
            bool(q[index] <= fdr),
        )
        for index, own in enumerate(places)
    )


def _total(
    label: str, choices: tuple[int, ...] | None, weight: Array, a: Lut, b: Lut, name: str, *, fixed: bool
) -> Total:
    """weight (L, K): how often each cell stands in it."""
    (total_a, se_a), (total_b, se_b) = (_weighted(lut, name, weight, fixed=fixed) for lut in (a, b))
    relative = total_b / total_a - 1 if total_a else float("nan")
    relative_se = (
        float(np.hypot(se_a / total_a, se_b / total_b) * (1 + relative)) if total_a and total_b else float("nan")
    )
    return Total(label, choices, total_a, total_b, relative, relative_se)


def _weighted(lut: Lut, name: str, weight: Array, *, fixed: bool) -> tuple[float, float]:
    """Σ weight × corrected cost and its standard error; cells that share an operator err together."""
    metric: Metric = getattr(lut, name)
    used = weight > 0
    total = float((weight[used] * metric.corrected[used]).sum())
    entries = Entries.of(lut.space)
    ends = len(lut.space.stem) + len(lut.space.head)
    cells = len(entries.cells) - ends
    share = np.array([weight[cell.layer, cell.op] for cell in entries.cells[:cells]] + [float(fixed)] * ends)
    if fixed:
        total += float(metric.fixed_corrected.sum())
    se = _se(entries, metric)
    summed = np.where(share > 0, share * se, 0.0)  # (N,)
    variance = sum(float(summed[own].sum()) ** 2 for own in _grouped(entries))
    return total, float(np.sqrt(variance + (np.nan_to_num(metric.factor_rel_se) * total) ** 2))


def _grouped(entries: Entries) -> list[npt.NDArray[np.intp]]:
    return list(entries.operators().values())
