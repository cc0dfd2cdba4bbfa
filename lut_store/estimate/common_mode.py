"""How fast the machine was at each moment.

On a shared or warm machine one and the same network takes 30 % longer for a second or two, then recovers. Everything
that runs near such a moment is slow together, so the neighbours in time of an execution (other subjects, in random
order) and the probe around it tell how much of its time was the machine's and not its own. That common mode is taken
out, and executions in moments unlike most others count less (docs/decisions/0003): a machine that it shares with others
has a fast and a slow mode, and blocks slow down differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.executions import NETWORK, OPERATOR, PATH, Array, Executions, IntArray

NEIGHBOURS = 2  # on either side
CLIP = 0.6  # log units: a neighbour that was hit worse than this says no more than this
USUAL = 0.15  # log units from the usual moment at which an execution counts half
STRETCHES = (0.2, 0.04)  # log units: what one mode of a machine spans with all its unrest, and its middle
ITERATIONS = 4
LEAST_EXECUTIONS = 60  # below this nothing can be regressed


@dataclass(frozen=True)
class CommonMode:
    """offset (N,): log factor of the machine at each execution, 0 in the usual moment; weight (N,): how usual the
    moment was, above 0 and at most 1.
    """

    offset: Array
    weight: Array
    item_log_s: Array  # (items,) weighted median over the blocks of paths, offset taken out; NaN when never seen
    hot_log_s: Array  # (items,) the same over hot loops
    network_log_s: Array  # (networks,)
    residual: Array  # (N,) what is left of each execution

    @property
    def usual(self) -> NDArray[np.bool_]:
        """(N,) executions that count at least half."""
        return self.weight >= 0.5


def common_mode(ex: Executions) -> CommonMode:
    """Alternate between the level of every subject and the common mode of the moments, four times."""
    n = len(ex.kind)
    offset, weight = np.zeros(n), np.ones(n)
    items, hot, networks, level = _levels(ex, offset, weight)
    if n >= LEAST_EXECUTIONS:
        for _ in range(ITERATIONS):
            deviation = ex.log_total - level
            for kind in (PATH, NETWORK, OPERATOR):
                of_kind = ex.kind == kind
                if of_kind.any():
                    deviation[of_kind] -= np.nanmedian((deviation - offset)[of_kind])
            deviation = np.nan_to_num(deviation)
            board = _board_levels(ex, deviation, weight)
            moment = _smooth(ex, deviation - board)
            moment -= usual_moment(moment)
            weight = 1 / (1 + (moment / USUAL) ** 2)
            offset = board + moment
            items, hot, networks, level = _levels(ex, offset, weight)
    return CommonMode(offset, weight, items, hot, networks, ex.log_total - level - offset)


def _levels(ex: Executions, offset: Array, weight: Array) -> tuple[Array, Array, Array, Array]:
    """Log seconds: (items,) from paths, (items,) from hot loops, (networks,), and (N,) of each execution's subject."""
    of_path = ex.path_execution[ex.timed_path]
    corrected = ex.timed_log_s - offset[of_path]
    items = group_medians(corrected, ex.timed_item, ex.items, weight[of_path])
    total = ex.log_total - offset
    level = np.full(len(ex.kind), np.nan)
    of_kind = ex.kind == OPERATOR
    hot = group_medians(total[of_kind], ex.index[of_kind], ex.items, weight[of_kind])
    level[of_kind] = hot[ex.index[of_kind]]
    of_kind = ex.kind == NETWORK
    networks = group_medians(total[of_kind], ex.index[of_kind], ex.networks, weight[of_kind])
    level[of_kind] = networks[ex.index[of_kind]]
    if len(ex.path_execution):
        seconds = np.bincount(ex.timed_path, weights=np.exp(items[ex.timed_item]), minlength=len(ex.path_execution))
        level[ex.path_execution] = np.log(seconds)
    return items, hot, networks, level


