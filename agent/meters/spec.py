"""`KIND:PORT?option=value`: what people write to name a meter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from protos.errors import BadInputError

# Options of pyserial's own URLs; they stay in the port.
_PORT_OPTIONS = (
    "logging",
    "ign_set_control",
    "poll_modem",
    "timeout",
    "class",
    "n",
    "skip_busy",
    "file",
    "all",
    "color",
)
_YES = ("1", "yes", "true", "on")
_NO = ("0", "no", "false", "off")


@dataclass(frozen=True)
class MeterSpec:
    kind: str
    port: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.kind}:{self.port}" if self.port else self.kind

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """The option as a number within [low, high]; BadInputError otherwise."""
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise BadInputError(f"meter {self}: {name}={text} is not a number from {low:g} to {high:g}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        text = self.options.get(name, "").lower()
        if text in _YES + _NO:
            return text in _YES
        if name in self.options:
            raise BadInputError(f"meter {self}: {name}={text} must be yes or no.")
        return default

    def only(self, *names: str) -> None:
        """BadInputError when an option is given that this kind does not have."""
        for name in self.options:
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise BadInputError(f"meter {self}: there is no option {name!r}; this kind has: {known}.")


def parse_spec(text: str) -> MeterSpec:
    """`um25c:/dev/rfcomm0?rate_hz=3` → MeterSpec; options that belong to a pyserial URL stay in the port.

    A kind without a port may have options too: `rapl?rate_hz=50`.
    """
    place, _, query = text.strip().partition("?")
    kind, _, port = place.partition(":")
    ours: dict[str, str] = {}
    theirs: list[str] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if "://" in port and name in _PORT_OPTIONS:
            theirs.append(f"{name}={value}" if value else name)
        else:
            ours[name] = value
    return MeterSpec(kind.lower(), port + ("?" + "&".join(theirs) if theirs else ""), ours)
