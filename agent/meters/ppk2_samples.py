"""Samples of a PPK2: bytes → currents, with numpy (see `agent.meters.ppk2`)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from agent.meters.base import Decoder, Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Words = NDArray[np.uint32]

SAMPLE_HZ = 100_000
RANGES = 5
SAMPLE_BYTES = 4
RUN = 6  # samples whose counters follow each other: enough to know where samples begin
ADC_VOLTS = 1.8 / 163840
ALPHA, ALPHA_TOP = 0.18, 0.06  # of the rolling means below and in range 4
MANY_LOST = 31  # samples; more look like a counter that went back, because bytes were taken for a sample
SPIKE = 3  # samples replaced after a change of range
MEMORY = 200  # samples after which the slower mean has forgotten all but 4e-6
_ROWS = ("R", "GS", "GI", "O", "S", "I", "UG")
_KEY = re.compile(r"(UG|GS|GI|R|O|S|I)([0-4])")
_KEYS = (b"Calibrated", b"VDD", b"HW", b"mode", b"IA", *(f"{k}{n}".encode() for k in _ROWS for n in range(RANGES)))
_TEXT_END = re.compile(rb"(?:^|\n)END(\r?\n|(?=[^\r\n]))")
_NO_TEXT = re.compile(rb"[^\t\r\n -~]")
TEXT_BYTES = 4096  # more than the kit's text ever has
VDD_MV = 5000.0  # where neither text nor caller says otherwise
VDD_RANGE_MV = (800.0, 5500.0)
_DEFAULT_OHM = (1031.64, 101.65, 10.15, 0.94, 0.043)


def _same(value: float) -> tuple[float, ...]:
    return (value,) * RANGES


@dataclass(frozen=True)
class Calibration:
    """One factor for each range; defaults are those of an uncalibrated kit."""

    r: tuple[float, ...] = _DEFAULT_OHM
    gs: tuple[float, ...] = field(default_factory=lambda: _same(0.0))
    gi: tuple[float, ...] = field(default_factory=lambda: _same(1.0))
    o: tuple[float, ...] = field(default_factory=lambda: _same(0.0))
    s: tuple[float, ...] = field(default_factory=lambda: _same(0.0))
    i: tuple[float, ...] = field(default_factory=lambda: _same(0.0))
    ug: tuple[float, ...] = field(default_factory=lambda: _same(1.0))
    calibrated: bool = False
    hardware: str = ""
    vdd_mv: float | None = None  # that the kit says to be set to

    @classmethod
    def parse(cls, text: str) -> Calibration:
        """The kit's text; what it does not know (`-nan`) keeps its default."""
        rows = {item.name: list(getattr(cls(), item.name)) for item in fields(cls) if len(item.name) <= 2}
        words: dict[str, str] = {}
        for line in text.splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            words[key] = value
            match = _KEY.fullmatch(key)
            try:
                number = float(value) if match else math.nan
            except ValueError:
                continue
            if match and math.isfinite(number) and not (match[1] in ("R", "UG") and number == 0):
                rows[match[1].lower()][int(match[2])] = number
        calibrated = words.get("Calibrated", "0") not in ("", "0")
        r, gs, gi, o, s, i, ug = (tuple(row) for row in rows.values())
        return cls(r, gs, gi, o, s, i, ug, calibrated, words.get("HW", ""), _voltage_mv(words.get("VDD", "")))


def _voltage_mv(text: str) -> float | None:
    try:
        vdd_mv = float(text)
    except ValueError:
        return None
    return vdd_mv if VDD_RANGE_MV[0] <= vdd_mv <= VDD_RANGE_MV[1] else None


