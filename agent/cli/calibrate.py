"""`edgelut-agent calibrate`: the busy and idle square wave, and what it says of the meter."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path

from agent.calibration_store import CalibrationStore, MeterKey, identified
from agent.cli.opened import Recording, opened
from agent.load import Load
from agent.meters import Meter
from protos.errors import BadInputError
from protos.types import Calibration, MeterInfo

LEAD_S = 6.0  # the idle board before the first edge
HALF_S = (2.0, 6.0)  # of the wave: unequal, so that edges meet every phase of the meter's clock
LONG_S, LONG_EVERY = 10.0, 4  # and some long ones, which show a slow meter's end
FULL_S = 60.0  # shorter waves have shorter parts
TICK_S = 0.2
LEAST_COVERED = 0.8  # share of the time with values
LEAST_LOAD_SHARE = 0.95
LEAST_SURE_S, SURE_SHARE = 0.02, 0.3  # of the lag's 95 % half-width: absolute, and of the update period
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Half:
    """A stretch of the square wave."""

    busy: bool
    duration_s: float


def wave(duration_s: float, seed: int) -> list[Half]:
    """Idle, then busy and idle in turn, idle at the end; as long as `duration_s` in sum."""
    rng = random.Random(f"wave {seed}")
    scale = min(1.0, duration_s / FULL_S)
    halves = [Half(False, min(LEAD_S * scale, duration_s / 8))]
    left_s = duration_s - halves[0].duration_s
    while left_s > 0:
        busy = not halves[-1].busy
        long = len(halves) % LONG_EVERY == 0
        half_s = scale * (LONG_S if long else rng.uniform(*HALF_S))
        if left_s < half_s + HALF_S[0] * scale:
            half_s = left_s
        if half_s == left_s and busy:  # the last stretch is idle: cut the busy one in two
            halves += [Half(True, half_s / 2), Half(False, half_s / 2)]
        else:
            halves.append(Half(busy, half_s))
        left_s -= half_s
    return halves


def main(options: argparse.Namespace) -> int:
    """Exit status 0; 130 after Ctrl-C, when nothing is stored."""
    threads = options.threads or default_threads()
    halves = wave(options.duration, seed=random.randrange(1 << 32))
    store = CalibrationStore(options.calibrations)
    store.prepare()
    load = Load(threads)
    try:
        with opened(options.meter, load.pid) as meter:
            say = _progress(options)
            say(f"{_name(meter.info)}: {options.duration:g} s of load and rest in turn, on {_cores(threads)}")
            done = perform(meter, load, halves, threads, say)
            info = meter.info
    except KeyboardInterrupt:
        print("\nedgelut-agent: stopped; nothing is stored", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        load.close()
    found, path = concluded(done, info, options.meter, store)
    if options.json:
        print(json.dumps(document(found, info, path, done), indent=2))
    else:
        print(report(found, info, path, done, threads))
    return 0


def default_threads() -> int:
    """All cores but one, which reads the meter."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


@dataclass(frozen=True)
class Performance:
    """A square wave that was made: what the meter said, the edges (s, load from then on, 1 is all threads), and the
    share of the busy time in which the load really ran.
    """

    recording: Recording
    edges: list[tuple[float, float]]
    load_share: float


@dataclass(frozen=True)
class Tick:
    """A part of a stretch: when it began (s), and how much of the load ran in it."""

    since_s: float
    level: float


def perform(
    meter: Meter, load: Load, halves: Sequence[Half], threads: int, say: Callable[[str, float], None]
) -> Performance:
    """Make the wave while the meter is read."""
    recording = Recording()
    edges: list[tuple[float, float]] = []
    total_s = sum(half.duration_s for half in halves)
    passed_s = busy_s = 0.0
    load.idle()
    used_s = load.used_s
    meter.start()
    try:
        for index, half in enumerate(halves):
            since_s = (load.busy(threads) if half.busy else load.idle()) * 1e-9
            ticks: list[Tick] = []
            for share in _ticks(meter, load, half, threads, since_s, recording, ticks):
                say("loaded" if half.busy else "at rest", min((passed_s + share * half.duration_s) / total_s, 1.0))
            if index:
                edges += edges_of(half, ticks)
            passed_s += half.duration_s
            busy_s += half.duration_s if half.busy else 0.0
    finally:
        load.idle()
        meter.stop()
        recording.take(meter)
    return Performance(recording, edges, (load.used_s - used_s) / (busy_s * threads))


