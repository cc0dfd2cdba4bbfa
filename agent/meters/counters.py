"""The meter's own energy counter against the sum of its samples."""

from __future__ import annotations

from agent.meters.base import Reading

STEP_J = 3.6  # 1 mWh, the finest counter
STEPS = 20  # of the counter before the two are compared
REL_SLACK = 0.03
GAP_S = 5.0  # a hole in the samples begins the comparison again


class EnergyCheck:
    """Adds up power over time while the counter runs; a changed group, a counter set back and a hole begin again."""

    def __init__(self) -> None:
        self._last: tuple[int, Reading] | None = None
        self._first_j = 0.0
        self._integral_j = 0.0
        self._step_j = 0.0  # the counter's resolution as seen

    def add(self, t_ns: int, reading: Reading) -> None:
        counter_j = reading.energy_j
        if counter_j is None:
            return
        last, self._last = self._last, (t_ns, reading)
        if last is None or last[1].energy_j is None:
            self._first_j, self._integral_j = counter_j, 0.0
            return
        passed_s = (t_ns - last[0]) * 1e-9
        moved_j = counter_j - last[1].energy_j
        if passed_s > GAP_S or moved_j < 0 or reading.group != last[1].group:
            self._first_j, self._integral_j = counter_j, 0.0
            return
        self._integral_j += passed_s * (reading.power_w + last[1].power_w) / 2
        if moved_j > 0:
            self._step_j = max(STEP_J, min(moved_j, self._step_j or moved_j))

    @property
    def counted_j(self) -> float:
        """What the counter says that has passed."""
        return 0.0 if self._last is None or self._last[1].energy_j is None else self._last[1].energy_j - self._first_j

    def disagreement(self) -> str:
        """A sentence when counter and samples disagree; empty when they agree or too little has passed."""
        if self.counted_j < STEPS * self._step_j or not self._step_j:
            return ""
        if abs(self.counted_j - self._integral_j) <= REL_SLACK * self._integral_j + 2 * self._step_j:
            return ""
        return f"the meter's energy counter says {self.counted_j:.0f} J, its samples {self._integral_j:.0f} J"
