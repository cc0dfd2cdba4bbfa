"""Figure: how well costs of operators are guessed from others, on a measured fbnet-imagenet LUT.

Operators are held out at random, 20 % and 50 % of them, over several draws; what is left is all that the regressor
sees. The LUT is measured on the emulated Pi 4 in virtual time (with --long also on this machine, latency alone). The
same operators are given to regressors of scikit-learn on the same features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.emulated import profile
from benchmarks.runs import keep, private_coordinator, run_here
from coordinator.plan import make_run
from lut_store import regressor
from lut_store.estimated import measured_operators
from lut_store.features import log_matrix
from lut_store.lut import Lut
from nas.space import load_space
from protos.types import BlockSpec

SPACE, TYPE = "fbnet-imagenet", "rpi4"  # a Pi 3B holds too few of its networks
HELD_OUT = (0.2, 0.5)
DRAWS = 10
Array = NDArray[np.float64]
Predict = Callable[[Sequence[BlockSpec]], Array]


def main(full: bool = False) -> None:
    luts = {"emulated Pi 4": profile(make_run(load_space(SPACE), TYPE, preset="standard"), TYPE, seed=0).lut}
    if full:
        luts["this machine"] = _local()
    record = {}
    for where, lut in luts.items():
        for name in ("latency", "energy"):
            metric = getattr(lut, name)
            if metric is None:
                continue
            known = {s: k for s, k in measured_operators(lut, metric).items() if s.kind == "mbconv"}
            specs = list(known)
            cost, rel_se = np.array([k.cost for k in known.values()]), np.array([k.rel_se for k in known.values()])
            print(f"\n{where}, {name}: {len(specs)} operators, measured to {np.nanmedian(rel_se):.2%} (median)")
            for share in HELD_OUT:
                errors = _held_out(specs, cost, rel_se, share)
                record[f"{where}, {name}, {share:.0%}"] = errors
                print(f"  {share:.0%} held out, MAPE over {DRAWS} draws (least … most):")
                for way, own in errors.items():
                    print(f"    {way:28} {np.mean(own):6.2%} ({min(own):.2%} … {max(own):.2%})")
    print(f"raw figures: {keep('regressor', record)}")


def _local() -> Lut:
    with private_coordinator() as link:
        spec = make_run(load_space(SPACE), "local", preset="quick", meter="none")
        run = run_here(link, spec)
        return link.client.lut(digest=run.lut_digest)


def _held_out(specs: list[BlockSpec], cost: Array, rel_se: Array, share: float) -> dict[str, list[float]]:
    errors: dict[str, list[float]] = {}
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(specs))
        out, inside = np.split(order, [round(share * len(specs))])
        sources, wanted = [specs[i] for i in inside], [specs[i] for i in out]
        chosen = regressor.fit(sources, cost[inside], rel_se[inside])
        ways: dict[str, Predict] = {"edgelut (best of its three)": chosen.predict}
        for name, way in regressor.WAYS.items():
            ways[f"edgelut {name}"] = way(sources, cost[inside], np.maximum(rel_se[inside], regressor.FLOOR_REL_SE))
        ways |= _of_scikit_learn(sources, cost[inside])
        for name, predict in ways.items():
            found = float(np.abs(predict(wanted) / cost[out] - 1).mean())
            errors.setdefault(name, []).append(found)
    return errors


def _of_scikit_learn(sources: list[BlockSpec], cost: Array) -> dict[str, Predict]:
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kernel = ConstantKernel() * RBF(3.0) + WhiteKernel(1e-3)
    models = {
        "scikit-learn random forest": RandomForestRegressor(200, random_state=0),
        "scikit-learn boosting": GradientBoostingRegressor(random_state=0),
        "scikit-learn Gaussian process": make_pipeline(
            StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        ),
    }
    found: dict[str, Predict] = {}
    for name, model in models.items():
        model.fit(log_matrix(sources), np.log(cost))
        found[name] = lambda wanted, model=model: np.exp(model.predict(log_matrix(wanted)))  # type: ignore[misc]
    return found
