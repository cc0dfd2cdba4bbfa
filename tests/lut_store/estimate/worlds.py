"""A small machine with a known truth: operators with fixed latencies, disturbed for seconds at a time by somebody
else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from protos.types import (
    BlockSpec,
    Cell,
    CellRef,
    LatencyRound,
    Layer,
    MeasurementPlan,
    Network,
    NetworkTimings,
    OperatorTimings,
    PathTimings,
    PlanItem,
    RunSpec,
    SearchSpace,
)

OPS = ("a", "b", "c", "skip")


def small_space(layers: int = 5) -> SearchSpace:
    """`layers` layers of three blocks and a skip (not on the first), with a stem and a head."""

    def block(layer: int, op: int) -> BlockSpec:
        return BlockSpec("mbconv", 16, 16, kernel=3 + 2 * op, expansion=1 + layer % 3, input_height=8, input_width=8)

    rows = []
    for layer in range(layers):
        skip = Cell(BlockSpec("skip", 16, 16, input_height=8, input_width=8)) if layer else Cell()
        rows.append(Layer((*(Cell(block(layer, op)) for op in range(3)), skip)))
    stem = BlockSpec("conv", 3, 16, kernel=3, stride=2, activation="none", input_height=16, input_width=16)
    head = BlockSpec("pool_linear", 16, 10, input_height=8, input_width=8)
    return SearchSpace("small", OPS, tuple(rows), (stem,), (head,))


def small_run(networks: int = 12, seed: int = 0, layers: int = 5) -> RunSpec:
    space = small_space(layers)
    cells: dict[BlockSpec, list[CellRef]] = {}
    for index, layer in enumerate(space.layers):
        for op, cell in enumerate(layer.cells):
            if cell.spec is not None and cell.spec.kind != "skip":
                cells.setdefault(cell.spec, []).append(CellRef(index, op))
    for number, spec in enumerate((*space.stem, *space.head)):
        cells[spec] = [CellRef(-1, number)]
    items = tuple(PlanItem(spec, tuple(refs)) for spec, refs in cells.items())
    rng = random.Random(seed)
    chosen = tuple(Network(("fit", "validation")[i % 2], draw(space, rng)) for i in range(networks))
    return RunSpec("box", space, items, chosen, MeasurementPlan())


def draw(space: SearchSpace, rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.choice(space.allowed(layer)) for layer in range(len(space.layers)))


@dataclass
class Machine:
    """True seconds per item; `extra_s` per operator makes a whole network slower than the sum of its blocks."""

    run: RunSpec
    seed: int = 0
    noise: float = 0.02
    slow_factor: float = 1.35
    slow_share: float = 0.25
    extra_s: float = 0.0

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.item_s = [rng.uniform(2e-4, 2e-3) for _ in self.run.items]
        self.rng = random.Random(self.seed + 1)
        self.now_ns = 1_000_000_000
        self.slow = False
        self.item_of = {(c.layer, c.op): i for i, item in enumerate(self.run.items) for c in item.cells}

    def items_of(self, choices: tuple[int, ...]) -> list[int | None]:
        """Item per slot: stem, layers (None for a skip), head."""
        stem, fixed = len(self.run.space.stem), len(self.run.space.stem) + len(self.run.space.head)
        slots: list[int | None] = [self.item_of[-1, i] for i in range(stem)]
        slots += [self.item_of.get((layer, op)) for layer, op in enumerate(choices)]
        return slots + [self.item_of[-1, i] for i in range(stem, fixed)]

    def network_s(self, choices: tuple[int, ...]) -> float:
        used = [i for i in self.items_of(choices) if i is not None]
        return sum(self.item_s[i] + self.extra_s for i in used)

    def _speed(self) -> float:
        if self.rng.random() < (0.06 if self.slow else 0.06 * self.slow_share / (1 - self.slow_share)):
            self.slow = not self.slow
        return self.slow_factor if self.slow else 1.0

    def _ns(self, seconds: float, speed: float) -> int:
        taken = max(1, round(seconds * speed * self.rng.lognormvariate(0, self.noise) * 1e9))
        self.now_ns += taken
        return taken

    def round(self, index: int, paths: int = 40, hot: bool = False) -> LatencyRound:
        start, run = self.now_ns, self.run
        chosen = [draw(run.space, self.rng) for _ in range(paths)]
        operators = len(run.items) if hot else 0
        order = list(range(paths + len(run.networks) + operators))
        self.rng.shuffle(order)
        slots = len(run.space.stem) + len(run.space.layers) + len(run.space.head)
        blocks, totals = [[0] * slots for _ in chosen], [0] * paths
        network_ns, operator_ns, probes = [0] * len(run.networks), [0] * operators, []
        for one in order:
            speed = self._speed()
            probes.append(self._ns(1e-4, speed))
            if one < paths:
                for slot, item in enumerate(self.items_of(chosen[one])):
                    if item is not None:
                        blocks[one][slot] = self._ns(self.item_s[item], speed)
                totals[one] = sum(blocks[one])
            elif one < paths + len(run.networks):
                number = one - paths
                network_ns[number] = self._ns(self.network_s(run.networks[number].choices), speed)
            else:
                number = one - paths - len(run.networks)
                operator_ns[number] = self._ns(self.item_s[number], speed)
        probes.append(self._ns(1e-4, self._speed()))
        return LatencyRound(
            index,
            start,
            self.now_ns,
            paths=PathTimings(
                1, tuple(o for c in chosen for o in c), tuple(t for row in blocks for t in row), tuple(totals)
            )
            if paths
            else None,
            networks=NetworkTimings(1, tuple(range(len(run.networks))), tuple(network_ns)),
            operators=OperatorTimings(1, tuple(range(operators)), tuple(operator_ns)) if hot else None,
            order=tuple(order),
            probe_ns=tuple(probes),
        )
