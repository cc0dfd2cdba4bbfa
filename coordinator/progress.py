"""What a run has gathered, counted as it comes in, and the run as an operator sees it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from coordinator.schedule import Tally, TaskView, eta_s
from lut_store.store import RunRecord, Store
from protos import common_pb2, raw_pb2
from protos.types import ENDED_STATES, DeviceActivity, OperatorProgress, Run, RunSpec


class LookResult(Protocol):
    """What lut_store.estimate.latency.look gives: per item, n and the relative half-width (NaN: not known yet)."""

    @property
    def n(self) -> Iterable[int]: ...
    @property
    def rel_halfwidth(self) -> Iterable[float]: ...


def counted(tally: Tally, measurements: Iterable[common_pb2.Measurement | raw_pb2.Measurement]) -> Tally:
    """`tally` with more measurements. Device time counts whether or not a round is flagged."""
    rounds = flagged = latency_ns = energy_ns = 0
    for message in measurements:
        if message.HasField("latency"):
            latency = message.latency
            rounds += 1
            flagged += bool(message.flags)
            latency_ns += latency.ended_ns - latency.started_ns
        elif windows := message.power.windows:
            energy_ns += max(w.ended_ns for w in windows) - min(w.started_ns for w in windows)
    return replace(
        tally,
        rounds=tally.rounds + rounds - flagged,
        rounds_flagged=tally.rounds_flagged + flagged,
        latency_device_s=tally.latency_device_s + latency_ns * 1e-9,
        energy_device_s=tally.energy_device_s + energy_ns * 1e-9,
    )


def looked(tally: Tally, look: LookResult, rounds: int) -> Tally:
    """`tally` after a look at its first `rounds` clean rounds."""
    widths = tuple(float(width) if math.isfinite(width) else None for width in look.rel_halfwidth)
    return replace(tally, looked_rounds=rounds, rel_halfwidths=widths)


@dataclass
class _Rate:
    """How much device time passes per second: an emulated board may run faster than the clock on the wall."""

    began_s: float = 0.0
    began_device_s: float = 0.0

    def per_s(self, device_s: float, now_s: float, boards: int) -> float:
        if now_s > self.began_s and device_s > self.began_device_s:
            return (device_s - self.began_device_s) / (now_s - self.began_s)
        return float(boards)


@dataclass
class ActiveRun:
    """A run that this coordinator drives. What matters of it is in the database; the rest is for display."""

    run_id: str
    spec: RunSpec
    state: str
    created_wall_s: float
    reason: str = ""
    tasks: dict[str, TaskView] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    item_n: tuple[int, ...] = ()
    emulation: str | None = None  # of the boards that have worked for it
    left_out: str = ""  # a sentence about boards that may not take part
    waits_for: str = ""
    lut_digest: str = ""
    lut_reference: str = ""
    report: str = ""
    job: asyncio.Task[None] | None = None  # a look or a build under way
    rate: _Rate = field(default_factory=_Rate)

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    def begin_phase(self, now_s: float) -> None:
        """Measure the rate of device time anew: phases differ in it."""
        self.rate = _Rate(now_s, self._device_s)

    @property
    def _device_s(self) -> float:
        return self.tally.latency_device_s + self.tally.energy_device_s

    def view(self, devices: tuple[DeviceActivity, ...], now_s: float) -> Run:
        """The run with its progress; `devices` are those that hold its leases."""
        rate = self.rate.per_s(self._device_s, now_s, len(devices))
        widths = self.tally.rel_halfwidths
        operators = tuple(
            OperatorProgress(item, n, widths[item] if item < len(widths) else None)
            for item, n in enumerate(self.item_n)
        )
        notes = [self.reason] if self.ended else [self.reason, "" if devices else self.waits_for, self.left_out]
        return Run(
            run_id=self.run_id,
            state=self.state,
            reason="; ".join(note for note in notes if note),
            spec=self.spec,
            created_wall_s=self.created_wall_s,
            latency_device_s=self.tally.latency_device_s,
            energy_device_s=self.tally.energy_device_s,
            rounds=self.tally.rounds,
            rounds_flagged=self.tally.rounds_flagged,
            rel_halfwidth=self.tally.worst_rel_halfwidth,
            eta_s=eta_s(self.spec, self.state, self.tally, rate),
            operators=operators,
            devices=devices,
            lut_digest=self.lut_digest,
            lut_reference=self.lut_reference,
            report=self.report,
        )


def restored(store: Store, record: RunRecord) -> ActiveRun:
    """The run as the store has it: what it needs to go on after a restart, or to be shown after its end."""
    run = ActiveRun(record.run_id, record.spec, record.state, record.created_wall_s, record.reason)
    run.lut_digest, run.lut_reference = record.lut_digest, record.lut_reference
    run.tasks = tasks_of(store, run.run_id)
    for kind in ("latency", "power"):
        run.tally = counted(run.tally, store.messages(run.run_id, kind))
    emulation = {device.name: device.emulation for device in store.devices()}
    worked = sorted(task.device for task in run.tasks.values() if task.device in emulation)
    run.emulation = emulation[worked[0]] if worked else None
    return run


def tasks_of(store: Store, run_id: str) -> dict[str, TaskView]:
    return {
        task.task_id: TaskView(task.task_id, task.kind, task.state, task.device, task.attempts, task.reason, task.fence)
        for task in store.tasks(run_id)
    }
