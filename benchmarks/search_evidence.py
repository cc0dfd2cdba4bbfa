"""Does the search work? Four questions, on handwritten digits that are made hard: 300 images, noise, and tables of the
emulated Pis, which were measured as a real board is.

knobs: does a heavier term lower the cost of the found network? random: do searched children beat random ones of the
same cost? rank: where does a pick stand among all architectures, and how long does each relaxation take to get there?
devices: does each board's own network beat the other board's on it? `python -m benchmarks.search_evidence rank` is one.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from benchmarks.emulated import Profile, profile
from benchmarks.runs import keep
from coordinator.plan import make_run
from lut_store.lut import Lut
from lut_store.metric import Array
from nas.budgets import Budgets, Costs
from nas.child import Child
from nas.config import RELAXATIONS, SearchConfig
from nas.cost import CostTable
from nas.data import Dataset, Images, Source, load_dataset
from nas.exact import minimise
from nas.opstats import macs
from nas.report import spearman
from nas.search import Epoch, Search
from nas.space import load_space
from nas.train import TrainConfig, Training, evaluate
from protos.types import SearchSpace

FOLDER, FULL_SPACE = "benchmarks/spaces", "fbnet-cifar10"
TRAIN_IMAGES, NOISE = 300, 0.7
CONTEXT, PRESET = "cold", "standard"
BOOTSTRAP = 2000


@dataclass(frozen=True)
class Size:
    """How much is done: the short form, and the long one."""

    seeds: int
    random_children: int
    trainings: int  # of every architecture


SHORT, LONG = Size(5, 3, 1), Size(20, 6, 3)


def space_of(name: str) -> SearchSpace:
    return load_space(name if name == FULL_SPACE else f"{FOLDER}/{name}.toml")


@cache
def board(space: str, device_type: str) -> Profile:
    """A standard profile of an emulated board, in virtual time."""
    run = make_run(space_of(space), device_type, preset=PRESET, context=CONTEXT, seed=1)
    return profile(run, device_type, seed=1)


@cache
def images(space: str) -> Dataset:
    """300 images to train on; all others are to test."""
    found = load_dataset(Source("digits", noise=NOISE), space_of(space))
    rest, test = found.train.part(torch.arange(TRAIN_IMAGES, len(found.train))), found.test
    whole = Images(torch.cat([rest.x, test.x]), torch.cat([rest.y, test.y]))
    train = found.train.part(torch.arange(TRAIN_IMAGES))
    return Dataset(train, whole, found.classes, found.mean, found.spread)


def search_of(space: str, lut: Lut, seed: int, **changes: object) -> Search:
    values: dict[str, object] = {
        "relaxation": "single-path",
        "epochs": 15,
        "warmup_epochs": 5,
        "batch": 50,
        "weight_lr": 0.1,
        "theta_lr": 0.1,
        "theta_decay": 0.0,
        "normalise": True,
        "device": "cpu",
        "seed": seed,
    }
    config = SearchConfig(**(values | changes))  # type: ignore[arg-type]
    return Search(config, CostTable.from_lut(lut), images(space).train, lut.digest)


def knobs_of(alpha: float, gamma: float) -> dict[str, float]:
    return {"alpha": alpha, "beta": 1.0, "gamma": gamma, "delta": 1.0}


def trained(space: str, choices: Sequence[int], seed: int) -> tuple[float, float]:
    """Cross entropy and accuracy on the test images after a short training from new weights."""
    data = images(space)
    few = Dataset(data.train, data.test.part(torch.arange(10)), data.classes, data.mean, data.spread)
    config = TrainConfig(epochs=20, batch=50, lr=0.1, augment="none", device="cpu", seed=seed)
    job = Training(config, Child(space_of(space), tuple(choices)), few)
    job.run(lambda _epoch: None)
    found = evaluate(job.network, data.test, torch.device("cpu"))
    return found.ce, found.accuracy


# ---- 1. knobs --------------------------------------------------------------------------------------------------------

WEIGHTS = (0.0, 0.02, 0.06, 0.2)  # from 0.3 on a search this short finds little but the cheapest


def knobs(size: Size) -> dict[str, object]:
    """Rank correlation of γ with the found network's energy, and of α with its latency, over all seeds."""
    lut = board("digits-small", "rpi3b").lut
    record: dict[str, object] = {}
    for name, column, unit in (("γ", 1, "mJ"), ("α", 0, "ms")):
        found = np.empty((size.seeds, len(WEIGHTS)))
        for seed in range(size.seeds):
            for index, weight in enumerate(WEIGHTS):
                chosen = knobs_of(0.0, weight) if name == "γ" else knobs_of(weight, 0.0)
                job = search_of("digits-small", lut, seed, knobs=chosen)
                job.run(lambda _epoch: None)
                found[seed, index] = lut.predict([list(job.choices)])[0, column] * 1e3
        rho, low, high = clustered_rho(found)
        means = ", ".join(f"{weight:g}: {value:.3g}" for weight, value in zip(WEIGHTS, found.mean(axis=0), strict=True))
        print(f"{name} against {unit} of the found network: ρ = {rho:.2f} ({low:.2f} to {high:.2f}); means {means}")
        record[name] = {"rho": rho, "interval": [low, high], "found": found.tolist()}
    return record


