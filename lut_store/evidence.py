"""Whether measurements can be true, judged on the wire's messages against their run.

The rules are those of protos.types (every message that is accepted here converts without an error) and of the run:
indices that exist, choices that are allowed, rows that fit the space. Most rounds pass by lut_store.quick already; what
does not is decoded, and gets a sentence when it cannot be true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from lut_store.quick import MAX_ID_LENGTH, QuickCheck
from protos import common_pb2, raw_pb2
from protos.types import SUBJECTS, RunSpec

MAX_TIME_NS = 1 << 50  # 13 days


class ImpossibleError(Exception):
    """The sentence that says why a measurement is refused."""


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ImpossibleError(message)


def _check_times(name: str, times: Any, *, zero: bool = False) -> None:
    if len(times):
        array = np.asarray(times)
        if array.max() >= MAX_TIME_NS or not (zero or array.all()):
            bad = max(array.max(), MAX_TIME_NS) if array.max() >= MAX_TIME_NS else 0
            raise ImpossibleError(f"{name} holds {bad} ns; a time must be positive and below 13 days")


def _check_indices(name: str, indices: Any, known: int, what: str) -> None:
    if len(indices):
        worst = np.asarray(indices).max()
        if worst >= known:
            raise ImpossibleError(f"{name} names {what} {worst}; the run has {known} of them")


def _check_order(order: Any, executions: int) -> None:
    """order: as many entries as there are executions, every position once."""
    given = np.asarray(order)
    if len(given) and ((given >= executions).any() or np.bincount(given).max() > 1):
        raise ImpossibleError("a latency round: order does not name every execution once")


class EvidenceCheck:
    """The rules of one run."""

    def __init__(self, spec: RunSpec) -> None:
        space = spec.space
        self._quick = QuickCheck(spec)
        self._space = space
        self._layers, self._ops = space.shape
        self._slots = len(space.stem) + self._layers + len(space.head)
        self._items, self._networks = len(spec.items), len(spec.networks)
        self._allowed: npt.NDArray[np.bool_] = np.array(
            [cell.spec is not None for layer in space.layers for cell in layer.cells]
        )
        self._first_cells = np.arange(self._layers, dtype=np.uint32) * self._ops

    def problems(self, messages: Sequence[raw_pb2.Measurement], bodies: Sequence[bytes]) -> list[str]:
        """For each message, whose bytes are its body, what makes it impossible, as a sentence; empty when nothing
        does.
        """
        passing = self._quick.passing(messages, bodies)
        return [
            "" if index in passing else self._problem(message, body)
            for index, (message, body) in enumerate(zip(messages, bodies, strict=True))
        ]

    def _problem(self, message: raw_pb2.Measurement, body: bytes) -> str:
        try:
            if not message.HasField("latency"):
                self._check_structure(message)
                return ""
            whole = common_pb2.Measurement.FromString(body)
            executions = self._check_structure(whole)
            if executions is not None:
                self._check_values(whole.latency, executions)
        except ImpossibleError as error:
            return str(error)
        except DecodeError:
            return "these bytes are not a measurement"
        return ""

    def _check_structure(self, message: common_pb2.Measurement | raw_pb2.Measurement) -> int | None:
        """Everything but the numbers of a latency round; its executions, None for a power trace."""
        if not 0 < len(message.id) <= MAX_ID_LENGTH:
            raise ImpossibleError("a measurement needs an id of at most 64 characters")
        for name in ("before", "after"):
            if not message.HasField(name):
                raise ImpossibleError(f"the host's state {name} the measurement is not there")
        _check_state(message.before)
        _check_state(message.after)
        if message.HasField("latency") == message.HasField("power"):
            raise ImpossibleError("a measurement holds either latency or power")
        if message.HasField("latency"):
            return self._check_round(message.latency)
        self._check_trace(message.power)
        return None

    # ---- latency ----

    def _check_round(self, part: Any) -> int:
        if part.ended_ns <= part.started_ns:
            raise ImpossibleError("a latency round ends before it starts")
        executions = 0
        if part.HasField("paths"):
            executions += self._check_rows(part.paths)
        if part.HasField("networks"):
            executions += _check_calls("network timings", part.networks, len(part.networks.network))
        if part.HasField("operators"):
            executions += _check_calls("operator timings", part.operators, len(part.operators.item))
        if part.HasField("other_context"):
            _check_calls("network timings", part.other_context, len(part.other_context.network))
        if len(part.order) != executions:
            raise ImpossibleError("a latency round: order does not name every execution once")
        if len(part.probe_ns) != executions + 1:
            raise ImpossibleError("a latency round: probe_ns does not frame every execution")
        return executions

    def _check_rows(self, part: common_pb2.PathTimings) -> int:
        rows = len(part.total_ns)
        if part.calls < 1:
            raise ImpossibleError("path timings: calls must be at least 1")
        if rows % part.calls:
            raise ImpossibleError("path timings: total_ns does not hold whole paths")
        paths = rows // part.calls
        if len(part.choices) != paths * self._layers:
            raise ImpossibleError(
                f"path timings: {len(part.choices)} choices for {paths} paths of {self._layers} layers"
            )
        if len(part.block_ns) != rows * self._slots:
            raise ImpossibleError(f"path timings: {len(part.block_ns)} times for {rows} rows of {self._slots} slots")
        return paths

    def _check_values(self, part: common_pb2.LatencyRound, executions: int) -> None:
        """The numbers of a round."""
        if len(part.paths.choices):
            self._check_choices(np.asarray(part.paths.choices).reshape(-1, self._layers))
        _check_times("block_ns", part.paths.block_ns, zero=True)
        _check_times("total_ns", part.paths.total_ns)
        for name in ("networks", "other_context"):
            networks = getattr(part, name)
            _check_indices(name, networks.network, self._networks, "network")
            _check_times(f"{name}.total_ns", networks.total_ns)
        _check_indices("operators", part.operators.item, self._items, "item")
        _check_times("operators.total_ns", part.operators.total_ns)
        _check_times("probe_ns", part.probe_ns)
        _check_order(part.order, executions)

    def _check_choices(self, choices: npt.NDArray[np.uint32]) -> None:
        """choices: (paths, layers)."""
        if choices.max() < self._ops and self._allowed.take(choices + self._first_cells).all():
            return
        for row in choices.tolist():
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


def _check_calls(what: str, part: common_pb2.NetworkTimings | common_pb2.OperatorTimings, executions: int) -> int:
    if part.calls < 1 or len(part.total_ns) != executions * part.calls:
        raise ImpossibleError(f"{what}: {len(part.total_ns)} times for {executions} executions × {part.calls} calls")
    return executions


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
