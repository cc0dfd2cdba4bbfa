"""Performs a lease: the rounds of a latency task, or the windows of an energy task with the meter running.

Every round, and about every CHUNK_S of an energy trace, becomes one measurement, stored before the next begins. Flagged
rounds are kept, marked and repeated, and so are energy windows in which the meter was silent. A runner that fails is
asked again, MAX_FAILURES times in a task.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from agent.energy import Step, schedule
from agent.host import flags_of, hot_limit_c
from agent.metering import Meters
from agent.meters import Meter
from agent.runner import Runner, RunnerError, UnfitError
from agent.watch import SampleWatch
from protos.errors import BadInputError
from protos.ids import new_id
from protos.types import (
    HostState,
    LatencyRound,
    Lease,
    Measurement,
    MeterSamples,
    PowerTrace,
    PowerWindow,
    RunSpec,
)

log = logging.getLogger(__name__)

MAX_FAILURES = 3
REPEAT_SHARE = 0.5  # of a task's rounds or windows: so many flagged or hurt ones are repeated
CHUNK_S = 20.0  # of device time: what a crash of the board can cost, and what one message holds
SILENT_S = 10.0  # without any sample: a trace ends there, and the task waits for the meter
METER_PATIENCE_S = 300.0  # for a meter that was unplugged, or lost its Bluetooth link
LEAST_REPEATS = 4
COOL_MARGIN_C = 5.0  # below hot
COOL_STEP_S = 5.0
COOL_LIMIT_S = 120.0  # in one task; a board that is no cooler then is measured hot, and its rounds say so


class Desk(Protocol):
    """What a task needs of the daemon."""

    async def store(self, measurement: Measurement) -> None:
        """Put it into the spool, waiting while that is full."""

    def show(self, activity: str, host: HostState | None = None, current_a: float | None = None) -> None:
        """What is going on, for the next status."""

    def halted(self) -> str:
        """Why to stop before the next round or window; empty: go on."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a task ended. reason: empty when it is complete. broken: this board should be left out for a while."""

    reason: str = ""
    broken: bool = False


class _HaltedError(Exception):
    """The task was told to stop."""


class _BrokenError(Exception):
    """The runner or the meter failed too often."""


async def perform(lease: Lease, runner: Runner, meters: Meters, desk: Desk) -> Outcome:
    """Do the task; what it measured is stored, whatever the outcome."""
    try:
        if lease.kind == "latency":
            await _LatencyTask(lease, runner, desk).perform()
        elif lease.kind == "energy":
            await _EnergyTask(lease, runner, desk, meters).perform()
        else:
            return Outcome(f"this agent does not know tasks of the kind {lease.kind!r}: update it")
    except (_HaltedError, UnfitError) as error:
        return Outcome(str(error))
    except (_BrokenError, BadInputError) as error:
        return Outcome(str(error), broken=True)
    return Outcome()


class _Task:
    """What both kinds share: failures, halts, cool-down, numbering."""

    def __init__(self, lease: Lease, runner: Runner, desk: Desk) -> None:
        self.lease = lease
        self.runner = runner
        self.desk = desk
        self._failures = 0
        self._sequence = 0
        self._cooled_s = 0.0
        self._hot_c: float | None = None

    @property
    def run(self) -> RunSpec:
        return self.lease.run

    def check(self) -> None:
        """Raises _HaltedError when the task must stop here."""
        reason = self.desk.halted()
        if reason:
            raise _HaltedError(reason)

    async def prepare(self) -> None:
        self.desk.show(f"building {self.run.space.name}")
        await self.runner.prepare(self.run)

    def failed(self, what: str, error: RunnerError) -> None:
        """Count a failure of the runner. Raises what ends the task, when it should."""
        self.check()  # a runner that was stopped together with the task has not failed
        if isinstance(error, UnfitError):
            raise error
        self._failures += 1
        log.warning("%s failed (%d of %d): %s", what, self._failures, MAX_FAILURES, error)
        if self._failures >= MAX_FAILURES:
            raise _BrokenError(f"{what} failed {MAX_FAILURES} times, last: {error}") from error

    async def hot_c(self) -> float:
        if self._hot_c is None:
            self._hot_c = hot_limit_c((await self.runner.facts()).machine)
        return self._hot_c

    async def cool(self) -> HostState:
        """The state now, after waiting for a board that is too warm."""
        limit_c = await self.hot_c() - COOL_MARGIN_C
        while True:
            state = await self.runner.state()
            if state.temp_c is None or state.temp_c < limit_c or self._cooled_s >= COOL_LIMIT_S:
                return state
            self.check()
            self.desk.show(f"waiting for {limit_c:.0f} °C", state)
            await self.runner.clock.sleep(COOL_STEP_S)
            self._cooled_s += COOL_STEP_S

    async def store(
        self,
        before: HostState,
        after: HostState,
        flags: tuple[str, ...],
        latency: LatencyRound | None = None,
        power: PowerTrace | None = None,
    ) -> None:
        measurement = Measurement(
            id=new_id(),
            task_id=self.lease.task_id,
            fence=self.lease.fence,
            sequence=self._sequence,
            before=before,
            after=after,
            flags=flags,
            latency=latency,
            power=power,
        )
        self._sequence += 1
        await self.desk.store(measurement)


