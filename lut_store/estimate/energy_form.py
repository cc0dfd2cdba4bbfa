"""From powers or currents above idle to what an energy is the product of: two formulas, one estimate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lut_store.estimate.energy import Array, PowerEstimate
from lut_store.estimate.settings import HANNA, HANNA_VOLTAGE_V


@dataclass(frozen=True, eq=False)
class Drawn:
    """Watts above idle, and their standard errors: items (I,) and networks (M,); NaN where nothing was seen."""

    item_w: Array
    item_se_w: Array
    network_w: Array
    network_se_w: Array


def drawn(power: PowerEstimate, form: str) -> Drawn:
    """By form: "power" from measured voltage and current; "hanna" 5.1 V times the current above idle, which leaves out
    that the supply's voltage sags under load (arXiv 1906.07214)."""
    if form != HANNA:
        return Drawn(power.item_power_w, power.item_se_w, power.network_power_w, power.network_se_w)
    # Both come from one fit of the same samples, so the currents are known as well as the powers are.
    scale = HANNA_VOLTAGE_V / power.voltage_v if np.isfinite(power.voltage_v) and power.voltage_v > 0 else float("nan")
    return Drawn(
        HANNA_VOLTAGE_V * power.item_current_a,
        scale * power.item_se_w,
        HANNA_VOLTAGE_V * power.network_current_a,
        scale * power.network_se_w,
    )