def clustered_rho(found: Array) -> tuple[float, float, float]:
    """Spearman's ρ of the columns' order with the values (seeds, weights); 95 % by drawing seeds."""
    order = np.broadcast_to(np.arange(found.shape[1], dtype=float), found.shape)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(found), len(found)) for _ in range(BOOTSTRAP)]
    values = [spearman(order[rows].ravel(), found[rows].ravel()) for rows in draws]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return spearman(order.ravel(), found.ravel()), float(low), float(high)


# ---- 2. against random children of the same cost ---------------------------------------------------------------------


def every_choice(space: SearchSpace) -> Array:
    """(architectures, L)"""
    grids = np.meshgrid(*(space.allowed(layer) for layer in range(len(space.layers))), indexing="ij")
    return np.stack([grid.ravel() for grid in grids], axis=1)


NEAR = 0.03  # relative: of the same cost


def scores(lut: Lut, seed: int) -> Array:
    """θ of a search without costs: how much each candidate is worth for accuracy (L, K)."""
    settings: dict[str, object] = {"relaxation": "two-path", "epochs": 60, "warmup_epochs": 20, "batch": 25}
    settings |= {"weight_share": 0.5, "theta_lr": 0.05}  # of 300 images a fifth is too little to choose by
    job = search_of("digits-small", lut, seed, knobs=knobs_of(0.0, 0.0), **settings)
    job.run(lambda _epoch: None)
    return job.logits


