"""How much boards of one type differ: between-board variance beside the within-board one, and boards that lie outside.

Boards are compared by the ratios of the same operators, in pairs, so that what is common to an operator drops out. A
board's level is the median of its ratios to the middle of the boards; boards lie outside by the modified z-score of
their levels (Iglewicz and Hoaglin 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lut_store.estimate.executions import Array
from lut_store.estimate.statistic import SE_FACTORS

MAD = 1.4826
LEAST_SPREAD = 0.005  # of levels: below this, boards differ by less than a process that is started anew
OUTSIDE = 3.5  # the threshold that Iglewicz and Hoaglin recommend
LEAST_COMMON = 8  # operators
LEAST_FOR_OUTSIDE = 3  # boards: of two nobody can say which is the odd one
PROCESS_REL_SE = 0.003  # of a level, as in estimate.correction: one process is one draw of placements


@dataclass(frozen=True, eq=False)
class Boards:
    """D boards, I operators; latency in seconds or energy in joules.

    value, se (D, I): each board alone, NaN where it has none; ratio (D,): of its operators to the middle of the boards,
    1 for all when nothing can be compared; robust_z (D,): NaN with fewer than three boards; level_rel_sd: standard
    deviation of boards as a whole, operator_rel_sd: of single operators beyond it, both without the sampling noise.
    """

    names: tuple[str, ...]
    value: Array
    se: Array
    ratio: Array
    robust_z: Array
    level_rel_sd: float
    operator_rel_sd: float

    @property
    def rel_sd(self) -> float:
        """Of one operator on one board of the type around the table's entry."""
        return float(np.hypot(self.level_rel_sd, self.operator_rel_sd))

    @property
    def outside(self) -> tuple[str, ...]:
        return tuple(
            name for name, z in zip(self.names, self.robust_z, strict=True) if np.isfinite(z) and abs(z) > OUTSIDE
        )

    def combined_se(self, value: Array, se: Array) -> Array:
        """(…,) standard error of entries for the type: what these boards are uncertain of, and that they are few."""
        return np.asarray(np.hypot(se, np.abs(value) * self.rel_sd / np.sqrt(len(self.names))), np.float64)

    def prediction_rel_se(self, factor_rel_se: float) -> float:
        """Relative standard error common to all predictions for one board of the type, which may be another one."""
        return float(np.hypot(factor_rel_se, self.level_rel_sd * np.sqrt(1 + 1 / len(self.names))))


def is_enough(value: Array, se: Array) -> bool:
    """Whether a board, value and se (I,), knows enough of its operators to be compared: at least half of them."""
    return 2 * int((np.isfinite(value) & np.isfinite(se)).sum()) >= len(value)


def compare(names: Sequence[str], value: Array, se: Array) -> Boards:
    """value, se (D, I) of D boards, two or more; operators that not every board has are left out of the comparison, and
    with fewer than LEAST_COMMON others nothing is compared.
    """
    boards = len(names)
    common = (np.isfinite(value) & np.isfinite(se) & (value > 0)).all(axis=0)
    ratio, z = np.ones(boards), np.full(boards, np.nan)
    if common.sum() < min(LEAST_COMMON, value.shape[1]) or not common.any():
        return Boards(tuple(names), value, se, ratio, z, float("nan"), float("nan"))
    log, rel_se = np.log(value[:, common]), se[:, common] / value[:, common]
    apart = log - log.mean(axis=0)  # (D, I)
    level = np.median(apart, axis=1)  # (D,)
    scatter = MAD * np.median(np.abs(apart - level[:, None]), axis=1)
    level -= np.median(level)
    level_se = np.hypot(SE_FACTORS["median"] * scatter / np.sqrt(common.sum()), PROCESS_REL_SE)
    if boards >= LEAST_FOR_OUTSIDE:
        # What one board is uncertain of may be common to its operators: a meter's gain, a process' placement.
        least = max(LEAST_SPREAD, float(np.median(rel_se)))
        z = level / max(MAD * float(np.median(np.abs(level))), least)
    of_levels = float(np.var(level, ddof=1)) - float(np.mean(level_se**2))
    single = log - level[:, None]
    of_operators = float(np.mean(np.var(single, axis=0, ddof=1) - np.mean(rel_se**2, axis=0)))
    return Boards(
        names=tuple(names),
        value=value,
        se=se,
        ratio=np.exp(level),
        robust_z=z,
        level_rel_sd=float(np.sqrt(max(of_levels, 0.0))),
        operator_rel_sd=float(np.sqrt(max(of_operators, 0.0))),
    )
