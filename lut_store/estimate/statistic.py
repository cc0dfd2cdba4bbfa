"""The statistic of many executions that stands for an operator: median, 10th percentile or mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lut_store.estimate.executions import Array, IntArray
from lut_store.estimate.settings import MEAN, MEDIAN, P10

LOW = 0.1  # of P10
# Standard error over that of a mean, for normal noise: sqrt(q (1 - q)) / density at the quantile.
SE_FACTORS = {MEDIAN: 1.2533, P10: 1.7094, MEAN: 1.0}


def log_level(log_s: Array, statistic: str) -> float:
    """Log of the statistic of exp(log_s) (n,), n at least 1."""
    if statistic == MEDIAN:
        return float(np.median(log_s))
    return float(np.quantile(log_s, LOW)) if statistic == P10 else float(np.log(np.mean(np.exp(log_s))))


def group_levels(values: Array, group: IntArray, groups: int, use: NDArray[np.bool_], statistic: str) -> Array:
    """(groups,) log level of the used values (log seconds) of each group; of all of them where none is used; NaN where
    there are none.
    """
    result = np.full(groups, np.nan)
    for chosen in (np.ones(len(values), bool), use):
        order = np.argsort(group[chosen], kind="stable")
        ordered, of = values[chosen][order], group[chosen][order]
        bounds = np.searchsorted(of, np.arange(groups + 1))
        for number in range(groups):
            own = ordered[bounds[number] : bounds[number + 1]]
            if len(own):
                result[number] = log_level(own, statistic)
    return result


def weighted_levels(ordered: Array, weight: Array, statistic: str) -> Array:
    """(resamples,) log level of ordered (n,) log seconds under weight (resamples, n); NaN where a resample drew none of
    them.
    """
    if statistic == MEAN:
        total = weight.sum(axis=1)
        drawn = np.where(total > 0, total, 1.0)
        return np.asarray(np.where(total > 0, np.log((weight @ np.exp(ordered)) / drawn), np.nan))
    share = 0.5 if statistic == MEDIAN else LOW
    cumulative = np.cumsum(weight, axis=1)
    part = cumulative[:, -1:] * share
    low = np.argmax(cumulative >= part, axis=1)
    high = np.argmax(cumulative > part, axis=1)
    levels = (ordered[low] + ordered[high]) / 2
    result: Array = np.where(cumulative[:, -1] > 0, levels, np.nan)
    return result
