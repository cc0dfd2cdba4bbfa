"""Figure 3 of the meters: damaged frames and byte streams through every driver.

Each case is one damaged frame (or random bytes) and two good ones behind it, fed in one piece or in several. Counted:
readings that nobody sent ("wrong"), those among them whose bytes were not a valid frame by the format's own redundancy,
checked anew here ("shown": must be 0), cases in which the second good frame was not read ("lost": must be 0; a csv line
has no checksum, and a damaged time hides the lines behind it until one fits again), in which the first one was not, and
the slowest case in CPU time. `python -m benchmarks.fuzz --driver tc66c --count 1000000 --seed 1` for one driver.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.emulator.meters import atorch, avhzy, csv, smartpower3, tc66c, um25c
from agent.meters import Reading, decoder
from agent.meters.ppk2_samples import Ppk2Decoder
from agent.meters.tc66c import CIPHER, crc16
from benchmarks.runs import keep

COUNT_FULL, COUNT_SHORT = 1_000_000, 5_000
HANG_S = 1.0
STREAM_SHARE = 0.1  # of the cases: random bytes instead of a damaged frame
POOL = 500
PIECES_SHARE = 0.2  # of the cases: fed in several pieces
EXAMPLES = 3
SHOWN_CHARS = 1500  # of an example
Value = tuple[float, float, float]


@dataclass(frozen=True)
class Driver:
    """encode: a good frame, the n-th of a stream; valid: every value that a run of bytes holds as a valid frame.

    Frames without a time are made once and used again.
    """

    name: str
    kind: str  # with options, as `decoder` takes it
    encode: Callable[[int, random.Random], bytes]
    valid: Callable[[bytes], Iterator[Value]]
    timed: bool = True

    def frames(self, rng: random.Random) -> Callable[[int], tuple[bytes, Value]]:
        """The n-th frame and its value."""
        if self.timed:
            return lambda index: self._frame(index, rng)
        pool = [self._frame(index, rng) for index in range(POOL)]
        return lambda _: pool[int(rng.random() * POOL)]

    def _frame(self, index: int, rng: random.Random) -> tuple[bytes, Value]:
        data = self.encode(index, rng)
        return data, next(self.valid(data))


@dataclass
class Outcome:
    cases: int = 0
    wrong: int = 0
    shown: int = 0
    first_lost: int = 0
    lost: int = 0
    slowest_s: float = 0.0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.cases:9,d} cases {self.wrong:6d} wrong {self.shown:4d} shown {self.lost:4d} lost "
            f"{self.first_lost:7d} first lost   slowest {self.slowest_s * 1e3:6.1f} ms"
        )

    def show(self, example: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(example[:SHOWN_CHARS])

    @property
    def good(self) -> bool:
        return not self.shown and not self.lost and self.slowest_s < HANG_S


# ---- damage ---------------------------------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, losses, insertions, doubled parts, a lost beginning or end."""
    out, draw = bytearray(data), rng.random
    for _ in range(1 + int(4 * draw())):
        at, size = int(draw() * (len(out) + 1)), 1 + int(9 * draw())
        change = int(7 * draw())
        if change == 0 and at < len(out):
            out[at] ^= 1 << int(8 * draw())
        elif change == 1 and at < len(out):
            out[at] = int(256 * draw())
        elif change == 2:
            del out[at : at + size]
        elif change == 3:
            out[at:at] = rng.randbytes(size)
        elif change == 4:
            out[at:at] = out[at : at + 4 * size]
        elif change == 5:
            del out[:at]
        else:
            del out[at:]
    return bytes(out)


def pieces(data: bytes, rng: random.Random) -> Iterator[bytes]:
    if rng.random() >= PIECES_SHARE:
        yield data
        return
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        yield data[begin:end]


