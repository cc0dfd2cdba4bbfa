"""What a square wave of load says of a meter: lag, settling time, noise, real update period. Pure functions, numpy.

`edgelut-agent calibrate` makes the wave. The lag is the mean of the meter's impulse response, found without assuming
a form for it: the response to a step is a line with a few corners, fitted by least squares to all edges together, so
that an edge may come before the meter has settled from the last one. How far the corners reach and how many there are
is chosen by the information criterion of Akaike (1974), the standard error by the jackknife over the wave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.calibration_values import Values, new_values
from protos.errors import BadInputError
from protos.types import Calibration

Array = NDArray[np.float64]
Edge = tuple[float, float]  # when (s), and the load from then on: 0 (False) at rest, 1 (True) full, or in between

SETTLED = 0.05  # share of a step within which values count as settled
SHAPE_SHARE = 0.01  # of the lag: what corners and a cut end cost it on emulated meters, beside the noise
LEAST_EDGES = 4  # two up and two down: one step alone cannot be told from a drift
LEAST_VALUES = 24
LEAST_STEP = 4.0  # standard errors of the wave's height
EARLIEST_S = -0.05  # a meter cannot show what is still to come, but its times may be a little off
SHORTEST_S, LONGEST_S, RATIO = 0.02, 20.0, 1.35  # how far the corners may reach
CORNERS = (1, 2, 4, 8, 12, 20)
NEARLY = 6.0  # of the criterion: no evidence against the other
COARSE = 12  # corners of the first look
SPACING = 1.5
WARM_REACH_S = 4.0  # a meter that answers for longer cannot be told from a board that warms
WARM_S = 12.0  # a busy chip warms and leaks: a slow rise that is the board's, not the meter's
MOST_ROWS, MOST_PAIRS = 8000, 800_000  # of the fit; pairs of a row and an edge
GROUPS = 8  # of the jackknife
HUBER = 2.5  # standard deviations beyond which a value counts less: bursts of other work
ROBUST_STEPS = 4


def estimate(
    times_s: ArrayLike, power_w: ArrayLike, edges: Sequence[Edge], fresh: ArrayLike | None = None
) -> Calibration:
    """The calibration that samples (n,) of a square wave give; its wall time, firmware and id are for the caller.

    times_s (n,) ascend on the clock of `edges`; fresh (n,) is that of `MeterSamples`: with repeats in it the meter was
    polled, and the times of its values are found from which polls had a new one. Without it every sample counts as a
    value taken at its time. Before the first edge the board was at rest when that loads it, else under full load.
    step_w is that of a full load.

    Raises BadInputError when the wave cannot be seen: too few values or edges, no step, a step that goes down.
    """
    wave = _wave(edges)
    values = new_values(np.asarray(times_s, float), np.asarray(power_w, float), fresh)
    if len(values.time_s) < LEAST_VALUES:
        raise BadInputError(
            f"only {len(values.time_s)} new values came from the meter; at least {LEAST_VALUES} are needed. Measure "
            "for longer (--duration)."
        )
    rows = _thinned(values.time_s, values.power_w, min(MOST_ROWS, MOST_PAIRS // len(wave.time_s)))
    fit = _best(rows, wave)
    if fit.step_w <= 0 or fit.step_w < LEAST_STEP * fit.step_se_w:
        raise BadInputError(
            f"the load of the square wave is not to be seen: it makes {fit.step_w:+.3f} W ± {fit.step_se_w:.3f} W. "
            "Does the meter stand before this board, and is it read the right way round?"
        )
    return Calibration(
        lag_s=fit.lag_s,
        settling_s=max(0.0, fit.settling_s),
        noise_w=_noise_w(values, rows, wave, fit),
        update_period_s=values.period_s,
        idle_w=fit.idle_w,
        step_w=fit.step_w,
        lag_se_s=float(np.linalg.norm([_jackknife(rows, wave, fit), values.time_se_s, SHAPE_SHARE * fit.lag_s])),
        cycles=wave.cycles,
        duration_s=float(values.time_s[-1] - values.time_s[0]),
    )


# ---- the wave -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Wave:
    """Real changes of the load: time_s (e,) ascends; level (e + 1,) of the load before the first, and after each."""

    time_s: Array
    level: Array

    @property
    def change(self) -> Array:
        """(e,)"""
        return np.diff(self.level)

    @property
    def cycles(self) -> int:
        """How often the board came to rest."""
        return int(np.count_nonzero((self.level[1:] == 0) & (self.level[:-1] > 0)))

    def last(self, time_s: Array, back: int = 0) -> NDArray[np.int64]:
        """The edge before each time (n,), or the one so many before that; negative: none."""
        return np.asarray(np.searchsorted(self.time_s, time_s, side="right") - 1 - back)

    def idle(self, time_s: Array) -> NDArray[np.bool_]:
        """Whether the board was idle at each time (n,)."""
        return np.asarray(self.level[self.last(time_s) + 1] == 0)

    def response(self, time_s: Array, ages_s: Array) -> Array:
        """(n, len(ages_s) − 1): what each stretch between two ages has contributed; the load's level when it is over.

        ages_s (k,) ascend; stretch j rises from 0 to 1 between ages_s[j] and ages_s[j + 1] after an edge.
        """
        out = np.full((len(time_s), len(ages_s) - 1), self.level[0])
        last = self.last(time_s - ages_s[0])
        done = np.zeros(len(time_s), bool)
        back = 0  # edges whose response is over add up to a level of the load; only younger ones need their ramps
        while True:
            edge = last - back
            there = edge >= 0
            age_s = time_s[there] - self.time_s[edge[there]]
            young = age_s < ages_s[-1]
            over = np.flatnonzero(there)[~young]
            settled = over[~done[over]]
            out[settled] += (self.level[edge[settled] + 1] - self.level[0])[:, None]
            done[settled] = True
            rows = np.flatnonzero(there)[young]
            if not len(rows):
                return out
            ramps = np.clip((age_s[young][:, None] - ages_s[:-1]) / np.diff(ages_s), 0.0, 1.0)
            out[rows] += self.change[edge[rows]][:, None] * ramps
            back += 1

    def warmth(self, time_s: Array) -> Array:
        """(n,) the load behind a first-order lag of WARM_S."""
        warm = np.full(len(self.time_s), self.level[0])  # (e,) at each edge
        for index in range(1, len(warm)):
            kept = float(np.exp(-(self.time_s[index] - self.time_s[index - 1]) / WARM_S))
            warm[index] = self.level[index] + (warm[index - 1] - self.level[index]) * kept
        edge = np.maximum(self.last(time_s), 0)
        left = np.exp(-np.maximum(time_s - self.time_s[edge], 0.0) / WARM_S)
        level = self.level[self.last(time_s) + 1]
        return np.asarray(level + (warm[edge] - level) * left)


def _wave(edges: Sequence[Edge]) -> _Wave:
    kept = [edge for i, edge in enumerate(edges) if i == 0 or edge[1] != edges[i - 1][1]]
    level = np.array([level for _, level in kept], float)
    if len(kept) < LEAST_EDGES or level.max() <= 0:
        raise BadInputError(f"the square wave has {len(kept)} edges; at least {LEAST_EDGES} are needed.")
    time_s = np.array([at_s for at_s, _ in kept], float)
    if not ((np.diff(time_s) > 0).all() and np.isfinite(level).all()):
        raise BadInputError("the edges of the square wave are not in the order of time.")
    return _Wave(time_s, np.concatenate([[0.0 if level[0] > 0 else 1.0], level]))


# ---- the fit --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rows:
    """Values (n,) in the order of time; weight (n,) is 1 but for outliers."""

    time_s: Array
    power_w: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class _Fit:
    """One response: its corners (k,), how much each stretch rises (k − 1,), and the rest of the model."""

    ages_s: Array
    rise_w: Array
    idle_w: float
    warm: bool
    step_se_w: float
    residual_w: Array
    criterion: float

    @property
    def step_w(self) -> float:
        return float(self.rise_w.sum())

    @property
    def lag_s(self) -> float:
        """First moment of the impulse response: every stretch is a uniform piece of it."""
        middle_s = (self.ages_s[1:] + self.ages_s[:-1]) / 2
        return float(self.rise_w @ middle_s / self.rise_w.sum())

    @property
    def settling_s(self) -> float:
        """The last age at which the response is more than SETTLED away from its end."""
        seen = np.concatenate([[0.0], np.cumsum(self.rise_w)]) / self.rise_w.sum()
        fine_s = np.linspace(self.ages_s[0], self.ages_s[-1], 2000)
        away = np.abs(np.interp(fine_s, self.ages_s, seen) - 1) > SETTLED
        return float(fine_s[np.flatnonzero(away)[-1]]) if away.any() else float(fine_s[0])


def _ages(reach_s: float, corners: int) -> Array:
    """Closer at the beginning, where most meters answer; a slow one's end is long and smooth."""
    begin_s = EARLIEST_S if reach_s > -4 * EARLIEST_S else 0.0
    return np.asarray(begin_s + (reach_s - begin_s) * np.linspace(0.0, 1.0, corners + 1) ** SPACING)


