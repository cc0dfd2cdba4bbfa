"""Where the samples of a meter have holes: which windows of a trace must be measured again."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

from protos.types import PowerWindow

HOLE_PERIODS, HOLE_S = 2.5, 0.1  # a longer stretch without a sample is a hole: one lost reply is none
SPACINGS = 8  # that are enough to know a meter's real spacing
HURT_SHARE = 0.25  # of a window in holes: it has lost too much
NS = 1e9


class SampleWatch:
    """Follows the samples of one trace as they come; all times are of the measured machine.

    A meter's spacing is what it promises (rate_hz; 0 where it promises nothing) until enough samples have shown it.
    """

    def __init__(self, rate_hz: float, started_ns: int) -> None:
        self._promised_s = 1 / rate_hz if rate_hz > 0 else float("inf")
        self._last_ns = started_ns
        self._gaps_s: deque[float] = deque(maxlen=64)
        self._holes: deque[tuple[int, int]] = deque(maxlen=64)

    def add(self, t_ns: Sequence[int]) -> None:
        """Samples in order."""
        for now_ns in t_ns:
            gap_s = (now_ns - self._last_ns) / NS
            if gap_s > self._hole_s:
                self._holes.append((self._last_ns, now_ns))
            self._gaps_s.append(gap_s)
            self._last_ns = max(self._last_ns, now_ns)

    @property
    def _hole_s(self) -> float:
        known = len(self._gaps_s) >= SPACINGS
        spacing_s = max(statistics.median(self._gaps_s), min(self._promised_s, 1.0)) if known else self._promised_s
        return HOLE_PERIODS * spacing_s + HOLE_S

    def silent_s(self, now_ns: int) -> float:
        """Since the last sample."""
        return (now_ns - self._last_ns) / NS

    def blind_s(self, window: PowerWindow) -> float:
        """How much of a window that has just ended lies in holes."""
        holes = list(self._holes)
        if (window.ended_ns - self._last_ns) / NS > self._hole_s:
            holes.append((self._last_ns, window.ended_ns))
        overlaps = (min(end, window.ended_ns) - max(begin, window.started_ns) for begin, end in holes)
        return sum(max(0, overlap) for overlap in overlaps) / NS

    def hurts(self, window: PowerWindow) -> bool:
        """Whether the window has lost so much that it should be measured again."""
        return self.blind_s(window) > HURT_SHARE * (window.ended_ns - window.started_ns) / NS