class _Beginning:
    """Parts the calibration text, with which a stream may begin, from the samples behind it."""

    def __init__(self) -> None:
        self._head = bytearray()
        self.ended = False

    def take(self, data: bytes) -> tuple[str, bytes]:
        """(text once it is whole, bytes of samples). What can no longer be such a text is samples."""
        self._head += data
        head = bytes(self._head)
        end = _TEXT_END.search(head)
        text = head[: end.end()] if end else head
        if not _may_be_text(text):
            self.ended = True
            return "", head
        if end is None:
            return "", b""
        self.ended = True
        return text.decode("ascii"), head[end.end() :]

    def drop(self) -> int:
        """Forget what has come of a text; how many bytes."""
        size = len(self._head)
        self._head.clear()
        return size


def _may_be_text(head: bytes) -> bool:
    """Whether these are the first bytes of a calibration text, or all of one."""
    key, colon, _ = head.lstrip().partition(b":")
    known = key.rstrip() in _KEYS if colon else any(word.startswith(key.rstrip()) for word in _KEYS)
    return known and len(head) <= TEXT_BYTES and not _NO_TEXT.search(head)


class _Scan:
    """Where the samples in a piece of the stream begin; byte 2 of a sample holds its counter in the upper six bits."""

    def __init__(self, raw: NDArray[np.uint8]) -> None:
        self._raw = raw
        self.counter = raw[2:] >> 2  # (n - 2,) if a sample began at each byte
        self._follows = (self.counter[4:] - self.counter[:-4] & 63) == 1  # (n - 6,)
        self._runs: NDArray[np.intp] | None = None
        self._breaks: dict[int, NDArray[np.intp]] = {}

    def next_run(self, at: int) -> int | None:
        """The first place from `at` on where `RUN` samples follow each other."""
        import numpy as np

        if self._runs is None:
            size = len(self._raw) - 4 * RUN + 1
            good = np.ones(max(0, size), bool)
            for step in range(RUN - 1):
                good &= self._follows[4 * step : 4 * step + len(good)]
            self._runs = np.flatnonzero(good)
        index = int(np.searchsorted(self._runs, at))
        return int(self._runs[index]) if index < len(self._runs) else None

    def length(self, at: int) -> int:
        """How many whole samples from `at` on follow each other."""
        import numpy as np

        whole = (len(self._raw) - at) // 4
        phase = at % 4
        if phase not in self._breaks:
            self._breaks[phase] = np.flatnonzero(~self._follows[phase::4])
        breaks = self._breaks[phase]
        index = int(np.searchsorted(breaks, at // 4))
        return min(whole, int(breaks[index]) - at // 4 + 1) if index < len(breaks) else whole


class Ppk2Decoder(Decoder):
    """Samples → readings, each the mean of `block` of them; `feed_array` gives every sample.

    The counter in each sample shows where samples begin and how many were lost (modulo 64). Without a `calibration`
    the stream may begin with the kit's text, which then is the calibration; its VDD is the voltage unless `vdd_mv` is
    given.
    """

    def __init__(self, calibration: Calibration | None = None, vdd_mv: float | None = None, block: int = 1) -> None:
        super().__init__()
        self._beginning = _Beginning() if calibration is None else None
        self._given_mv = vdd_mv
        self._block = block
        self._calibrate(calibration or Calibration())
        self._buffer = bytearray()
        self._expected: int | None = None  # counter of the next sample
        self._searching = False
        self._index = 0  # of the next sample, lost ones included
        self._rest: tuple[Array, Array] = _nothing()  # times and currents that do not fill a block yet
        self._skipped = 0  # bytes in search of the samples
        self._slipped = False  # what comes next was found after such a search
        self._has_slipped = False  # ever: the link is a bad one
        self._doubtful = False  # the last sample of the piece before should not have been given
        self._forget()

    def _calibrate(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.vdd_v = (self._given_mv or calibration.vdd_mv or VDD_MV) / 1000

    def _after_text(self, data: bytes) -> bytes:
        """What of `data` (and of what was held back) belongs to samples."""
        if self._beginning is None:
            return data
        text, samples = self._beginning.take(data)
        if text:
            self._calibrate(Calibration.parse(text))
        if self._beginning.ended:
            self._beginning = None
        return samples

    def _forget(self) -> None:
        self._past: list[float] = []  # the last raw currents, for the rolling means
        self._range = -1
        self._spike: tuple[int, float] | None = None  # which sample after a change of range comes next, and the mean

    def feed(self, data: bytes) -> list[Reading]:
        """The readings of the blocks that `data` completes; an unfinished block waits for its other samples.

        A block of several samples also waits for the one behind it, which shows that its last sample belongs to the
        stream. With a block of 1 every sample is given at once, as by `feed_array`, until the stream has slipped once:
        from then on the last sample waits too, and comes with the next ones.
        """
        import numpy as np

        new = self._samples(data)
        kept = len(self._rest[0]) - (1 if self._doubtful and len(self._rest[0]) else 0)
        times, currents = (np.concatenate((old[:kept], more)) for old, more in zip(self._rest, new, strict=True))
        waiting = 1 if self._block > 1 or self._has_slipped else 0
        whole = max(0, len(times) - waiting) // self._block * self._block
        self._rest = (times[whole:], currents[whole:])
        means = [part[:whole].reshape(-1, self._block).mean(axis=1).tolist() for part in (times, currents)]
        return [
            Reading(self.vdd_v, current_a, self.vdd_v * current_a, device_time_s=time_s, model="PPK2")
            for time_s, current_a in zip(*means, strict=True)
        ]

    def feed_array(self, data: bytes) -> tuple[Array, Array, Array]:
        """(time_s, voltage_v, current_a) of every sample that `data` completes, each (n,).

        Time counts from the first sample by the samples' counters.
        """
        import numpy as np

        times, currents = self._samples(data)
        return times, np.full(len(times), self.vdd_v), currents

    def _samples(self, data: bytes) -> tuple[Array, Array]:
        """(time_s, current_a) of what follows by its counter.

        A sample right before a slip may have been read across it: it is left out, or, where it was already given,
        `_doubtful` says so.
        """
        import numpy as np

        self._buffer += self._after_text(data)
        raw = np.frombuffer(bytes(self._buffer), np.uint8)
        self._doubtful = False
        stretches: list[tuple[Array, Array]] = []
        words: list[Words] = []
        indices: list[NDArray[np.int64]] = []
        at = 0
        if len(raw) >= 4:
            scan = _Scan(raw)
            while (part := self._run(scan, at, len(raw)))[1]:
                at, size = part
                if self._slipped:
                    stretches.append(self._measured(words, indices, cut=1))
                    self._doubtful = self._doubtful or not words
                    words, indices, self._slipped = [], [], False
                    self._forget()
                words.append(raw[at : at + 4 * size].view("<u4"))
                indices.append(np.arange(self._index, self._index + size))
                self._index += size
                at += 4 * size
                self._expected = (int(scan.counter[at - 4]) + 1) & 63
            at = part[0]
        del self._buffer[:at]
        stretches.append(self._measured(words, indices))
        times, currents = (np.concatenate(column) for column in zip(*stretches, strict=True))
        return times, currents

    def _measured(self, words: list[Words], indices: list[NDArray[np.int64]], cut: int = 0) -> tuple[Array, Array]:
        """(time_s, current_a) of samples without a slip between them, without the last `cut`."""
        import numpy as np

        count = sum(map(len, words)) - cut
        if count <= 0:
            return np.empty(0), np.empty(0)
        return np.concatenate(indices)[:count] / SAMPLE_HZ, self._currents(np.concatenate(words)[:count])

    def _run(self, scan: _Scan, at: int, end: int) -> tuple[int, int]:
        """(begin, length) of the next samples that follow each other; length 0 when more bytes are needed from
        `begin` on.
        """
        if end - at < 4:
            return at, 0
        counter = int(scan.counter[at])
        if not self._searching and (self._expected is None or counter == self._expected):
            return at, scan.length(at)
        if not self._searching:
            self._searching, self._skipped = True, 0
        found = scan.next_run(at)
        begin = max(at, end - 4 * RUN + 1) if found is None else found
        if begin > at:
            self.rejected["byte outside a sample"] += begin - at
            self._skipped += begin - at
        if found is None:
            return begin, 0
        if self._expected is not None:
            lost = (int(scan.counter[found]) - self._expected) & 63
            if lost:
                self.rejected["lost sample"] += lost
            self._index += lost
            self._slipped = self._skipped > 0 or lost > MANY_LOST
            self._has_slipped = self._has_slipped or self._slipped
            if self._slipped:  # the first half of this sample may belong to another one
                self.rejected["byte outside a sample"] += SAMPLE_BYTES
                self._index += 1
                found += SAMPLE_BYTES
        self._searching = False
        return found, scan.length(found)

    def reset(self) -> None:
        dropped = len(self._buffer) + (self._beginning.drop() if self._beginning else 0)
        if dropped:
            self.rejected["byte outside a sample"] += dropped
            self._buffer.clear()
        self._expected, self._searching = None, True
        self._rest = _nothing()
        self._forget()

    def _currents(self, words: Words) -> Array:
        """Amperes of whole samples, (n,)."""
        import numpy as np

        ranges = np.minimum(words >> 14 & 7, RANGES - 1).astype(np.intp)
        c = self.calibration
        r, gs, gi, o, ug = (np.asarray(row)[ranges] for row in (c.r, c.gs, c.gi, c.o, c.ug))
        offset = (np.asarray(c.s) * self.vdd_v + np.asarray(c.i))[ranges]
        x = ((words & 0x3FFF) * 4.0 - o) * ADC_VOLTS / r
        raw: Array = ug * (x * (gs * x + gi) + offset)
        out = raw.copy()
        history = np.concatenate([np.asarray(self._past), raw])  # the past, then this
        shift = len(self._past)
        before = np.concatenate([ranges[:1] if self._range < 0 else [self._range], ranges[:-1]])
        changes = np.flatnonzero(ranges != before).tolist()
        if self._spike is not None and changes[:1] != [0]:
            self._smooth(out, history[shift:], ranges, 0, *self._spike)
        for at in changes:
            top = ranges[at] == RANGES - 1
            mean = _rolling_mean(history[: shift + at], ALPHA_TOP if top else ALPHA)
            self._smooth(out, history[shift:], ranges, at, 0, mean)
        self._past = history[-MEMORY:].tolist()
        self._range = int(ranges[-1])
        return out

    def _smooth(self, out: Array, raw: Array, ranges: NDArray[np.intp], at: int, nth: int, mean: float) -> None:
        """Replace samples from `at` on, the `nth` to the last of `SPIKE` after a change of range, by the rolling
        mean.
        """
        import numpy as np

        top = ranges[at] == RANGES - 1
        self._spike = None
        for nth_now in range(nth, SPIKE):
            if at == len(out):
                self._spike = (nth_now, mean)  # the next piece goes on
                return
            if nth_now > nth and ranges[at] != ranges[at - 1]:
                return  # another change: its own turn comes
            if top and nth_now < 2:  # range 4 keeps the mean from before for its first two samples
                raw[at] = np.nan  # which no later mean knows either
            else:
                mean += (ALPHA_TOP if top else ALPHA) * (float(raw[at]) - mean)
            out[at] = mean
            at += 1


def _rolling_mean(past: Array, alpha: float) -> float:
    """The exponential mean that begins with the first sample, as Nordic's software has it."""
    import numpy as np

    past = past[-MEMORY:]
    past = past[np.isfinite(past)]
    weights = alpha * (1 - alpha) ** np.arange(len(past) - 1, -1, -1)
    weights[0] /= alpha
    return float(past @ weights)


def _nothing() -> tuple[Array, Array]:
    import numpy as np

    return np.empty(0), np.empty(0)
