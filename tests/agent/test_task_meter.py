"""What an energy task does when its meter is silent for a while, and that a latency task never touches it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace

from agent.emulator.meter import InMemoryMeter, MeterModel, MeterSettings
from agent.metering import Meters
from agent.meters import Clock, Meter
from agent.task import METER_PATIENCE_S, Outcome, perform
from protos.types import Lease, MeterInfo, MeterSamples, PowerWindow
from tests.agent.spaces import lease_of, tiny_run, wait
from tests.agent.test_task import METER, Board, Desk, energy_run


class FadingMeter:
    """A meter in memory whose samples between the times in `gaps` never came; it counts how often it is started."""

    def __init__(self, inner: InMemoryMeter, gaps: Sequence[tuple[float, float]]) -> None:
        self._inner = inner
        self._gaps_ns = [(round(a * 1e9), round(b * 1e9)) for a, b in gaps]
        self.started = 0
        self.taken = 0

    @property
    def info(self) -> MeterInfo:
        return self._inner.info

    def start(self) -> None:
        self.started += 1
        self._inner.start()

    def stop(self) -> None:
        self._inner.stop()

    def take(self) -> tuple[MeterSamples, tuple[str, ...]]:
        self.taken += 1
        samples, losses = self._inner.take()
        here = [not any(a <= t < b for a, b in self._gaps_ns) for t in samples.t_ns]
        columns = {f.name: getattr(samples, f.name) for f in fields(samples)}
        kept = {
            name: tuple(x for x, keep in zip(column, here, strict=True) if keep)
            for name, column in columns.items()
            if column
        }
        return replace(MeterSamples(), **kept), losses if all(here) else (*losses, "the link broke")

    def close(self) -> None:
        self._inner.close()


def performed(lease: Lease, desk: Desk, gaps: Sequence[tuple[float, float]] = ()) -> tuple[Outcome, FadingMeter, Board]:
    board = Board()
    made: list[FadingMeter] = []

    def opened(_: str, clock: Clock) -> Meter:
        made.append(FadingMeter(InMemoryMeter(MeterModel(board.device.supply, MeterSettings(seed=1)), clock), gaps))
        return made[-1]

    async def work() -> Outcome:
        meters = Meters(METER, board.clock, opener=opened)
        await meters.look()
        return await perform(lease, board, meters, desk)

    outcome = wait(work())
    return outcome, made[0], board


def loads_of(desk: Desk) -> Counter[tuple[str, int]]:
    return Counter((w.subject, w.index) for w in windows_of(desk) if w.subject in ("item", "network"))


def windows_of(desk: Desk) -> list[PowerWindow]:
    return [window for m in desk.stored if m.power for window in m.power.windows]


def test_a_window_without_samples_is_measured_again() -> None:
    usual, hurt = Desk(), Desk()
    performed(energy_run(), usual)
    undisturbed = [w for w in windows_of(usual) if w.subject == "item"]
    victim = undisturbed[len(undisturbed) // 2]
    gap = (victim.started_ns * 1e-9 - 0.5, victim.ended_ns * 1e-9 + 0.2)
    outcome, _, _ = performed(energy_run(), hurt, [gap])
    assert outcome == Outcome()
    again = loads_of(hurt) - loads_of(usual)
    assert again[("item", victim.index)] == 1
    assert sum(again.values()) <= 3  # its neighbours, if the gap reached them
    words = [loss for m in hurt.stored if m.power for loss in m.power.losses]
    assert any(f"item {victim.index} is measured again: no value for" in text for text in words)
    assert windows_of(hurt)[-1].subject == "idle"
    assert len({m.power.segment_id for m in hurt.stored if m.power}) == 1


def test_a_meter_that_was_unplugged_is_waited_for_and_the_trace_begins_anew() -> None:
    usual, desk = Desk(), Desk()
    performed(energy_run(), usual)
    outcome, _, board = performed(energy_run(), desk, [(20.0, 80.0)])
    assert outcome == Outcome()
    assert "waiting for the meter" in desk.shown
    segments = list(dict.fromkeys(m.power.segment_id for m in desk.stored if m.power))
    assert len(segments) == 2
    second = [w for m in desk.stored if m.power and m.power.segment_id == segments[1] for w in m.power.windows]
    assert second[0].subject == "idle"
    assert second[0].started_ns >= 79e9
    assert not loads_of(usual) - loads_of(desk)  # every load has its window, and the hurt ones a second
    seen = [t * 1e-9 for m in desk.stored if m.power for t in m.power.samples.t_ns]
    assert not any(20.0 <= t < 80.0 for t in seen)
    assert board.clock.now_ns() < 200e9


def test_a_meter_that_stays_away_ends_the_task_with_its_last_words() -> None:
    desk = Desk()
    outcome, _, board = performed(energy_run(), desk, [(20.0, 1e6)])
    assert outcome.broken
    assert f"said nothing for {METER_PATIENCE_S:.0f} s (the link broke); is it switched on" in outcome.reason
    assert windows_of(desk)
    assert board.clock.now_ns() < (20 + 60 + METER_PATIENCE_S + 60) * 1e9


def test_repeats_have_an_end() -> None:
    """A meter that loses half of its time costs half of the windows again, not an endless task."""
    desk = Desk()
    outcome, _, board = performed(energy_run(), desk, [(t, t + 2.0) for t in range(0, 4000, 4)])
    assert outcome == Outcome()
    assert board.clock.now_ns() < 60e9 * 2


def test_the_meter_is_quiet_while_latency_is_timed() -> None:
    desk = Desk()
    outcome, meter, _ = performed(lease_of(replace(tiny_run(rounds_per_task=3), meter="")), desk)
    assert outcome == Outcome()
    assert len([m for m in desk.stored if m.latency]) == 3
    assert (meter.started, meter.taken) == (0, 0)
    outcome, meter, _ = performed(energy_run(), desk)
    assert outcome == Outcome()
    assert meter.started == 1
