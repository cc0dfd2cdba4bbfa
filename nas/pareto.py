"""The whole latency-energy front of a LUT, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lut_store.metric import Array
from nas.budgets import Costs
from nas.nondominated import IntArray, Step, architectures, by_width, front
from protos.errors import BadInputError

FRONT_MAX = 2_000_000  # partial architectures; a front of more points is no use to anybody


@dataclass(frozen=True, eq=False)
class ParetoFront:
    """Every architecture that no other one beats in both, by rising latency and falling energy; of equal ones one."""

    latency_s: Array  # (points,)
    energy_j: Array  # (points,)
    choices: IntArray  # (points, L)


def pareto(costs: Costs) -> ParetoFront:
    """The exact front. Raises BadInputError when it has more than FRONT_MAX partial architectures."""
    both = np.where(costs.allowed, np.array([costs.latency_s, costs.energy_j]), np.inf)  # (2, L, K)
    sums, steps = np.array([[costs.fixed_latency_s], [costs.fixed_energy_j]]), []
    for layer in by_width(both):
        ops = np.flatnonzero(costs.allowed[layer])
        ops = ops[front(both[:, layer, ops])]
        if sums.shape[1] * len(ops) > FRONT_MAX:
            raise BadInputError(
                f"the front of this LUT has more than {FRONT_MAX // len(ops)} points; ask for single points with "
                "`nas optimise --max-latency-s`"
            )
        wide = (sums[:, :, None] + both[:, layer, ops][:, None, :]).reshape(2, -1)
        alive = front(wide)
        sums = wide[:, alive]
        steps.append(Step(layer, alive // len(ops), ops[alive % len(ops)]))
    return ParetoFront(sums[0], sums[1], architectures(steps, np.arange(sums.shape[1])))
