"""What two LUTs say differently about how they were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lut_store.lut import Lut

# What differs from run to run without saying anything: amounts of evidence, readings of the moment, bulk, and what the
# numbers themselves say better.
_LEFT_OUT = {
    *("boards", "conditions", "disturbed_share", "drift", "energy_device_s", "energy_forms", "evidence", "follows"),
    *("latency_device_s", "meter_losses", "meters", "parents", "power", "rounds", "rounds_flagged", "rounds_left_out"),
    *("seed", "spread", "host.load_1m", "host.other_cpu_share", "host.temp_c", "host.frequency_hz", "origin.not_used"),
    *("devices.last_seen_s", "devices.state", "devices.reason", "devices.host", "devices.meter"),
}


@dataclass(frozen=True)
class RecordChange:
    """A key of configuration or provenance, dotted, and what stands there; None: it is not there."""

    key: str
    a: Any
    b: Any


def record_changes(a: Lut, b: Lut) -> tuple[RecordChange, ...]:
    """By key, the configuration first."""
    left, right = _flat_lut(a), _flat_lut(b)
    keys = list(left) + [key for key in right if key not in left]
    return tuple(RecordChange(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key))


def shared_runs(a: Lut, b: Lut) -> tuple[str, ...]:
    """Runs that both were built from."""
    runs = [lut.provenance.get("runs") or () for lut in (a, b)]
    return tuple(str(run) for run in runs[0] if run in runs[1])


def _flat_lut(lut: Lut) -> dict[str, Any]:
    found = {f"configuration.{key}": value for key, value in asdict(lut.configuration).items()}
    return found | {key: value for key, value in _flat("", lut.provenance) if value not in (None, "", [])}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of what is not a mapping; the parts of a list of mappings are joined."""
    if prefix in _LEFT_OUT:
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, part)
    elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(v, Mapping) for v in value):
        joined: dict[str, list[Any]] = {}
        for part in value:
            for key, own in _flat(prefix, part) if isinstance(part, Mapping) else ():
                joined.setdefault(key, []).append(own)
        for key, parts in joined.items():
            yield key, parts[0] if len(parts) == 1 else parts
    else:
        yield prefix, value