def _ticks(
    meter: Meter, load: Load, half: Half, threads: int, since_s: float, recording: Recording, ticks: list[Tick]
) -> Iterator[float]:
    """Wait for a stretch to pass; enters what the load did meanwhile, and gives the share that has passed."""
    end_s = since_s + half.duration_s
    used_s = load.used_s
    while since_s < end_s:
        time.sleep(min(TICK_S, max(end_s - time.perf_counter(), 0.001)))
        recording.take(meter)
        now_s, now_used_s = time.perf_counter(), load.used_s
        ticks.append(Tick(since_s, (now_used_s - used_s) / ((now_s - since_s) * threads)))
        since_s, used_s = now_s, now_used_s
        yield 1 - max(end_s - since_s, 0.0) / half.duration_s


def edges_of(half: Half, ticks: Sequence[Tick]) -> list[tuple[float, float]]:
    """One edge where the load ran as it should, else one for every tick: on a board that others use too, the wave is
    what the load really got.
    """
    if not half.busy:
        return [(ticks[0].since_s, 0.0)]
    if sum(tick.level for tick in ticks) >= LEAST_LOAD_SHARE * len(ticks):
        return [(ticks[0].since_s, 1.0)]
    return [(tick.since_s, tick.level) for tick in ticks]


def concluded(done: Performance, info: MeterInfo, spec: str, store: CalibrationStore) -> tuple[Calibration, Path]:
    """Estimate and store. Raises BadInputError when the samples do not carry a calibration; then nothing is stored."""
    from agent.calibration import estimate

    recording = done.recording
    _check_covered(recording, done.edges)
    found = estimate(recording.times_s, recording.power_w, done.edges, recording.fresh)
    found = identified(
        replace(
            found,
            idle_a=_idle_current_a(recording, done.edges, found),
            measured_wall_s=time.time(),
            firmware=info.firmware,
            edgelut_version=metadata.version("edgelut"),
        )
    )
    return found, store.save(MeterKey.of(spec, info), info.model, found)


def doubts(found: Calibration, done: Performance) -> list[str]:
    """What speaks against trusting the calibration."""
    words = []
    if done.load_share < LEAST_LOAD_SHARE:
        words.append(
            f"the load ran only {done.load_share:.0%} of its time, because other programs ran too. For a surer lag end "
            "them and calibrate again"
        )
    if found.lag_se_s is not None and 1.96 * found.lag_se_s > max(LEAST_SURE_S, SURE_SHARE * found.update_period_s):
        words.append("the lag is not known well: calibrate again, for longer (--duration)")
    return words


