"""The statistic of many executions that stands for an operator: median, 10th percentile or mean."""

from __future__ import annotations

import numpy as np

from lut_store.estimate.executions import Array, IntArray
from lut_store.estimate.settings import MEAN, MEDIAN, P10

LOW = 0.1  # of P10
# Standard error over that of a mean, for normal noise: sqrt(q (1 - q)) / density at the quantile.
SE_FACTORS = {MEDIAN: 1.2533, P10: 1.7094, MEAN: 1.0}


def log_level(log_s: Array, weight: Array, statistic: str) -> float:
    """Log of the statistic of exp(log_s) (n,) under weight (n,), n at least 1."""
    order = np.argsort(log_s, kind="stable")
    return float(weighted_levels(log_s[order], weight[order][None], statistic)[0])


def group_levels(values: Array, group: IntArray, groups: int, weight: Array, statistic: str) -> Array:
    """(groups,) log level of the values (log seconds) of each group under their weights; NaN where there are none."""
    result = np.full(groups, np.nan)
    order = np.lexsort((values, group))
    ordered, weights = values[order], weight[order]
    bounds = np.searchsorted(group[order], np.arange(groups + 1))
    for number in range(groups):
        own = slice(bounds[number], bounds[number + 1])
        if bounds[number + 1] > bounds[number]:
            result[number] = weighted_levels(ordered[own], weights[own][None], statistic)[0]
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
