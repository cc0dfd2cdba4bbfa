"""What a sweep found: one row per trial, the front, how well costs were predicted. Pure, but for reading the folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lut_store.metric import Array
from nas import run_folder, train_folder
from nas.grid import Knobs, Setting
from nas.nondominated import front
from nas.sweep import Trial, read_record, trials_of
from protos.errors import BadInputError

CLOSE = 1.15  # HANNA's choice: latency and energy within 15 % of the least, and among these the best accuracy
BOOTSTRAP, LEVEL = 2000, 0.95
MEASURED = "measured.json"  # what `nas measure --output` wrote


@dataclass(frozen=True)
class Result:
    """One trial. `accuracy` is the trained child's on the test images, `supernet_accuracy` that of the last epoch's
    draws on the images of θ; `measured_…` what an agent measured of the child. None where it was not done.
    """

    number: int
    setting: Setting
    choices: tuple[int, ...]
    latency_s: float
    energy_j: float
    supernet_accuracy: float | None
    accuracy: float | None
    measured_latency_s: float | None
    measured_energy_j: float | None
    epochs: tuple[dict[str, float | None], ...]

    @property
    def best_accuracy(self) -> float:
        """The child's, or the supernet's as long as no child was trained; NaN without both."""
        known = self.accuracy if self.accuracy is not None else self.supernet_accuracy
        return float("nan") if known is None else known


def read_results(folder: Path) -> tuple[list[Result], list[Trial]]:
    """The trials of a sweep that are done, and those that are not. Raises BadInputError when there is none."""
    record = read_record(folder)
    results, missing = [], []
    for trial, entry in zip(trials_of(folder), record["trials"], strict=True):
        if trial.searched:
            results.append(_result(trial, entry))
        else:
            missing.append(trial)
    if not results:
        raise BadInputError(f"no search of the sweep in {folder} is done yet")
    return results, missing


def _result(trial: Trial, entry: dict[str, float]) -> Result:
    child = _read(trial.folder / run_folder.CHILD)
    trained, measured = _read(trial.folder / train_folder.RESULT), _read(trial.folder / MEASURED)
    epochs = _epochs(trial.folder / run_folder.EPOCHS)
    knobs = Knobs(*(entry[name] for name in ("alpha", "beta", "gamma", "delta")))
    return Result(
        trial.number,
        Setting(knobs, entry["v_latency"], entry["v_energy"]),
        tuple(child["choices"]),
        child["latency_s"],
        child["energy_j"],
        epochs[-1].get("theta_accuracy") if epochs else None,
        trained.get("test", {}).get("accuracy"),
        measured.get("latency_s", {}).get("measured"),
        measured.get("energy_j", {}).get("measured"),
        epochs,
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInputError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise BadInputError(f"{path} is damaged: it holds no object")
    return found


def _epochs(path: Path) -> tuple[dict[str, float | None], ...]:
    with path.open(newline="") as file:
        return tuple({k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file))


# ---- what follows from the results -----------------------------------------------------------------------------------


def costs(results: Sequence[Result]) -> Array:
    """(trials, 2): latency in seconds, energy in joules, as the LUT predicts them."""
    return np.array([(result.latency_s, result.energy_j) for result in results])


def objectives(results: Sequence[Result]) -> Array:
    """(trials, 3): latency, energy and error (1 − accuracy); all three are to be small. Unknown accuracy: the worst."""
    error = [1 - np.nan_to_num(result.best_accuracy) for result in results]
    return np.column_stack([costs(results), error])


def on_front(values: Array) -> list[int]:
    """Positions of the rows of `values` (N, 2 or 3) that no other row beats in all numbers, by the first one."""
    return [int(index) for index in front(values.T)]


def hypervolume(points: Array, reference: Sequence[float]) -> float:
    """The area that `points` (N, 2) dominate up to `reference`; both numbers are to be small."""
    inside = points[(points < np.asarray(reference)).all(axis=1)]
    area, height = 0.0, float(reference[1])
    for first, second in inside[np.lexsort(inside.T[::-1])]:
        area += max(height - second, 0.0) * (reference[0] - first)
        height = min(height, second)
    return float(area)


def chosen(results: Sequence[Result]) -> Result:
    """HANNA's rule: of the trials within 15 % of the least latency and of the least energy the most accurate one.

    When there is none, of the trials whose larger excess is least.
    """
    excess = (costs(results) / costs(results).min(axis=0)).max(axis=1)
    limit = max(CLOSE, float(excess.min()))
    near = [result for result, over in zip(results, excess, strict=True) if over <= limit]
    return max(near, key=lambda result: (np.nan_to_num(result.best_accuracy), -result.number))


@dataclass(frozen=True)
class Agreement:
    """Predicted against measured costs of children: Spearman's ρ with a bootstrap interval, errors relative."""

    n: int
    rho: float
    low: float
    high: float
    bias: float
    mape: float
    worst: float


def agreement(predicted: Array, measured: Array, seed: int = 0) -> Agreement:
    """Of two arrays (N,). ρ is NaN with fewer than three networks."""
    error = predicted / measured - 1
    rng, rhos = np.random.default_rng(seed), []
    for _ in range(BOOTSTRAP if len(predicted) > 2 else 0):
        drawn = rng.integers(0, len(predicted), len(predicted))
        rhos.append(spearman(predicted[drawn], measured[drawn]))
    known = [rho for rho in rhos if np.isfinite(rho)]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if known else (np.nan, np.nan)
    return Agreement(
        len(predicted),
        spearman(predicted, measured),
        float(low),
        float(high),
        float(error.mean()),
        float(np.abs(error).mean()),
        float(np.abs(error).max()),
    )


def spearman(first: Array, second: Array) -> float:
    """Rank correlation, equal values sharing their mean rank; NaN for fewer than three values or constant ones."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: Array) -> Array:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (counts.cumsum() - (counts - 1) / 2)[places]
    return ranks


def measured_pairs(results: Sequence[Result]) -> dict[str, Agreement]:
    """Predicted against measured, "latency" and "energy", of the children that were measured."""
    found = {}
    for name, unit in (("latency", "s"), ("energy", "j")):
        pairs = [(getattr(r, f"{name}_{unit}"), getattr(r, f"measured_{name}_{unit}")) for r in results]
        known = np.array([pair for pair in pairs if pair[1] is not None], np.float64)
        if len(known):
            found[name] = agreement(known[:, 0], known[:, 1])
    return found
