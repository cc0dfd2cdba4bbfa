"""A quick look at latency rounds as they are on the wire: it says yes to most that are true, and nothing else.

Every round passes here on its way into the database, so nothing is decoded that need not be. The numbers of a column
are varints: seven bits in a byte, the highest bit set in all but a number's last byte. What is unusual in any way
(columns in pieces, numbers longer than need be, unknown fields) gets no yes; lut_store.evidence decodes and judges it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from protos import common_pb2, raw_pb2
from protos.types import RunSpec

MAX_ID_LENGTH = 64
MERGED = 32  # rounds whose orders are decoded together
NOT_SURE = -1 << 60  # executions: with whatever is added, still below 0

_GOES_ON = bytes(range(128, 256))  # a byte of a number that is not its last
_MARKS = bytes(128) + b"\1" * 128
_LONG = b"\1" * 7  # a number of eight bytes: 2**49 ns, six days, or more


class QuickCheck:
    """The rules of one run."""

    def __init__(self, spec: RunSpec) -> None:
        space = spec.space
        self._layers, ops = space.shape
        self._slots = len(space.stem) + self._layers + len(space.head)
        self._ops, self._items, self._networks = _below(ops), _below(len(spec.items)), _below(len(spec.networks))
        allowed = [
            bytes(op for op, cell in enumerate(layer.cells[:128]) if cell.spec is not None) for layer in space.layers
        ]
        self._restricted = [(layer, own) for layer, own in enumerate(allowed) if own != self._ops]

    def passing(self, messages: Sequence[raw_pb2.Measurement], bodies: Sequence[bytes]) -> set[int]:
        """The places of those that are surely true; `bodies` are the bytes that the messages were read from."""
        orders: list[tuple[int, int, bytes]] = []  # place, executions, order
        for index, (message, body) in enumerate(zip(messages, bodies, strict=True)):
            executions = self._executions(message, len(body))
            if executions:
                orders.append((index, executions, message.latency.order))
        found: set[int] = set()
        for start in range(0, len(orders), MERGED):
            group = orders[start : start + MERGED]
            if _are_permutations(b"".join([order for _, _, order in group]), [count for _, count, _ in group]):
                found.update(index for index, _, _ in group)
        return found

    def _executions(self, message: raw_pb2.Measurement, size: int) -> int:
        """How many the round has, when all but their order is surely true; else 0."""
        if not 0 < len(message.id) <= MAX_ID_LENGTH or message.HasField("power") or not message.HasField("latency"):
            return 0
        if not all(message.HasField(name) and _is_finite(getattr(message, name)) for name in ("before", "after")):
            return 0
        # A column in two pieces is longer for who decodes it; here the last piece would stand for all.
        message.DiscardUnknownFields()
        if message.ByteSize() != size:
            return 0
        part = message.latency
        executions = self._paths(part.paths) if part.HasField("paths") else 0
        if part.HasField("networks"):
            executions += _calls(part.networks, self._networks)
        if part.HasField("operators"):
            executions += _calls(part.operators, self._items)
        if part.HasField("other_context") and _calls(part.other_context, self._networks) < 0:
            return 0
        probes = part.probe_ns.translate(None, _GOES_ON)
        if part.ended_ns <= part.started_ns or len(probes) != executions + 1 or 0 in probes:
            return 0
        if len(part.order.translate(None, _GOES_ON)) != executions:
            return 0
        times = (
            *(part.paths.block_ns, part.paths.total_ns, part.networks.total_ns),
            *(part.operators.total_ns, part.other_context.total_ns, part.probe_ns),
        )
        whole = all(column[-1] < 128 for column in (*times, part.order) if column)  # no number goes on after its column
        return executions if whole and _LONG not in b"".join(times).translate(_MARKS) else 0

    def _paths(self, paths: raw_pb2.PathTimings) -> int:
        """How many; NOT_SURE when they are not surely true."""
        totals = paths.total_ns.translate(None, _GOES_ON)
        rows, calls, choices = len(totals), paths.calls, paths.choices
        if calls < 1 or rows % calls or 0 in totals:
            return NOT_SURE
        count = rows // calls
        if len(choices) != count * self._layers or choices.translate(None, self._ops):
            return NOT_SURE
        if any(choices[layer :: self._layers].translate(None, allowed) for layer, allowed in self._restricted):
            return NOT_SURE
        return count if len(paths.block_ns.translate(None, _GOES_ON)) == rows * self._slots else NOT_SURE


def _below(count: int) -> bytes:
    """The numbers below `count` that are one byte."""
    return bytes(range(min(count, 128)))


def _is_finite(state: common_pb2.HostState) -> bool:
    return math.isfinite(state.wall_time_s + state.temp_c + state.frequency_hz + state.load_1m + state.other_cpu_share)


def _calls(timings: raw_pb2.Timings, known: bytes) -> int:
    """How many were timed; NOT_SURE when they are not surely true."""
    totals = timings.total_ns.translate(None, _GOES_ON)
    calls, index = timings.calls, timings.index
    true = calls >= 1 and len(totals) == len(index) * calls and 0 not in totals and not index.translate(None, known)
    return len(index) if true else NOT_SURE


def _are_permutations(orders: bytes, counts: Sequence[int]) -> bool:
    """Whether `orders`, one after the other, name each position of each round once. Positions have one or two bytes."""
    data: npt.NDArray[np.uint8] = np.frombuffer(orders, np.uint8)
    ends = np.flatnonzero(data < 128)
    lengths = np.diff(ends, prepend=-1)
    total = sum(counts)
    if len(ends) != total or data[-1] >= 128 or lengths.max() > 2:
        return False
    positions = data[ends].astype(np.int64)
    two = lengths == 2
    positions[two] = positions[two] << 7 | data[ends[two] - 1] & 127
    each = np.asarray(counts)
    if (positions >= np.repeat(each, each)).any():
        return False
    return bool(np.bincount(np.repeat(np.cumsum(each) - each, each) + positions, minlength=total).max() == 1)
