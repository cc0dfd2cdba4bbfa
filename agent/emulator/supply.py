"""What a meter is connected to: the true voltage and current at its terminals."""

from __future__ import annotations

from typing import Protocol


class Supply(Protocol):
    """The true supply of a board over device time; asked for in order, never twice for the same moment."""

    def sample(self, start_s: float, stop_s: float, step_s: float) -> tuple[list[float], list[float]]:
        """Instantaneous (voltage_v, current_a) at start_s + i · step_s, for every i from 0 below
        round((stop_s - start_s) / step_s).
        """
        ...