def against_random(size: Size) -> dict[str, object]:
    """Paired: the best sum of θ within the budget of a median network, and random children of its cost."""
    rows = [pair(seed, size.random_children) for seed in range(size.seeds)]
    gain = np.array([searched - np.mean(others) for searched, others in rows])
    low, high = mean_interval(gain)
    print(
        f"searched − random of the same cost: {100 * gain.mean():+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    )
    return {"gain": float(gain.mean()), "interval": [low, high], "seeds": rows}


def pair(seed: int, count: int) -> tuple[float, list[float]]:
    """Accuracy of a searched child, and of `count` random ones of its cost."""
    lut = board("digits-small", "rpi3b").lut
    choices = every_choice(lut.space)
    costs = lut.predict(choices)
    best = minimise(-scores(lut, seed), Costs.from_lut(lut), Budgets(*np.median(costs, axis=0).tolist()))
    near = (np.abs(costs / np.array([best.latency_s, best.energy_j]) - 1) < NEAR).all(axis=1)
    near &= (choices != np.array(best.choices)).any(axis=1)
    drawn = np.random.default_rng(seed).choice(np.flatnonzero(near), count, replace=False)
    searched = trained("digits-small", best.choices, seed)[1]
    others = [trained("digits-small", choices[index].tolist(), seed)[1] for index in drawn]
    print(f"seed {seed}: searched {searched:.3f}, random {np.mean(others):.3f}", flush=True)
    return searched, others


def mean_interval(values: Array) -> tuple[float, float]:
    """95 % of a mean, by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


# ---- 3. among all architectures --------------------------------------------------------------------------------------

WEIGHT = 0.3  # of latency and of energy, in costs of the uniform mixture
RANK_SEEDS = 3


def rank(size: Size) -> dict[str, object]:
    """Every architecture trained; picks ranked by what the search minimises, CE + α · LAT + γ · ENER.

    The curve says how good the pick of each epoch would have been, over CPU seconds.
    """
    lut = board("digits-tiny", "rpi3b").lut
    choices, uniform = every_choice(lut.space), CostTable.from_lut(lut).uniform()
    seconds = time.process_time()
    ce = np.array(
        [[trained("digits-tiny", row.tolist(), seed)[0] for seed in range(size.trainings)] for row in choices]
    ).mean(axis=1)
    print(f"{len(choices)} architectures trained {size.trainings} times: {time.process_time() - seconds:.0f} s of CPU")
    goal = ce + WEIGHT * (lut.predict(choices) / uniform).sum(axis=1)
    of = {tuple(row.tolist()): value for row, value in zip(choices, goal, strict=True)}
    record: dict[str, object] = {"goals": sorted(goal.tolist())}
    for relaxation in RELAXATIONS:
        picks = [_pick(lut, relaxation, seed, of) for seed in range(RANK_SEEDS)]
        ranks = [1 + int((goal < curve[-1][1]).sum()) for curve in picks]
        regret = np.mean([curve[-1][1] for curve in picks]) - goal.min()
        took = float(np.median([curve[-1][0] for curve in picks]))
        good = float(np.median([_first_good(curve, np.quantile(goal, 0.1)) for curve in picks]))
        print(
            f"{relaxation}: ranks {ranks} of {len(goal)}, mean regret {regret:.3f} (of all networks "
            f"{np.mean(goal) - goal.min():.3f}), {took:.1f} s of CPU, in the best tenth for good after {good:.1f} s"
        )
        record[relaxation] = {"ranks": ranks, "curves": picks}
    return record


def _pick(lut: Lut, relaxation: str, seed: int, goals: dict[tuple[int, ...], float]) -> list[tuple[float, float]]:
    """(CPU seconds, goal of the most probable architecture) after every epoch."""
    settings: dict[str, object] = {
        "relaxation": relaxation,
        "epochs": 60,
        "warmup_epochs": 20,
        "knobs": knobs_of(WEIGHT, WEIGHT),
    }
    job, curve = search_of("digits-tiny", lut, seed, **settings), []
    begun = time.process_time()

    def after(_epoch: Epoch) -> None:
        curve.append((time.process_time() - begun, goals[job.choices]))

    job.run(after)
    return curve


def _first_good(curve: Sequence[tuple[float, float]], limit: float) -> float:
    """CPU seconds from which on every pick is at most `limit`; infinite when there is no such moment."""
    bad = [index for index, (_, goal) in enumerate(curve) if goal > limit]
    start = bad[-1] + 1 if bad else 0
    return curve[start][0] if start < len(curve) else float("inf")


# ---- 4. two boards ---------------------------------------------------------------------------------------------------

BOARDS = ("rpi3b", "rpi4")
LEVELS = (0.5, 0.7, 0.9)  # of the way from the worst sum of scores to the best


def devices(size: Size) -> dict[str, object]:  # noqa: ARG001 - one signature
    """For each board the cheapest network of a score, by its measured table; then the true costs on both boards.

    A candidate's score is the logarithm of its multiply-adds, so that both boards' networks must be as large. The
    search is the exact one: nothing but the tables makes their networks differ.
    """
    profiles = {name: board(FULL_SPACE, name) for name in BOARDS}
    space, record = load_space(FULL_SPACE), {}
    wanted = np.array([[math.log1p(macs(c.spec)) if c.spec else 0.0 for c in layer.cells] for layer in space.layers])
    for metric, column in (("latency", 0), ("energy", 1)):
        for level in LEVELS:
            found = {name: _cheapest(profiles[name].lut, wanted, metric, level) for name in BOARDS}
            for name, other in zip(BOARDS, BOARDS[::-1], strict=True):
                device = profiles[name].device
                cost = {of: device.true_network(space, found[of], CONTEXT)[column] for of in BOARDS}
                ratio = cost[other] / cost[name]
                print(f"{metric}, score level {level}: on {name} the network of {other} takes {ratio:.3f} of its own")
                record[f"{metric} {level} {name}"] = {"ratio": ratio, "own": found[name], "other": found[other]}
    return record


def _cheapest(lut: Lut, scores: Array, metric: str, level: float) -> tuple[int, ...]:
    """The least latency or energy among the networks whose sum of scores reaches the level."""
    costs = Costs.from_lut(lut)
    known = np.where(costs.allowed, scores, -np.inf)
    lost = np.where(costs.allowed, known.max(axis=1, keepdims=True) - known, 0.0)  # (L, K), 0 is the best
    cap = (1 - level) * float(lost.max(axis=1).sum())
    objective = costs.latency_s if metric == "latency" else costs.energy_j
    # The loss of score takes the place of the budgeted cost.
    problem = Costs(objective, lost, costs.allowed)
    return minimise(objective, problem, Budgets(max_energy_j=cap)).choices


PARTS = {"knobs": knobs, "random": against_random, "rank": rank, "devices": devices}


def main(full: bool = False, parts: Sequence[str] = tuple(PARTS)) -> None:
    torch.set_flush_denormal(True)
    for name in parts:
        begun = time.process_time()
        keep(f"search_evidence_{name}", PARTS[name](LONG if full else SHORT))
        print(f"({name}: {time.process_time() - begun:.0f} s of CPU)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--long", action="store_true")
    options = parser.parse_args()
    main(options.long, options.parts or tuple(PARTS))