def group_medians(values: Array, group: IntArray, groups: int, weight: Array) -> Array:
    """(groups,) weighted median of the values of each group, NaN where there are none; weights above 0.

    Between the two values whose shares enclose the half it is interpolated, so that with equal weights it is the common
    median.
    """
    result = np.full(groups, np.nan)
    order = np.lexsort((values, group))
    ordered, weights, of = values[order], weight[order], group[order]
    cumulative = np.concatenate([[0.0], np.cumsum(weights)])
    bounds = np.searchsorted(of, np.arange(groups + 1))
    start, end = bounds[:-1], bounds[1:]
    some = end > start
    half = (cumulative[start] + cumulative[end])[some] / 2
    middle = cumulative[1:] - weights / 2
    high = np.clip(np.searchsorted(middle, half), start[some], end[some] - 1)
    low = np.maximum(high - 1, start[some])
    width = np.where(high > low, middle[high] - middle[low], 1.0)
    share = np.clip((half - middle[low]) / width, 0.0, 1.0)
    result[some] = ordered[low] + share * (ordered[high] - ordered[low])
    return result


def _smooth(ex: Executions, deviation: Array) -> Array:
    """(N,) the part of each deviation that its neighbours and probes foretell (Huber regression)."""
    n = len(deviation)
    columns = []
    for lag in range(1, NEIGHBOURS + 1):
        for shift in (lag, -lag):
            near = np.roll(deviation, shift)
            same = np.roll(ex.stream, shift) == ex.stream
            same[:lag] &= shift < 0
            same[n - lag :] &= shift > 0
            columns.append(np.where(same, near, 0.0))
    probe = ex.log_probe - _stream_medians(ex)
    features: Array = np.clip(np.column_stack([*columns, probe]), -CLIP, CLIP)  # (N, 2 · NEIGHBOURS + 2)
    design = np.column_stack([np.ones(n), features])
    fitted: Array = design @ huber_regression(design, np.clip(deviation, -CLIP, 2 * CLIP))
    return fitted


def _board_levels(ex: Executions, deviation: Array, weight: Array) -> Array:
    """(N,) how much slower than the mean of the boards the board of each execution is, log units; 0 with one board."""
    streams = range(int(ex.stream.max()) + 1)
    level = group_medians(deviation, ex.stream, len(streams), weight)
    result: Array = (level - np.nanmean(level))[ex.stream]
    return np.nan_to_num(result)


def _stream_medians(ex: Executions) -> Array:
    """(N, 1) median log probe of the stream that each execution belongs to."""
    medians = np.array([np.median(ex.log_probe[ex.stream == s]) for s in range(int(ex.stream.max()) + 1)])
    result: Array = medians[ex.stream][:, None]
    return result


def huber_regression(design: Array, target: Array, threshold: float = 1.0, iterations: int = 20) -> Array:
    """Least squares with Huber weights at `threshold` robust standard deviations; (features,) coefficients."""
    weight = np.ones_like(target)
    coefficients: Array = np.zeros_like(design[0])
    for _ in range(iterations):
        weighted = design * weight[:, None]
        gram = design.T @ weighted + 1e-9 * np.eye(design.shape[1])
        coefficients = np.asarray(np.linalg.solve(gram, weighted.T @ target), np.float64)
        left = np.abs(target - design @ coefficients)
        scale = 1.4826 * float(np.median(left)) + 1e-12
        np.divide(1, np.maximum(1, left / (threshold * scale)), out=weight)
    return coefficients


def usual_moment(moment: Array) -> float:
    """The densest of the moments (N,), in log units: first the mode in which the machine spends most of its time, then
    the middle of that mode. It is neither the mean of two modes nor the fastest moment there was.
    """
    ordered = np.sort(moment)
    for stretch in STRETCHES:
        count = np.searchsorted(ordered, ordered + stretch, side="right") - np.arange(len(ordered))
        first = int(np.argmax(count))
        ordered = ordered[first : first + int(count[first])]
    return float(np.median(ordered))