class _LatencyTask(_Task):
    async def perform(self) -> None:
        count = self.run.plan.rounds_per_task
        repeats = max(1, int(count * REPEAT_SHARE))
        for index in range(self.lease.first_round, self.lease.first_round + count):
            flags = await self._round(index)
            while flags and repeats:
                repeats -= 1
                log.info("round %d was %s: repeated", index, ", ".join(flags))
                flags = await self._round(index)

    async def _round(self, index: int) -> tuple[str, ...]:
        """Measure and store one round, whatever it takes; its flags."""
        while True:
            self.check()
            try:
                await self.prepare()
                before = await self.cool()
                self.desk.show(f"latency round {index}", before)
                result = await self.runner.latency_round(self.lease, index)
                after = await self.runner.state()
                break
            except RunnerError as error:
                self.failed(f"latency round {index}", error)
        flags = flags_of(before, after, await self.hot_c())
        await self.store(before, after, flags, latency=result)
        return flags


@dataclass
class _Chunk:
    """What has come since the last stored part of a trace."""

    started_ns: int
    before: HostState
    windows: list[PowerWindow] = field(default_factory=list)
    samples: list[MeterSamples] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def take(self, meter: Meter) -> float | None:
        """Fetch the meter's samples; its last current."""
        samples, losses = meter.take()
        self.samples.append(samples)
        self.losses += losses
        return samples.current_a[-1] if samples.current_a else None


