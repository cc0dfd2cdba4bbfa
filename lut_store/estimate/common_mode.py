"""How fast the machine was at each moment.

On a shared or warm machine one and the same network takes 30 % longer for a second or two, then recovers. Everything
that runs near such a moment is slow together, so the neighbours in time of an execution (other subjects, in random
order) and the probe around it tell how much of its time was the machine's and not its own. That common mode is taken
out, and executions in clearly disturbed moments are left out. On a noisy 2-core server it took the spread of one
execution from 7.2 % to 3.3 % (docs/decisions/0003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.executions import NETWORK, OPERATOR, PATH, Array, Executions, IntArray

NEIGHBOURS = 2  # on either side
CLIP = 0.6  # log units: a neighbour that was hit worse than this says no more than this
DISTURBED = 0.05  # log units above the undisturbed level: left out, and what ran just before and after it too
LEAST_KEPT = 0.3  # share of the executions that counts as undisturbed however restless the machine is
ITERATIONS = 4
LEAST_EXECUTIONS = 60  # below this nothing can be regressed


@dataclass(frozen=True)
class CommonMode:
    """offset (N,): log factor of the machine at each execution, 0 when undisturbed; kept (N,): not disturbed."""

    offset: Array
    kept: NDArray[np.bool_]
    item_log_s: Array  # (items,) median over the kept blocks of paths, offset taken out; NaN when never seen
    hot_log_s: Array  # (items,) the same over hot loops
    network_log_s: Array  # (networks,)
    residual: Array  # (N,) what is left of each execution


def common_mode(ex: Executions) -> CommonMode:
    """Alternate between the level of every subject and the common mode of the moments, four times."""
    n = len(ex.kind)
    offset, kept = np.zeros(n), np.ones(n, bool)
    items, hot, networks, level = _levels(ex, offset, kept)
    if n >= LEAST_EXECUTIONS:
        for _ in range(ITERATIONS):
            deviation = ex.log_total - level
            for kind in (PATH, NETWORK, OPERATOR):
                of_kind = ex.kind == kind
                if (of_kind & kept).any():
                    deviation[of_kind] -= np.nanmedian((deviation - offset)[of_kind & kept])
            deviation = np.nan_to_num(deviation)
            board = _board_levels(ex, deviation, kept)
            moment, kept = _centre(_smooth(ex, deviation - board))
            offset = board + moment
            items, hot, networks, level = _levels(ex, offset, kept)
    return CommonMode(offset, kept, items, hot, networks, ex.log_total - level - offset)


def _levels(ex: Executions, offset: Array, kept: NDArray[np.bool_]) -> tuple[Array, Array, Array, Array]:
    """Log seconds: (items,) from paths, (items,) from hot loops, (networks,), and (N,) of each execution's subject."""
    of_path = ex.path_execution[ex.timed_path]
    corrected = ex.timed_log_s - offset[of_path]
    items = group_medians(corrected, ex.timed_item, ex.items, kept[of_path])
    total = ex.log_total - offset
    level = np.full(len(ex.kind), np.nan)
    of_kind = ex.kind == OPERATOR
    hot = group_medians(total[of_kind], ex.index[of_kind], ex.items, kept[of_kind])
    level[of_kind] = hot[ex.index[of_kind]]
    of_kind = ex.kind == NETWORK
    networks = group_medians(total[of_kind], ex.index[of_kind], ex.networks, kept[of_kind])
    level[of_kind] = networks[ex.index[of_kind]]
    if len(ex.path_execution):
        seconds = np.bincount(ex.timed_path, weights=np.exp(items[ex.timed_item]), minlength=len(ex.path_execution))
        level[ex.path_execution] = np.log(seconds)
    return items, hot, networks, level


def group_medians(values: Array, group: IntArray, groups: int, use: NDArray[np.bool_]) -> Array:
    """(groups,) median of the used values of each group; of all of them where none is used; NaN where there are
    none."""
    result = np.full(groups, np.nan)
    for chosen in (np.ones(len(values), bool), use):
        order = np.lexsort((values[chosen], group[chosen]))
        ordered, of = values[chosen][order], group[chosen][order]
        count = np.bincount(of, minlength=groups)
        start = np.concatenate([[0], np.cumsum(count)[:-1]])
        some = count > 0
        low, high = start + np.maximum(count - 1, 0) // 2, start + count // 2
        result[some] = (ordered[low[some]] + ordered[high[some]]) / 2
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


def _board_levels(ex: Executions, deviation: Array, kept: NDArray[np.bool_]) -> Array:
    """(N,) how much slower than the mean of the boards the board of each execution is, log units; 0 with one board."""
    streams = range(int(ex.stream.max()) + 1)
    level = np.array([np.median(deviation[(ex.stream == s) & kept]) for s in streams])
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


def _centre(offset: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Offsets relative to the undisturbed level (the median of what lies below the cut), and what is kept.

    Kept is what lies below the cut with both its neighbours, because a disturbance begins and ends inside an execution;
    without regard to neighbours when that would leave too little.
    """
    reference = float(np.quantile(offset, 0.25))
    for _ in range(2):
        reference = float(np.median(offset[offset < reference + DISTURBED]))
    calm = offset <= max(reference + DISTURBED, float(np.quantile(offset, LEAST_KEPT)))
    kept = calm.copy()
    kept[1:] &= calm[:-1]
    kept[:-1] &= calm[1:]
    return offset - reference, kept if kept.sum() > LEAST_KEPT / 3 * len(kept) else calm
