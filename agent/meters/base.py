"""What every meter driver is made of: readings, decoders, and the interface that the agent measures through.

Standard library only, like everything that `import agent.meters` loads: the daemon on a Raspberry Pi stays small.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from protos.types import MeterInfo, MeterSamples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Clock(Protocol):
    """All that a meter needs of a clock: monotonic time of the machine that is measured."""

    def now_ns(self) -> int: ...


@dataclass(frozen=True)
class Reading:
    """One value of a meter. What the meter does not tell is None (or empty), never zero.

    charge_c and energy_j are the meter's own counters (of `group`, where a meter has several); device_time_s is the
    meter's clock, unwrapped; `channel` names the output of a meter that has several.
    """

    voltage_v: float
    current_a: float
    power_w: float
    temp_c: float | None = None
    device_time_s: float | None = None
    charge_c: float | None = None
    energy_j: float | None = None
    group: int | None = None
    resistance_ohm: float | None = None
    data_plus_v: float | None = None
    data_minus_v: float | None = None
    channel: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""


class Decoder(ABC):
    """Bytes of a meter → readings, apart from any port.

    `feed` takes the stream in pieces of any size and returns the readings that became complete. What does not belong
    to a good frame is dropped and counted in `rejected` (reason → times); after damage the next good frame is read.
    """

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()

    @abstractmethod
    def feed(self, data: bytes) -> list[Reading]:
        """The readings that `data` completes, in order."""

    @abstractmethod
    def reset(self) -> None:
        """Drop what is incomplete (counted), before a new request or after the link was lost."""

    def feed_array(self, data: bytes) -> tuple[Array, Array, Array]:
        """As `feed`, but (time_s, voltage_v, current_a), each (n,); NaN for a meter that tells no time."""
        import numpy as np

        rows = [(r.device_time_s, r.voltage_v, r.current_a) for r in self.feed(data)]
        time_s, voltage_v, current_a = np.array(rows, np.float64).reshape(-1, 3).T  # None becomes NaN
        return time_s, voltage_v, current_a


OUTSIDE = "byte outside a frame"
INCOMPLETE = "incomplete frame"
Verdict = tuple[int, Sequence[Reading], str]  # bytes to drop, readings in them, reason ("" when nothing is wrong)


class FrameDecoder(Decoder):
    """Frames in a byte stream. A refused frame costs its first byte only, so the next good frame is always found."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray()

    @abstractmethod
    def _next(self, buffer: bytearray) -> Verdict | None:
        """What to do with the beginning of `buffer` (never empty); None: more bytes are needed to say."""

    def feed(self, data: bytes) -> list[Reading]:
        self._buffer += data
        found: list[Reading] = []
        while self._buffer:
            verdict = self._next(self._buffer)
            if verdict is None:
                break
            size, readings, reason = verdict
            if reason:
                self.rejected[reason] += size if reason == OUTSIDE else 1
            found += readings
            del self._buffer[:size]
        return found

    def reset(self) -> None:
        if self._buffer:
            self.rejected[INCOMPLETE] += 1
            self._buffer.clear()


class LineDecoder(Decoder):
    """Lines of text; an incomplete line waits for its end, and an endless one is dropped."""

    max_line_bytes = 512
    encoding = "ascii"

    def __init__(self) -> None:
        super().__init__()
        self._tail = bytearray()
        self._cut = False  # the next line may have lost its beginning

    @abstractmethod
    def _line(self, line: str) -> Sequence[Reading] | str:
        """The readings of one line without its end, or why it is refused (an empty sequence: not a data line)."""

    def _first_line(self, raw: bytes) -> None:
        """A line that may have lost its beginning; no reading comes from it."""

    def feed(self, data: bytes) -> list[Reading]:
        self._tail += data
        *lines, self._tail = self._tail.split(b"\n")
        found: list[Reading] = []
        if self._cut and lines:
            self._cut = False
            self._first_line(bytes(lines.pop(0)))
        for raw in lines:
            if len(raw) > self.max_line_bytes:
                self.rejected["line too long"] += 1
                continue
            try:
                outcome = self._line(raw.decode(self.encoding).strip("\r"))
            except UnicodeDecodeError:
                outcome = "line that is not text"
            if isinstance(outcome, str):
                self.rejected[outcome] += 1
            else:
                found += outcome
        if len(self._tail) > self.max_line_bytes:  # keep only the length that marks the line as too long
            del self._tail[self.max_line_bytes + 1 :]
        return found

    def reset(self) -> None:
        self._cut = True
        if self._tail:
            self.rejected["incomplete line"] += 1
            self._tail.clear()