def fuzz(driver: Driver, count: int, seed: int = 0) -> Outcome:
    rng, outcome = random.Random(f"{driver.name} {seed}"), Outcome()
    frame, target = driver.frames(rng), decoder(driver.kind)
    tail = b""  # what may still wait in the decoder
    for case in range(count):
        (first, *_), (second, next_value), (third, last_value) = (frame(3 * case + k) for k in range(3))
        junk = rng.randbytes(rng.randrange(300)) if rng.random() < STREAM_SHARE else mutated(first, rng)
        data = junk + second + third
        began = time.process_time()
        found = [value(r) for part in pieces(data, rng) for r in target.feed(part)]
        outcome.slowest_s = max(outcome.slowest_s, time.process_time() - began)
        if not (found and close(found[-1], last_value)):
            outcome.lost += 1
            outcome.show(f"{last_value} lost in {(tail + data).hex()}")
        if len(found) < 2 or not close(found[-2], next_value):
            outcome.first_lost += not close_to_any(next_value, found)
        if len(found) > 2 or not (close_to_any(next_value, found) and close_to_any(last_value, found)):
            _judge(driver, outcome, found, [next_value, last_value], first, tail + data)
        outcome.cases += 1
        tail = data[-2 * len(second) :]
    return outcome


def _judge(
    driver: Driver, outcome: Outcome, found: Sequence[Value], sent: list[Value], first: bytes, data: bytes
) -> None:
    """Count what nobody sent, and what no valid frame in the bytes holds."""
    sent.append(next(driver.valid(first)))
    wrong = [item for item in found if not close_to_any(item, sent)]
    if not wrong:
        return
    there = list(driver.valid(data))
    shown = [item for item in wrong if not close_to_any(item, there)]
    outcome.wrong += len(wrong)
    outcome.shown += len(shown)
    if shown:
        outcome.show(f"{shown[0]} out of {data.hex()}")


def value(reading: Reading) -> Value:
    return reading.voltage_v, reading.current_a, reading.power_w


def close(one: Value, other: Value) -> bool:
    return one == other or all(abs(a - b) <= 1e-6 + 1e-6 * abs(b) for a, b in zip(one, other, strict=True))


def close_to_any(one: Value, others: Sequence[Value] | set[Value]) -> bool:
    return any(close(one, other) for other in others)


# ---- the formats once more, from their descriptions -----------------------------------------------------------------


def _reading(index: int, rng: random.Random, period_s: float = 0.5) -> Reading:
    volts, amps = rng.uniform(4.8, 5.2), rng.uniform(0.2, 1.0)
    return Reading(volts, amps, volts * amps, 30.0, device_time_s=10.0 + index * period_s)


_UM34C_CHECKED = (1, 3, 7, 9, 15, 17, 19, 23, 31, 39, 41, 45, 49, 53, 55, 57, 59, 63, 67, 69, 73, 79, 83, 89, 97, 99)
_UM34C_CHECKED += (109, 111, 113, 119, 121, 127)
UM_STEPS = {0x0963: (0.01, 0.001), 0x09C9: (0.001, 0.0001), 0x0D4C: (0.01, 0.001)}


def _valid_um(data: bytes) -> Iterator[Value]:
    for at in range(len(data) - 129):
        number, volts, amps, milliwatts, celsius, fahrenheit, group = struct.unpack_from(">HHHIHHH", data, at)
        if number not in UM_STEPS or group > 9 or abs(celsius * 1.8 + 32 - fahrenheit) > 3:
            continue
        if data[at + 128 : at + 130] != b"\xff\xf1" if number != 0x0D4C else data[at + 129] != _um34c_sum(data, at):
            continue
        step_v, step_a = UM_STEPS[number]
        v, a, w = volts * step_v, amps * step_a, milliwatts / 1000
        if abs(v * a - w) <= v * step_a + a * step_v + 0.0015:
            yield round(v, 3), round(a, 4), w


def _um34c_sum(data: bytes, at: int) -> int:
    total = 0
    for offset in _UM34C_CHECKED:
        total ^= data[at + offset]
    return total


def _valid_tc66c(data: bytes) -> Iterator[Value]:
    for at in range(len(data) - 191):
        if CIPHER.decryptor().update(data[at : at + 16])[:4] != b"pac1":
            continue
        plain = CIPHER.decryptor().update(data[at : at + 192])
        packets = [plain[64 * k : 64 * k + 64] for k in range(3)]
        if all(p[:4] == b"pac%d" % (k + 1) for k, p in enumerate(packets)) and all(
            int.from_bytes(p[60:], "little") == crc16(p[:60]) for p in packets
        ):
            volts, amps, watts = struct.unpack_from("<III", plain, 48)
            yield volts / 1e4, amps / 1e5, watts / 1e4


