"""Costs of operators that were not measured, guessed from those that were.

Three ways, of which the best in cross-validation is taken: `linear`, a sum of the operator's quantities with
non-negative prices, in relative least squares; `ridge`, a quadratic in logarithms; and `gp`, a Gaussian process over
the logarithms with a length scale for each (Rasmussen and Williams 2006, chapters 2 and 5), on what `linear` leaves.
Costs span three decades, so everything is relative. Pure and without chance: the same operators give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lut_store.features import KINDS, log_matrix, quantity_matrix, shape_of
from lut_store.metric import Array, BoolArray, IntArray
from protos.errors import BadInputError
from protos.types import BlockSpec

LEAST_OPERATORS = 12  # of a kind; below it nothing can be fitted and judged
LEAST_SHAPES = 5  # to leave whole shapes out in turn
FOLDS = 10
SEED = 0
FLOOR_REL_SE = 1e-3  # no operator is known better than this to the regressor
PENALTIES = tuple(10.0**e for e in np.arange(-4, 3.1, 0.5))
PRIOR_LOG_SCALE, PRIOR_SD = 1.0, 1.5  # of a length scale, in standard deviations of its feature
ITERATIONS = 40  # of the search for the likeliest process, which has converged by then
JITTER = 1e-10  # keeps the covariance positive definite

Predict = Callable[[Sequence[BlockSpec]], Array]  # (n,) costs
Fit = Callable[[Sequence[BlockSpec], Array, Array], Predict]  # of (n,) costs and their relative standard errors


@dataclass(frozen=True)
class CrossValidation:
    """Relative errors on operators that were left out in turn: one at random in `folds` parts, or whole shapes."""

    method: str
    operators: int
    folds: int
    left_out: str  # "operators" | "shapes"
    mape: float
    rel_rms: float
    max: float
    others_mape: dict[str, float]  # of the ways that were not taken

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Regressor:
    predict: Predict
    validation: CrossValidation


def fit(
    specs: Sequence[BlockSpec], cost: Array, rel_se: Array, *, by_shape: bool = False, only: Sequence[str] = ()
) -> Regressor:
    """A regressor of operators of one kind: cost (n,) positive, rel_se (n,) relative standard errors, NaN if unknown.

    by_shape: judge by leaving whole shapes out, because that is what the missing operators are. only: the ways to try,
    by default all. Raises BadInputError when there are too few operators.
    """
    if specs and specs[0].kind not in KINDS:
        raise BadInputError(f"operators of kind {specs[0].kind} cannot be estimated: what they do is not modelled")
    if len(specs) < LEAST_OPERATORS:
        raise BadInputError(
            f"{len(specs)} measured operators of kind {specs[0].kind if specs else '?'} are too few for an estimate; "
            f"it takes {LEAST_OPERATORS}"
        )
    known_se = np.maximum(np.nan_to_num(rel_se), FLOOR_REL_SE)
    fold, by_shape = _folds(specs, by_shape)
    errors = {
        name: _left_out_errors(way, specs, cost, known_se, fold)
        for name, way in WAYS.items()
        if not only or name in only
    }
    mape = {name: float(np.abs(error).mean()) for name, error in errors.items()}
    best = min(mape, key=lambda name: mape[name])
    validation = CrossValidation(
        method=best,
        operators=len(specs),
        folds=int(fold.max()) + 1,
        left_out="shapes" if by_shape else "operators",
        mape=mape[best],
        rel_rms=float(np.sqrt(np.mean(errors[best] ** 2))),
        max=float(np.abs(errors[best]).max()),
        others_mape={name: value for name, value in mape.items() if name != best},
    )
    return Regressor(WAYS[best](specs, cost, known_se), validation)


def _folds(specs: Sequence[BlockSpec], by_shape: bool) -> tuple[IntArray, bool]:
    """(n,) the part in which each operator is left out."""
    rng = np.random.default_rng(SEED)
    shapes = {shape: index for index, shape in enumerate(dict.fromkeys(map(shape_of, specs)))}
    if by_shape and len(shapes) >= LEAST_SHAPES:
        folds = min(FOLDS, len(shapes))
        of_shape = rng.permutation(len(shapes)) % folds
        return np.array([of_shape[shapes[shape_of(spec)]] for spec in specs], np.int64), True
    return np.asarray(rng.permutation(len(specs)) % min(FOLDS, len(specs)), np.int64), False


def _left_out_errors(way: Fit, specs: Sequence[BlockSpec], cost: Array, rel_se: Array, fold: IntArray) -> Array:
    """(n,) relative errors, each operator predicted without its part."""
    error = np.empty(len(specs))
    for part in range(int(fold.max()) + 1):
        out: BoolArray = fold == part
        inside = np.flatnonzero(~out).tolist()
        predict = way([specs[i] for i in inside], cost[inside], rel_se[inside])
        error[out] = predict([specs[i] for i in np.flatnonzero(out).tolist()]) / cost[out] - 1
    return error


# ---- linear ---------------------------------------------------------------------------------------------------------


def _fit_linear(specs: Sequence[BlockSpec], cost: Array, rel_se: Array) -> Predict:  # noqa: ARG001 - all count alike
    from scipy.optimize import nnls

    quantity = quantity_matrix(specs)  # (n, q)
    size = np.maximum(quantity.max(axis=0), 1.0)
    price, _ = nnls(quantity / size / cost[:, None], np.ones(len(cost)))
    least = float(cost.min()) / 10  # never nothing

    def predict(wanted: Sequence[BlockSpec]) -> Array:
        return np.asarray(np.maximum(quantity_matrix(wanted) / size @ price, least), np.float64)

    return predict


# ---- ridge ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scaler:
    """Features in standard deviations; those that do not vary are left out."""

    mean: Array
    sd: Array
    used: BoolArray

    @classmethod
    def of(cls, features: Array) -> _Scaler:
        sd = features.std(axis=0)
        used: BoolArray = sd > 1e-9
        return cls(features.mean(axis=0), np.where(used, sd, 1.0), used)

    def __call__(self, features: Array) -> Array:
        return np.asarray(((features - self.mean) / self.sd)[:, self.used], np.float64)


def _fit_ridge(specs: Sequence[BlockSpec], cost: Array, rel_se: Array) -> Predict:  # noqa: ARG001 - all count alike
    scale = _Scaler.of(log_matrix(specs))
    design = _quadratic(scale(log_matrix(specs)))
    target = np.log(cost)
    middle = float(target.mean())
    best: tuple[float, Array] | None = None
    left, values, right = np.linalg.svd(design, full_matrices=False)
    projected = left.T @ (target - middle)
    for penalty in PENALTIES:
        shrink = values**2 / (values**2 + penalty * len(cost))
        hat = np.einsum("ij,j,ij->i", left, shrink, left) + 1 / len(cost)
        residual = (target - middle) - left @ (shrink * projected)
        loo = float(np.mean((residual / np.clip(1 - hat, 1e-3, None)) ** 2))
        if best is None or loo < best[0]:
            best = loo, right.T @ (shrink / np.maximum(values, 1e-12) * projected)
    assert best is not None
    coefficients = best[1]

    def predict(wanted: Sequence[BlockSpec]) -> Array:
        return np.asarray(np.exp(middle + _quadratic(scale(log_matrix(wanted))) @ coefficients), np.float64)

    return predict


def _quadratic(features: Array) -> Array:
    """Features and their products of two (n, d + d (d + 1) / 2); the products weigh less."""
    first, second = np.triu_indices(features.shape[1])
    return np.hstack([features, 0.3 * features[:, first] * features[:, second]])


# ---- Gaussian process -----------------------------------------------------------------------------------------------


def _fit_gp(specs: Sequence[BlockSpec], cost: Array, rel_se: Array) -> Predict:
    linear = _fit_linear(specs, cost, rel_se)
    scale = _Scaler.of(log_matrix(specs))
    x = scale(log_matrix(specs))  # (n, d)
    left = np.log(cost / linear(specs))  # (n,)
    middle = float(left.mean())
    process = _Process(x, left - middle, rel_se**2)
    parameters = process.most_likely()
    weights = process.solved(parameters)[2]

    def predict(wanted: Sequence[BlockSpec]) -> Array:
        cross = _covariance(_squares(scale(log_matrix(wanted)), x), parameters).reshape(len(wanted), -1)
        return np.asarray(linear(wanted) * np.exp(middle + cross @ weights), np.float64)

    return predict


def _squares(a: Array, b: Array) -> Array:
    """(d, n · m) squared differences of each feature."""
    return np.asarray(((a.T[:, :, None] - b.T[:, None, :]) ** 2).reshape(a.shape[1], -1), np.float64)


def _covariance(squares: Array, parameters: Array) -> Array:
    """(n · m,) squared exponential; parameters: log length scales (d,), log signal, log noise."""
    distance = np.exp(-2 * parameters[:-2]) @ squares
    return np.asarray(np.exp(2 * parameters[-2] - 0.5 * distance), np.float64)


class _Process:
    """Observations y (n,) at x (n, d) with known error variances, and the likelihood of the parameters."""

    def __init__(self, x: Array, y: Array, variance: Array) -> None:
        self._y, self._variance = y, variance
        self._squares = _squares(x, x)

    def most_likely(self) -> Array:
        from scipy.optimize import minimize

        spread = max(float(self._y.std()), 1e-3)
        dimensions = len(self._squares)
        start = np.concatenate([np.full(dimensions, PRIOR_LOG_SCALE), [np.log(spread), np.log(spread / 10)]])
        bounds = [(-2.0, 5.0)] * dimensions + [
            (np.log(spread) - 4, np.log(spread) + 3),
            (np.log(1e-4), np.log(spread) + 1),
        ]
        found = minimize(self.cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
        return np.asarray(found.x, np.float64)

    def solved(self, parameters: Array) -> tuple[Array, Any, Array]:
        """Covariance (n, n) without noise, Cholesky factor with it, and its inverse times y."""
        from scipy.linalg import cho_factor, cho_solve

        signal = _covariance(self._squares, parameters).reshape(len(self._y), -1)
        noise = np.exp(2 * parameters[-1]) + self._variance + JITTER
        factor = cho_factor(signal + np.diag(noise), lower=True, check_finite=False)
        return signal, factor, np.asarray(cho_solve(factor, self._y, check_finite=False), np.float64)

    def cost(self, parameters: Array) -> tuple[float, Array]:
        """Negative log posterior of the parameters and its gradient."""
        from scipy.linalg import cho_solve

        signal, factor, weights = self.solved(parameters)
        inverse = cho_solve(factor, np.eye(len(self._y)), check_finite=False)
        outer = inverse - np.outer(weights, weights)  # twice the derivative by the covariance
        prior = (parameters[:-2] - PRIOR_LOG_SCALE) / PRIOR_SD
        value = 0.5 * self._y @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * (prior**2).sum()
        weighted = (outer * signal).ravel()
        gradient = np.empty_like(parameters)
        gradient[:-2] = 0.5 * np.exp(-2 * parameters[:-2]) * (self._squares @ weighted) + prior / PRIOR_SD
        gradient[-2] = weighted.sum()
        gradient[-1] = np.exp(2 * parameters[-1]) * np.trace(outer)
        return float(value), gradient


WAYS: dict[str, Fit] = {"linear": _fit_linear, "ridge": _fit_ridge, "gp": _fit_gp}