def _check_covered(recording: Recording, edges: Sequence[tuple[float, float]]) -> None:
    """A wave with holes may have them at its edges."""
    times_s = [t for t, fresh in zip(recording.times_s, recording.fresh, strict=True) if fresh]
    lost = "; ".join(f"{n} × {words}" for words, n in recording.losses.most_common(3))
    if len(times_s) < 2:
        raise BadInputError(f"the meter gave {len(times_s)} values during the wave ({lost or 'and nothing else'}).")
    gaps_s = sorted(b - a for a, b in pairwise(times_s))
    usual_s = gaps_s[len(gaps_s) // 2]
    holes_s = sum(gap for gap in gaps_s if gap > 4 * usual_s)
    begun_s, ended_s = edges[0][0], edges[-1][0]
    holes_s += max(0.0, times_s[0] - begun_s) + max(0.0, ended_s - times_s[-1])
    whole_s = ended_s - begun_s
    if holes_s > (1 - LEAST_COVERED) * whole_s:
        raise BadInputError(
            f"the meter was silent for {holes_s:.0f} s of {whole_s:.0f} s ({lost or 'without a reason'}). Nothing is "
            "stored; mend the link and calibrate again."
        )


def _idle_current_a(recording: Recording, edges: Sequence[tuple[float, float]], found: Calibration) -> float | None:
    """Mean current of settled values of the idle board."""
    values = []
    number = 0
    for t_s, current_a, fresh in zip(recording.times_s, recording.current_a, recording.fresh, strict=True):
        while number < len(edges) and edges[number][0] <= t_s:
            number += 1
        busy = number > 0 and edges[number - 1][1] > 0
        settled = number == 0 or t_s - edges[number - 1][0] > 1.5 * found.settling_s
        if fresh and settled and not busy:
            values.append(current_a)
    return sum(values) / len(values) if values else None


# ---- what is said ---------------------------------------------------------------------------------------------------


def document(found: Calibration, info: MeterInfo, path: Path, done: Performance) -> dict[str, object]:
    recording = done.recording
    return {
        "meter": asdict(replace(info, calibration=None)),
        "calibration": asdict(found),
        "path": str(path),
        "samples": len(recording.t_ns),
        "fresh": sum(recording.fresh),
        "losses": dict(recording.losses),
        "load_share": done.load_share,
        "doubts": doubts(found, done),
    }


def report(found: Calibration, info: MeterInfo, path: Path, done: Performance, threads: int) -> str:
    """For people."""
    error = "" if found.lag_se_s is None else f" ± {1.96 * found.lag_se_s:.3f}"
    amps = "" if found.idle_a is None else f", {found.idle_a:.4f} A"
    rate = f", {1 / found.update_period_s:.3g} Hz" if found.update_period_s else ""
    rows = [
        ("lag", f"{found.lag_s:.3f}{error} s", "its values are so much later than the truth, on average"),
        ("settling", f"{found.settling_s:.2f} s", "after a step, until values stay within 5 % of it"),
        ("new values", f"every {found.update_period_s:.4g} s{rate}", "as seen, not as promised"),
        ("noise", f"{found.noise_w * 1e3:.1f} mW", "standard deviation of one new value, board at rest"),
        ("at rest", f"{found.idle_w:.3f} W{amps}", "the meter's own offset included"),
        ("step", f"{found.step_w:.3f} W", f"{_cores(threads)} busy"),
    ]
    width = max(len(value) for _, value, _ in rows)
    lines = [f"{_name(info)}, {found.cycles} cycles in {found.duration_s:.0f} s"]
    lines += [f"  {name:<11} {value:<{width}}  {what}" for name, value, what in rows]
    lines += [f"  lost: {times} × {words}" for words, times in done.recording.losses.most_common()]
    lines += [f"  beware: {words}." for words in doubts(found, done)]
    return "\n".join([*lines, f"Stored as {found.id} in {path}"])


def _name(info: MeterInfo) -> str:
    serial = f" no. {info.serial}" if info.serial else ""
    emulated = " (emulated)" if info.emulated else ""
    return f"{info.model or info.kind}{serial}{f' at {info.port}' if info.port else ''}{emulated}"


def _cores(threads: int) -> str:
    return "one core" if threads == 1 else f"{threads} cores"


def _progress(options: argparse.Namespace) -> Callable[..., None]:
    """Says on standard error what goes on: a line that changes on a terminal, elsewhere the first alone."""

    def say(words: str, share: float | None = None) -> None:
        if share is None:
            print(words, file=sys.stderr, flush=True)
        elif sys.stderr.isatty():
            done = round(30 * share)
            end = "\n" if share >= 1 else ""
            print(f"\r  {'━' * done}{'╌' * (30 - done)} {share:4.0%}  {words:<8}", end=end, file=sys.stderr, flush=True)

    return (lambda *_: None) if options.json else say
