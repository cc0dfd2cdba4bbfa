"""The last-level cache of an emulated board: least-recently-used eviction over named ranges of bytes.

Whether an operator finds its weights, its input and its code in the cache depends on all that ran before it. That is
why networks on an emulated board are not exactly the sum of their operators.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from agent.emulator.device_types import DeviceType


class Cache:
    """`capacity_bytes` in all; one range holds at most `stream_share` of them: a stream does not flush everything."""

    def __init__(self, capacity_bytes: int, stream_share: float) -> None:
        self._capacity = capacity_bytes
        self._limit = int(capacity_bytes * stream_share)
        self._resident: OrderedDict[int, int] = OrderedDict()  # range → bytes of it in the cache, oldest first
        self._used = 0

    @classmethod
    def of(cls, board: DeviceType) -> Cache:
        """An empty cache of this board."""
        return cls(board.cache_bytes, board.memory.stream_share)

    def touch(self, ranges: Iterable[tuple[int, int]]) -> list[int]:
        """Use ranges (name, bytes) one after another; the bytes of each that were missing."""
        resident, limit, capacity, used = self._resident, self._limit, self._capacity, self._used
        recent, missing = resident.move_to_end, []
        for name, size in ranges:
            had = resident.get(name, 0)
            if had == size:  # all of it is there
                missing.append(0)
                if had:
                    recent(name)
                continue
            missing.append(size - had if size > had else 0)
            kept = size if size < limit else limit
            resident[name] = kept
            if had:
                recent(name)
            used += kept - had
            if used > capacity:
                used = self._evict(used, capacity)
        self._used = used
        return missing

    def sweep(self, size_bytes: int) -> None:
        """Run through another buffer. Of what was there, only what still has room beside it stays."""
        self._used = self._evict(self._used, max(0, self._capacity - size_bytes))

    def _evict(self, used: int, room: int) -> int:
        """The oldest go until at most `room` bytes are used, of the last one only as much as must; the bytes used."""
        resident = self._resident
        while used > room:
            oldest = next(iter(resident))
            size = resident[oldest]
            if size > used - room:
                resident[oldest] = size - (used - room)
                return room
            del resident[oldest]
            used -= size
        return used