def _valid_avhzy(data: bytes) -> Iterator[Value]:
    for at in range(len(data) - 18):
        size = int.from_bytes(data[at + 1 : at + 5], "little")
        frame = data[at : at + size + 7]
        if data[at] != 0xA5 or not 12 <= size <= 64 or len(frame) < size + 7 or frame[-1] != 0x5A:
            continue
        parity = 0
        for byte in frame[5:-2]:
            parity ^= byte
        volts, amps = struct.unpack_from("<ff", frame, 9)
        if parity == frame[-2] and frame[5:7] == b"\x04\x00" and math.isfinite(volts) and math.isfinite(amps):
            yield volts, amps, volts * amps


_SP3 = re.compile(
    rb"\d{10},\d{5},\d{4},\d{5},\d,(\d{5}),(\d{4}),(\d{5}),\d,[\da-f]{2},\d{5},\d{4},\d{5},\d,[\da-f]{2},"
)


def _valid_smartpower3(data: bytes) -> Iterator[Value]:
    for at in range(len(data) - 78):
        match = _SP3.match(data, at)
        if match is None:
            continue
        text, parity = data[at : at + 74], 0
        for byte in text:
            parity ^= byte
        if data[at + 74 : at + 79] == b"%02x,%02x" % (-sum(text) & 0xFF, parity):
            yield int(match[1]) / 1e3, int(match[2]) / 1e3, int(match[3]) / 1e3


def _encode_smartpower2(index: int, rng: random.Random) -> bytes:
    reading = _reading(index, rng)
    return f"{reading.voltage_v:.3f},{reading.current_a:.3f},{reading.power_w:.3f},{index / 1000:.3f}\r\n".encode()


def _valid_lines(data: bytes, columns: int) -> Iterator[list[float]]:
    for line in data.split(b"\n"):
        try:
            numbers = [float(text) for text in re.split(r"[,;\s]+", line.decode("ascii").strip())]
        except ValueError:
            continue
        if len(numbers) == columns and all(map(math.isfinite, numbers)) and b"_" not in line:
            yield numbers


def _valid_smartpower2(data: bytes) -> Iterator[Value]:
    for volts, amps, watts, _ in _valid_lines(data, 4):
        if abs(volts * amps - watts) <= 0.03 + 0.01 * watts:  # the chip's power has steps of 25 mW
            yield volts, amps, watts


def _valid_csv(data: bytes) -> Iterator[Value]:
    for _, volts, amps in _valid_lines(data, 3):
        yield volts, amps, volts * amps


def _encode_json(index: int, rng: random.Random) -> bytes:
    reading = _reading(index, rng)
    row = {"t_ms": 500 * index, "V": round(reading.voltage_v, 5), "A": round(reading.current_a, 5)}
    return json.dumps(row).encode() + b"\n"