def _fit(rows: _Rows, wave: _Wave, ages_s: Array, warm: bool) -> _Fit:
    """Weighted least squares: response, level and drift of the idle board, and what a warm board leaks."""
    middle_s = (rows.time_s[0] + rows.time_s[-1]) / 2
    half_s = max(rows.time_s[-1] - middle_s, 1e-9)
    columns = [wave.response(rows.time_s, ages_s), np.ones((len(rows.time_s), 1))]
    columns.append(((rows.time_s - middle_s) / half_s)[:, None])
    if warm:
        columns.append(wave.warmth(rows.time_s)[:, None])
    design = np.hstack(columns)  # (n, k − 1 + 2 or 3)
    weighted = design * rows.weight[:, None]
    gram = weighted.T @ design
    inverse = np.linalg.pinv(gram, hermitian=True)
    found = inverse @ (weighted.T @ rows.power_w)
    residual_w = rows.power_w - design @ found
    n, parameters = len(residual_w), design.shape[1]
    loss = float(rows.weight @ residual_w**2)
    variance = loss / max(n - parameters, 1)
    stretches = len(ages_s) - 1
    return _Fit(
        ages_s,
        found[:stretches],
        float(found[stretches]),
        warm,
        float(np.sqrt(max(variance * inverse[:stretches, :stretches].sum(), 0.0))),
        residual_w,
        n * float(np.log(max(loss / n, 1e-18))) + 2.0 * parameters,
    )


