"""Versions of look-up tables and the raw measurements behind them. `lut_store.Lut` is the table itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lut_store.lut import Lut

__all__ = ["Lut"]


def __getattr__(name: str) -> Any:
    """`Lut` is imported when it is asked for: the store alone needs no numpy."""
    if name == "Lut":
        from lut_store.lut import Lut

        return Lut
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