class FrameClock:
    """A meter's clock as its frames give it: without wrap-around, and a value that does not follow is refused.

    It must come after the last one by at most `most_s`; the very frame that came last may come again, as links repeat
    them. When a refused value follows the refused one before it, the clock was set or lost time, and is believed again.
    When a value far ahead was followed by one that fits the rhythm of those before it, it was the wrong one.

    Not strict, for frames whose checksums leave little to doubt: nothing is refused, a clock that goes back was set.
    """

    AHEAD = 8.0  # times the last step

    def __init__(self, most_s: float = 60.0, wrap_s: float = math.inf, *, strict: bool = True) -> None:
        self._most_s = most_s
        self._wrap_s = wrap_s
        self._strict = strict
        self.reset()

    def reset(self) -> None:
        self._last_s: float | None = None
        self._last_frame: bytes | str = b""
        self._refused_s: float | None = None
        self._wrapped_s = 0.0
        self._step_s = math.inf  # between the last two, the usual one
        self._before: tuple[float, float] | None = None  # (time, wrapped) before a value that was far ahead

    def follow(self, time_s: float, frame: bytes | str = b"") -> float | None:
        """The time without wrap-around; None when it is refused. `frame` is what the time stood in."""
        if frame and time_s == self._last_s and frame == self._last_frame:
            return time_s + self._wrapped_s
        if not self._follows(time_s):
            return None
        self._last_s, self._refused_s, self._last_frame = time_s, None, frame
        return time_s + self._wrapped_s

    def _follows(self, time_s: float) -> bool:
        if self._last_s is None:
            return True
        if not self._strict:
            self._wrapped_s += self._wrap_s if self._last_s - time_s > self._wrap_s / 2 else 0.0
            return True
        step_s = self._step(self._last_s, time_s)
        if 0 < step_s <= self._most_s:
            ahead = step_s > self.AHEAD * self._step_s
            self._before = (self._last_s, self._wrapped_s) if ahead else None
            self._step_s = self._step_s if ahead else step_s
            self._wrapped_s += self._wrap_s if time_s < self._last_s else 0.0
            return True
        if self._before is not None and 0 < self._step(self._before[0], time_s) <= self.AHEAD * self._step_s:
            before_s, self._wrapped_s = self._before
            self._wrapped_s += self._wrap_s if time_s < before_s else 0.0
            self._before = None
            return True
        if self._refused_s is None or not 0 < self._step(self._refused_s, time_s) <= self._most_s:
            self._refused_s = time_s
            return False
        self._before, self._step_s = None, math.inf
        return True

    def _step(self, before_s: float, time_s: float) -> float:
        step_s = time_s - before_s
        return step_s + self._wrap_s if step_s < 0 else step_s


class Meter(Protocol):
    """A meter that is open. It is read only between `start` and `stop`: nothing disturbs the timing of latencies."""

    @property
    def info(self) -> MeterInfo: ...

    def start(self) -> None:
        """Sample from now on; harmless when it already does."""

    def stop(self) -> None:
        """Sample no more; what has come stays until `take`."""

    def take(self) -> tuple[MeterSamples, tuple[str, ...]]:
        """The samples since the last call, and what was lost meanwhile, in words."""

    def close(self) -> None:
        """Stop and give the port back."""