def _best(rows: _Rows, wave: _Wave) -> _Fit:
    """The fit with the least criterion; bursts of other work are weighed down before the choice."""
    longest_s = min(LONGEST_S, float(rows.time_s[-1] - wave.time_s[0]) / 2)
    count = max(1, int(np.log(longest_s / SHORTEST_S) / np.log(RATIO)))
    reaches_s = SHORTEST_S * RATIO ** np.arange(1, count + 1)
    robust = _robust(rows, wave, _ages(min(longest_s, 5.0), COARSE))
    fits = []
    for warm in (False, True):
        allowed_s = reaches_s[reaches_s <= WARM_REACH_S] if warm else reaches_s
        coarse = [_fit(robust, wave, _ages(reach_s, COARSE), warm) for reach_s in allowed_s]
        middle = min(range(len(coarse)), key=lambda index: coarse[index].criterion)
        near_s = allowed_s[max(0, middle - 4) : middle + 6]
        fits += [_fit(robust, wave, _ages(reach_s, k), warm) for reach_s in near_s for k in CORNERS]
    least = min(fit.criterion for fit in fits)
    # What is cut off makes the lag too short, what is added only noisier: of nearly equal ones the longest.
    return max((fit for fit in fits if fit.criterion <= least + NEARLY), key=lambda fit: fit.ages_s[-1])


def _robust(rows: _Rows, wave: _Wave, ages_s: Array) -> _Rows:
    """`rows` with the weights of Huber (1964)."""
    for _ in range(ROBUST_STEPS):
        size_w = np.abs(_fit(rows, wave, ages_s, False).residual_w)
        limit_w = HUBER * 1.4826 * float(np.median(size_w))
        if limit_w <= 0:
            return rows
        rows = _Rows(rows.time_s, rows.power_w, np.minimum(1.0, limit_w / np.maximum(size_w, 1e-12)))
    return rows


def _jackknife(rows: _Rows, wave: _Wave, fit: _Fit) -> float:
    """Standard error of the lag (s) with one part of the wave after the other left out."""
    group = np.arange(len(rows.time_s)) * GROUPS // len(rows.time_s)
    lags_s = []
    for left_out in range(GROUPS):
        kept = group != left_out
        part = _Rows(rows.time_s[kept], rows.power_w[kept], rows.weight[kept])
        lag_s = _fit(part, wave, fit.ages_s, fit.warm).lag_s
        lags_s.append(float(np.clip(lag_s, fit.ages_s[0], fit.ages_s[-1])))
    # A single stretch has a fixed middle: all that is known is that the answer lies in it.
    blind_s = (fit.ages_s[-1] - fit.ages_s[0]) / 12**0.5 if len(fit.rise_w) == 1 else 0.0
    return float(np.sqrt((GROUPS - 1) / GROUPS * np.sum((np.array(lags_s) - np.mean(lags_s)) ** 2) + blind_s**2))


def _thinned(time_s: Array, power_w: Array, most: int) -> _Rows:
    """At most so many rows, as means of neighbours."""
    size = -(-len(time_s) // max(most, 1000))
    whole = len(time_s) // size * size
    means = [column[:whole].reshape(-1, size).mean(axis=1) for column in (time_s, power_w)]
    return _Rows(means[0], means[1], np.ones(len(means[0])))


def _noise_w(values: Values, rows: _Rows, wave: _Wave, fit: _Fit) -> float:
    """Robust standard deviation of single values while the board is idle.

    Around the fit; where its rows are means of many, around the mean of each idle stretch once that has settled.
    """
    if len(rows.time_s) == len(values.time_s):
        idle = wave.idle(rows.time_s)
        return _deviation(fit.residual_w[idle] if idle.any() else fit.residual_w)
    edge = wave.last(values.time_s)
    since_s = values.time_s - wave.time_s[np.maximum(edge, 0)]
    chosen = wave.idle(values.time_s) & ((edge < 0) | (since_s > 1.5 * fit.settling_s))
    parts = [values.power_w[chosen & (edge == index)] for index in range(-1, len(wave.time_s))]
    return _deviation(np.concatenate([part - part.mean() for part in parts if len(part)] or [fit.residual_w]))


def _deviation(away_w: Array) -> float:
    return 1.4826 * float(np.median(np.abs(away_w))) or float(away_w.std())
