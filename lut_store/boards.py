"""What boards can draw, so that a table which claims more is noticed."""

from __future__ import annotations

from dataclasses import dataclass

from lut_store.lut import Lut

SUPPLY_V = 5.1


@dataclass(frozen=True)
class Board:
    """supply_w: what its power supply can give at all; idle_w and busy_w: at rest and with every core busy, where
    somebody has published it.
    """

    type_prefix: str  # of the device type
    model_prefix: str  # of /proc/device-tree/model
    supply_w: float
    idle_w: float | None = None
    busy_w: float | None = None


# Supplies: the current that the Raspberry Pi documentation recommends a supply for, at 5.1 V. Idle and busy Pi 3B:
# 0.24 A and 0.74 A, measured by the authors of HANNA (arXiv 1906.07214). The longest prefix counts.
BOARDS = (
    Board("rpi3b", "Raspberry Pi 3 Model B", 2.5 * SUPPLY_V, 0.24 * SUPPLY_V, 0.74 * SUPPLY_V),
    Board("rpi3b+", "Raspberry Pi 3 Model B Plus", 2.5 * SUPPLY_V),
    Board("rpi4", "Raspberry Pi 4 Model B", 3.0 * SUPPLY_V),
    Board("rpi5", "Raspberry Pi 5", 5.0 * SUPPLY_V),
    Board("rpizero2", "Raspberry Pi Zero 2", 2.0 * SUPPLY_V),
)


def board_of(lut: Lut) -> Board | None:
    """The board that the LUT's device said it is, else the one that its device type is named after."""
    facts = [device.get("facts") or {} for device in lut.provenance.get("devices") or ()]
    models = [str(fact["model"]) for fact in facts if fact.get("model")]
    by_model = [board for board in BOARDS if models and models[0].startswith(board.model_prefix)]
    if models:
        return max(by_model, key=lambda board: len(board.model_prefix), default=None)
    named = [board for board in BOARDS if lut.configuration.device_type.startswith(board.type_prefix)]
    return max(named, key=lambda board: len(board.type_prefix), default=None)


def idle_power_w(lut: Lut, board: Board | None) -> float | None:
    """As it was measured with the LUT, else as it was published for the board."""
    power = lut.provenance.get("power")
    measured = power.get("idle_power_w") if isinstance(power, dict) else None
    return float(measured) if isinstance(measured, (int, float)) else board.idle_w if board else None