class _EnergyTask(_Task):
    def __init__(self, lease: Lease, runner: Runner, desk: Desk, meters: Meters) -> None:
        super().__init__(lease, runner, desk)
        self._meters = meters
        self._windows = 0
        self._repeats = 0  # windows that may still be measured again
        self._losses: list[str] = []  # what the next stored part of the trace must say

    async def perform(self) -> None:
        """The steps of this task's segment; a failure of the runner ends one trace and begins another."""
        run = self.run
        try:
            steps = deque(schedule(run.plan, len(run.items), len(run.networks), run.seed, self.lease.first_round))
        except ValueError as error:
            raise UnfitError(f"this energy task has no schedule: {error}") from error
        opening = steps[0]
        self._repeats = max(LEAST_REPEATS, int(len(steps) * REPEAT_SHARE))
        while steps:
            self.check()
            try:
                await self.prepare()
                await self.cool()
                async with self._meters.running(run.meter) as meter:
                    while await self._trace(steps, meter):
                        await self._wait_for(meter)
                        steps.appendleft(opening)  # every trace begins with a baseline
            except RunnerError as error:
                self.failed(f"energy window {self._windows}", error)
                if steps and steps[0] != opening:
                    steps.appendleft(opening)

    async def _trace(self, steps: deque[Step], meter: Meter) -> bool:
        """Perform the steps until none is left or the meter is silent; whether it was. What was done is stored also
        when it is interrupted.
        """
        segment_id, number, silent = uuid.uuid4().hex, 0, False
        chunk = _Chunk(self.runner.clock.now_ns(), await self.runner.state())
        watch = SampleWatch(meter.info.rate_hz, chunk.started_ns)
        try:
            while steps and not silent:
                self.check()
                windows = await self._window(steps[0])
                chunk.windows += windows
                step = steps.popleft()
                self.desk.show(self._doing(steps[0]) if steps else "closing the trace", current_a=chunk.take(meter))
                watch.add(chunk.samples[-1].t_ns)
                self._judge(step, windows[-1], watch, steps)
                silent = bool(steps) and watch.silent_s(self.runner.clock.now_ns()) > SILENT_S
                if self.runner.clock.now_ns() - chunk.started_ns >= CHUNK_S * 1e9:
                    chunk, number = await self._stored(chunk, segment_id, number, meter), number + 1
        finally:
            chunk.take(meter)
            if chunk.windows:
                await self._stored(chunk, segment_id, number, meter)
        return silent

    def _judge(self, step: Step, window: PowerWindow, watch: SampleWatch, steps: deque[Step]) -> None:
        """A load whose window lost much of its samples is measured again, before the closing idle."""
        if step.subject == "idle" or not self._repeats or not watch.hurts(window):
            return
        self._repeats -= 1
        steps.insert(len(steps) - 1, step)
        self._losses.append(
            f"{step.subject} {step.index} is measured again: no value for {watch.blind_s(window):.1f} s of its window"
        )
        log.warning("energy window %d: %s", self._windows, self._losses[-1])

    async def _wait_for(self, meter: Meter) -> None:
        """Wait until the meter speaks again. Raises _BrokenError when it does not."""
        clock = self.runner.clock
        deadline_ns = clock.now_ns() + int(METER_PATIENCE_S * 1e9)
        while clock.now_ns() < deadline_ns:
            self.check()
            self.desk.show("waiting for the meter")
            samples, losses = meter.take()
            self._losses += losses
            if samples.t_ns:
                return
            await clock.sleep(1.0)
        last = f" ({self._losses[-1]})" if self._losses else ""
        raise _BrokenError(
            f"the meter at {meter.info.port} said nothing for {METER_PATIENCE_S:.0f} s{last}; is it switched on and in "
            "its port?"
        )

    async def _window(self, step: Step) -> tuple[PowerWindow, ...]:
        self._windows += 1
        if step.subject == "idle":
            return (await self.runner.idle(step.duration_s),)
        return await self.runner.load(step.subject, step.index, step.duration_s)

    def _doing(self, step: Step) -> str:
        if step.subject == "idle":
            return f"energy window {self._windows}: idle"
        return f"energy window {self._windows}: {step.subject} {step.index}"

    async def _stored(self, chunk: _Chunk, segment_id: str, number: int, meter: Meter) -> _Chunk:
        """Store the chunk; the next one."""
        after = await self.runner.state()
        # Under most governors the frequency follows the load, which is what is measured: no flag here.
        flags = tuple(flag for flag in flags_of(chunk.before, after, await self.hot_c()) if flag != "frequency")
        samples = _joined(chunk.samples)
        trace = PowerTrace(
            segment_id, number, tuple(chunk.windows), samples, meter.info, tuple(chunk.losses + self._losses)
        )
        self._losses.clear()
        await self.store(chunk.before, after, flags, power=trace)
        return _Chunk(self.runner.clock.now_ns(), after)


def _joined(parts: list[MeterSamples]) -> MeterSamples:
    """The columns one after another; temperatures only when all parts have them."""
    parts = [part for part in parts if part.t_ns]
    temps = all(part.temp_c for part in parts)
    return MeterSamples(
        t_ns=tuple(t for part in parts for t in part.t_ns),
        voltage_v=tuple(v for part in parts for v in part.voltage_v),
        current_a=tuple(a for part in parts for a in part.current_a),
        power_w=tuple(w for part in parts for w in part.power_w),
        fresh=tuple(f for part in parts for f in part.fresh),
        temp_c=tuple(c for part in parts for c in part.temp_c) if temps else (),
    )