def _valid_json(data: bytes) -> Iterator[Value]:
    for line in data.split(b"\n"):
        try:
            row = json.loads(line.decode("ascii"))
            volts, amps, _ = float(row["V"]), float(row["A"]), float(row["t_ms"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        yield volts, amps, volts * amps


def _valid_atorch(data: bytes) -> Iterator[Value]:
    for at in range(len(data) - 35):
        frame = data[at : at + 36]
        if frame[:3] == b"\xff\x55\x01" and frame[-1] == (sum(frame[2:-1]) & 0xFF) ^ 0x44 and frame[3] in (2, 3):
            scale_v, scale_a = (100, 100) if frame[3] == 3 else (10, 1000)
            volts, amps = int.from_bytes(frame[4:7], "big") / scale_v, int.from_bytes(frame[7:10], "big") / scale_a
            yield volts, amps, volts * amps


def _encode_hwmon(index: int, rng: random.Random) -> bytes:
    reading = _reading(index, rng)
    volts, amps = round(reading.voltage_v * 1e3), round(reading.current_a * 1e3)
    return f"in0_input 10\nin1_input {volts}\ncurr1_input {amps}\npower1_input {volts * amps}\n\n".encode()


def _valid_hwmon(data: bytes) -> Iterator[Value]:
    """Every voltage with every current that agrees with a power beside them: lines of two sets may have mixed."""
    lines = [line.split() for line in data.split(b"\n")]
    rows = {name: [int(w[1]) for w in lines if len(w) == 2 and w[0] == name and _whole(w[1])] for name in _HWMON}
    for volts in rows[b"in1_input"]:
        for amps in rows[b"curr1_input"]:
            yield volts / 1e3, amps / 1e3, volts / 1e3 * (amps / 1e3)


_HWMON = (b"in1_input", b"curr1_input", b"power1_input")


def _whole(text: bytes) -> bool:
    return re.fullmatch(rb"[+-]?\d+", text) is not None


def _encode_pmic(index: int, rng: random.Random) -> bytes:  # noqa: ARG001 - it has no time
    rows = [f"{rail + '_A':>15} current({k})={rng.uniform(0.01, 1):.8f}A" for k, rail in enumerate(_RAILS)]
    rows += [f"{rail + '_V':>15} volt({k + 12})={rng.uniform(0.8, 3.3):.8f}V" for k, rail in enumerate(_RAILS)]
    rows += ["        EXT5V_V volt(24)=5.06788000V", "         BATT_V volt(25)=3.01110800V", ""]
    return "\n".join(rows).encode()


_RAILS = ("3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS", "0V8_SW", "VDD_CORE", "3V3_DAC")
_RAILS += ("3V3_ADC", "0V8_AON", "HDMI")


_RAIL_LINE = re.compile(rb"(?m)^\r* *(\w+)_([AV]) +(?:current|volt)\(\d+\)=(-?\d+\.\d+)\2 *\r*$")


def _valid_pmic(data: bytes) -> Iterator[Value]:
    """The sets between two last lines; a damaged one counts when all its rails are there."""
    for text in data.split(b"BATT_V"):
        found: dict[tuple[bytes, bytes], float] = {}
        for rail, unit, number in _RAIL_LINE.findall(text):
            found[rail, unit] = float(number)
        amps = {rail for rail, unit in found if unit == b"A"}
        if len(amps) == len(_RAILS) and all((rail, b"V") in found for rail in amps):
            watts = sum(found[rail, b"A"] * found[rail, b"V"] for rail in amps)
            volts = found.get((b"EXT5V", b"V"), 0.0)
            if volts > 0:
                yield volts, watts / volts, watts


DRIVERS = (
    Driver("um24c", "um24c", lambda i, rng: um25c.encode(_reading(i, rng), 0x0963), _valid_um, timed=False),
    Driver("um25c", "um25c", lambda i, rng: um25c.encode(_reading(i, rng), 0x09C9), _valid_um, timed=False),
    Driver("um34c", "um34c", lambda i, rng: um25c.encode(_reading(i, rng), 0x0D4C), _valid_um, timed=False),
    Driver("tc66c", "tc66c", lambda i, rng: tc66c.encode(_reading(i, rng)), _valid_tc66c, timed=False),
    Driver("avhzy", "avhzy", lambda i, rng: avhzy.encode(_reading(i, rng, 1e-3)), _valid_avhzy),
    Driver("smartpower3", "smartpower3", lambda i, rng: smartpower3.encode(_reading(i, rng, 5e-3)), _valid_smartpower3),
    Driver("smartpower2", "smartpower2", _encode_smartpower2, _valid_smartpower2, timed=False),
    Driver("atorch", "atorch", lambda i, rng: atorch.encode(_reading(i, rng, 1.0)), _valid_atorch),
    Driver("csv", "csv", lambda i, rng: csv.encode(_reading(i, rng, 1e-2)), _valid_csv),
    Driver("csv-json", "csv?columns=t_ms,V,A", _encode_json, _valid_json),
    Driver("hwmon", "hwmon?name=ina226", _encode_hwmon, _valid_hwmon, timed=False),
    Driver("pi5-pmic", "pi5-pmic", _encode_pmic, _valid_pmic, timed=False),
)


# ---- PPK2: a stream without frames ----------------------------------------------------------------------------------

RUN = 60  # samples from one damage to the next
PIECE = 50  # damages fed at once
DAMAGED = 12  # of them, at their beginning
BACK = 40  # of them are enough to be back, damaged ones and those that the damage makes of them included
NEAR = 400  # samples; what is further away was not sent here


def fuzz_ppk2(count: int, seed: int = 0) -> Outcome:
    """Losses, insertions and doubled parts between runs of good samples: each sample's value says which one it is.

    Flips of bits are left out: nothing but the counter covers a sample.
    """
    rng, outcome = random.Random(f"ppk2 {seed}"), Outcome()
    target, step_a = Ppk2Decoder(block=1), float(Ppk2Decoder().feed_array(_samples(1, 1))[2][0])
    first, tail = 0, b""
    while outcome.cases < count:
        piece, ends = bytearray(), []
        for _ in range(min(PIECE, count - outcome.cases)):
            piece += displaced(_samples(first, RUN), rng)
            ends.append(first + RUN)
            first += RUN
        began = time.process_time()
        amps = [r.current_a for part in pieces(bytes(piece), rng) for r in target.feed(part)]
        outcome.slowest_s = max(outcome.slowest_s, time.process_time() - began)
        found = np.rint(np.array(amps) / step_a).astype(np.int64)
        last = np.array(ends) - 2  # the very last sample waits for the next one
        back = np.isin((last[:, None] - np.arange(RUN - BACK)) % STEPS, found).all(axis=1)
        ahead = (found - (ends[0] - RUN) + NEAR) % STEPS
        strange = ahead > PIECE * RUN + 2 * NEAR
        if strange.any():
            outcome.wrong += int(strange.sum())
            # Each may come with another range, whose change is smeared over the next three samples.
            begin = ends[0] - 2 * RUN
            outcome.shown += max(0, int(strange.sum()) - 4 * _followed(bytes(tail + piece), begin, ends[-1] - begin))
        tail = bytes(piece[-4 * RUN :])
        outcome.cases += len(ends)
        outcome.lost += int((~back).sum())
    return outcome


def _followed(data: bytes, first: int, count: int) -> int:
    """How many words that nobody sent have a counter that its neighbour's follows: nothing in them shows the damage."""
    raw = np.frombuffer(data, np.uint8).astype(np.int64)
    counter, low = raw[2:-1] >> 2, raw[:-3] | raw[1:-2] << 8 | (raw[2:-1] & 3) << 16
    follows = (counter[4:] - counter[:-4] & 63) == 1
    beside = np.zeros(len(low), bool)
    beside[4:] |= follows
    beside[:-4] |= follows
    sent = (low >> 14 == 3) & ((low - first) % STEPS < count)
    return int((beside & ~sent).sum())


STEPS = 1 << 14  # of the ADC


def _samples(first: int, count: int) -> bytes:
    """Sample n has the ADC value n mod 2^14, all in one range."""
    number = np.arange(first, first + count)
    return (number % STEPS | 3 << 14 | (number & 63) << 18).astype("<u4").tobytes()


def displaced(data: bytes, rng: random.Random) -> bytes:
    """One to three losses, insertions or doubled parts within the first samples."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, size = rng.randrange(4 * DAMAGED), rng.randint(1, 9)
        change = rng.randrange(3)
        if change == 0:
            del out[at : at + size]
        elif change == 1:
            out[at:at] = rng.randbytes(size)
        else:
            out[at:at] = out[at : at + size]
    return bytes(out)


def main(full: bool = False) -> None:
    count = COUNT_FULL if full else COUNT_SHORT
    print(f"{count} cases for each driver; shown and lost must be 0")
    report(count, [*(driver.name for driver in DRIVERS), "ppk2"])


def report(count: int, names: Sequence[str], seed: int = 0) -> bool:
    record, good = {}, True
    for name in names:
        driver = next((driver for driver in DRIVERS if driver.name == name), None)
        outcome = fuzz_ppk2(count, seed) if driver is None else fuzz(driver, count, seed)
        print(f"  {name:12} {outcome}", flush=True)
        for example in outcome.examples:
            print(f"    {example}")
        record[name] = {key: value for key, value in vars(outcome).items() if key != "examples"}
        good = good and outcome.good
    keep(f"fuzz-{names[0]}-{seed}" if len(names) == 1 else "fuzz", record)
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    parser.add_argument("--driver", choices=[*(driver.name for driver in DRIVERS), "ppk2"])
    parser.add_argument("--count", type=int, default=COUNT_SHORT)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = [options.driver] if options.driver else [*(driver.name for driver in DRIVERS), "ppk2"]
    raise SystemExit(0 if report(options.count, chosen, options.seed) else 1)
