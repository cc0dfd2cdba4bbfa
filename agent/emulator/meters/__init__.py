"""The byte protocols of emulated meters: what a real one would answer, from the model's readings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from agent.meters.base import Reading
from protos.errors import BadInputError

# kind → module of agent.emulator.meters
_PROTOCOLS = {
    "atorch": "atorch",
    "avhzy": "avhzy",
    "csv": "csv",
    "ppk2": "ppk2",
    "smartpower3": "smartpower3",
    "tc66c": "tc66c",
    "um24c": "um25c",
    "um25c": "um25c",
    "um34c": "um25c",
}


class EmulatedProtocol(Protocol):
    """One meter's side of the line; a class for each kind, made with the kind's name."""

    def receive(self, data: bytes, now: Callable[[], Reading]) -> bytes:
        """The answer to what the host sent; `now` gives the reading that this moment's poll sees."""

    def stream(self, readings: Sequence[Reading]) -> bytes:
        """What the meter says by itself about new readings; empty for one that only answers."""


def protocols() -> tuple[str, ...]:
    return tuple(sorted(_PROTOCOLS))


def make_protocol(kind: str) -> EmulatedProtocol:
    """BadInputError: there is no emulated meter of this kind."""
    if kind not in _PROTOCOLS:
        raise BadInputError(f"There is no emulated meter {kind!r}; there are: {', '.join(protocols())}.")
    protocol: EmulatedProtocol = import_module(f"agent.emulator.meters.{_PROTOCOLS[kind]}").EmulatedMeter(kind)
    return protocol
