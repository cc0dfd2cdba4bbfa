"""Whether a measurement can be true, judged on the wire's message against its run.

The rules are those of protos.types (every message that is accepted here converts without an error) and of the run:
indices that exist, choices that are allowed, rows that fit the space. They are checked in bulk, because every
measurement passes through here: a round with 1,300 times takes some 50 µs, where converting it takes half a
millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import common_pb2
from protos.types import SUBJECTS, RunSpec

MAX_ID_LENGTH = 64
MAX_TIME_NS = 1 << 50  # 13 days
# Up to this length, Python's max() over a list is quicker than making an array.
SHORT = 128


class ImpossibleError(Exception):
    """The sentence that says why a measurement is refused."""


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ImpossibleError(message)


def _check_times(name: str, times: Any, *, zero: bool = False) -> None:
    if len(times) <= SHORT:
        values = times[:]
        good = not values or (max(values) < MAX_TIME_NS and (zero or 0 not in values))
    else:
        array = np.asarray(times)
        good = array.max() < MAX_TIME_NS and (zero or array.all())
    if not good:
        bad = max(times) if max(times) >= MAX_TIME_NS else 0
        raise ImpossibleError(f"{name} holds {bad} ns; a time must be positive and below 13 days")


def _check_indices(name: str, indices: Any, known: int, what: str) -> None:
    if indices and max(indices[:]) >= known:
        raise ImpossibleError(f"{name} names {what} {max(indices)}; the run has {known} of them")


class EvidenceCheck:
    """The rules of one run."""

    def __init__(self, spec: RunSpec) -> None:
        space = spec.space
        self._space = space
        self._layers, self._ops = space.shape
        self._slots = len(space.stem) + self._layers + len(space.head)
        self._items, self._networks = len(spec.items), len(spec.networks)
        self._allowed: npt.NDArray[np.bool_] = np.array(
            [cell.spec is not None for layer in space.layers for cell in layer.cells]
        )
        self._first_cells = np.zeros(0, np.uint32)  # of each layer, repeated for as many paths as were ever seen

    def problem(self, message: common_pb2.Measurement) -> str:
        """What makes the measurement impossible, as a sentence; empty when nothing does."""
        try:
            self._check(message)
        except ImpossibleError as error:
            return str(error)
        return ""

    def _check(self, message: common_pb2.Measurement) -> None:
        _require(0 < len(message.id) <= MAX_ID_LENGTH, "a measurement needs an id of at most 64 characters")
        for name in ("before", "after"):
            _require(message.HasField(name), f"the host's state {name} the measurement is not there")
            _check_state(getattr(message, name))
        latency, power = message.HasField("latency"), message.HasField("power")
        _require(latency != power, "a measurement holds either latency or power")
        if latency:
            self._check_round(message.latency)
        else:
            self._check_trace(message.power)

    # ---- latency ----

    def _check_round(self, part: common_pb2.LatencyRound) -> None:
        _require(part.ended_ns > part.started_ns, "a latency round ends before it starts")
        executions = 0
        if part.HasField("paths"):
            executions += self._check_paths(part.paths)
        if part.HasField("networks"):
            executions += self._check_networks("networks", part.networks)
        if part.HasField("operators"):
            operators = part.operators
            _check_calls("operator timings", operators.calls, len(operators.item), len(operators.total_ns))
            _check_indices("operators", operators.item, self._items, "item")
            _check_times("operators.total_ns", operators.total_ns)
            executions += len(operators.item)
        if part.HasField("other_context"):
            self._check_networks("other_context", part.other_context)
        order = part.order[:]
        complete = len(order) == executions == len(set(order)) and (not order or max(order) < executions)
        _require(complete, "a latency round: order does not name every execution once")
        _require(len(part.probe_ns) == executions + 1, "a latency round: probe_ns does not frame every execution")
        _check_times("probe_ns", part.probe_ns)

    def _check_networks(self, name: str, part: common_pb2.NetworkTimings) -> int:
        _check_calls("network timings", part.calls, len(part.network), len(part.total_ns))
        _check_indices(name, part.network, self._networks, "network")
        _check_times(f"{name}.total_ns", part.total_ns)
        return len(part.network)

    def _check_paths(self, part: common_pb2.PathTimings) -> int:
        rows = len(part.total_ns)
        _require(part.calls >= 1, "path timings: calls must be at least 1")
        _require(rows % part.calls == 0, "path timings: total_ns does not hold whole paths")
        paths = rows // part.calls
        _require(
            len(part.choices) == paths * self._layers,
            f"path timings: {len(part.choices)} choices for {paths} paths of {self._layers} layers",
        )
        _require(
            len(part.block_ns) == rows * self._slots,
            f"path timings: {len(part.block_ns)} times for {rows} rows of {self._slots} slots",
        )
        if paths:
            self._check_choices(np.asarray(part.choices))
        _check_times("block_ns", part.block_ns, zero=True)
        _check_times("total_ns", part.total_ns)
        return paths

    def _check_choices(self, choices: npt.NDArray[np.uint32]) -> None:
        """choices: (paths * layers,), row-major."""
        if choices.max() < self._ops:
            if len(self._first_cells) < len(choices):
                layers = np.arange(self._layers, dtype=np.uint32) * self._ops
                self._first_cells = np.tile(layers, len(choices) // self._layers)
            if self._allowed.take(choices + self._first_cells[: len(choices)]).all():
                return
        for row in choices.reshape(-1, self._layers).tolist():
            try:
                self._space.check_choices(tuple(row))
            except ValueError as error:
                raise ImpossibleError(f"path timings: {error}") from None

    # ---- power ----

    def _check_trace(self, part: common_pb2.PowerTrace) -> None:
        _require(part.HasField("samples"), "a power trace has no samples")
        _require(part.HasField("meter"), "a power trace does not say which meter it is from")
        known = {"item": self._items, "network": self._networks}
        for window in part.windows:
            _require(
                window.subject in SUBJECTS,
                f"a power window is of {window.subject!r}; it must be one of {', '.join(SUBJECTS)}",
            )
            _require(window.ended_ns >= window.started_ns, "a power window ends before it starts")
            if window.index >= known.get(window.subject, 1 << 32):
                raise ImpossibleError(
                    f"a power window names {window.subject} {window.index}; the run has {known[window.subject]} of them"
                )
        _check_samples(part.samples)


def _check_calls(what: str, calls: int, executions: int, times: int) -> None:
    if calls < 1 or times != executions * calls:
        raise ImpossibleError(f"{what}: {times} times for {executions} executions × {calls} calls")


def _check_state(state: common_pb2.HostState) -> None:
    total = state.wall_time_s + state.temp_c + state.frequency_hz + state.load_1m + state.other_cpu_share
    if not math.isfinite(total):  # then one of them is not, unless they are as large as floats can be
        for name in ("wall_time_s", "temp_c", "frequency_hz", "load_1m", "other_cpu_share"):
            _require(math.isfinite(getattr(state, name)), f"host state: {name} is {getattr(state, name)}")


def _check_samples(samples: common_pb2.MeterSamples) -> None:
    n = len(samples.t_ns)
    columns: Iterable[tuple[str, Any]] = (
        ("voltage_v", samples.voltage_v),
        ("current_a", samples.current_a),
        ("power_w", samples.power_w),
    )
    for name, column in columns:
        _require(len(column) == n, f"meter samples: {name} has not the length of t_ns ({n})")
        if n:
            _require(
                np.isfinite(np.asarray(column, np.float64)).all(),
                f"meter samples: {name} holds a value that is not finite",
            )
    _require(len(samples.fresh) == n, f"meter samples: fresh has not the length of t_ns ({n})")
    _require(len(samples.temp_c) in (0, n), f"meter samples: temp_c has not the length of t_ns ({n})")
    times = np.asarray(samples.t_ns, np.uint64)
    _require((times[1:] >= times[:-1]).all(), "meter samples: time runs backwards")
