"""`coordinator lut log`: which versions a version came from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coordinator.cli.lut import fetch, is_file
from coordinator.cli.options import (
    BatchFilter,
    ContextFilter,
    CoordinatorOption,
    EmulationFilter,
    Filters,
    JsonOption,
    PrecisionFilter,
    ReferenceArgument,
    RuntimeFilter,
    ThreadsFilter,
    console,
    print_json,
    query,
)
from coordinator.units import NOT_KNOWN, percent

if TYPE_CHECKING:
    from lut_store.lut import Lut


def log(
    reference: ReferenceArgument,
    context: ContextFilter = "",
    threads: ThreadsFilter = None,
    batch: BatchFilter = None,
    emulation: EmulationFilter = "",
    runtime: RuntimeFilter = "",
    precision: PrecisionFilter = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the line of descent of a LUT: the versions that it came from, and how each was made.

    A version comes from those that were built from some of its runs; a version of a new run follows the one that the
    same boards gave before.

    [bold]Examples[/bold]

    coordinator lut log rpi3b/fbnet-cifar10

    coordinator lut log rpi3b@4 --json
    """
    filters = Filters(context, threads, batch, emulation, runtime, precision)
    if is_file(reference):
        found = [fetch(reference, filters, coordinator)]
    else:
        from coordinator.cli.connect import connected

        with connected(coordinator) as link:
            newest = link.client.lut(**asdict(query(reference, filters)))
            found = descent(newest, lambda digest: link.client.lut(digest=digest))
    if as_json:
        print_json([record(lut) for lut in found])
        return
    out = console()
    for lut in found:
        for line in lines(record(lut)):
            out.print(line)


def descent(lut: Lut, by_digest: Callable[[str], Lut]) -> list[Lut]:
    """The version and all that it came from or follows, each once, the newest first."""
    found = {lut.digest: lut}
    waiting = [lut]
    while waiting:
        for digest in _before(waiting.pop().provenance):
            if digest not in found:
                found[digest] = by_digest(digest)
                waiting.append(found[digest])
    return sorted(found.values(), key=lambda one: (one.created_wall_s, one.version), reverse=True)


def _before(provenance: Mapping[str, Any]) -> list[str]:
    parents = [parent["digest"] for parent in provenance.get("parents") or ()]
    follows = provenance.get("follows")
    return [*parents, *([follows["digest"]] if follows else [])]


def record(lut: Lut) -> dict[str, Any]:
    """One version for JSON."""
    p = lut.provenance
    follows = p.get("follows")
    return {
        "reference": lut.reference,
        "digest": lut.digest,
        "version": lut.version,
        "created_wall_s": lut.created_wall_s,
        "parents": p.get("parents") or [],
        "follows": follows,
        "anchor_shift": (lut.validation.get("anchor_shift") or {}).get("shift"),
        "runs": p.get("runs") or [],
        "devices": [device["name"] for device in p.get("devices") or ()],
        "excluded_devices": p.get("excluded_devices") or [],
        "settings": p.get("settings"),
        "differing": p.get("differing") or {},
        "latency_mape": _mape(lut, "latency"),
        "energy_mape": _mape(lut, "energy"),
        "git": (p.get("software") or {}).get("git"),
        "origin": p.get("origin"),
    }


def _mape(lut: Lut, metric: str) -> float | None:
    errors = (lut.validation.get(metric) or {}).get("corrected") or {}
    mape = errors.get("mape")
    return float(mape) if mape is not None else None


def lines(entry: Mapping[str, Any]) -> list[str]:
    """One version for people."""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["created_wall_s"])) if entry["created_wall_s"] else ""
    rows = [
        ("from", ", ".join(parent["reference"] for parent in entry["parents"])),
        ("follows", _follows(entry)),
        ("runs", " ".join(entry["runs"])),
        ("boards", " ".join(entry["devices"])),
        ("left out", " ".join(entry["excluded_devices"])),
        ("differing", ", ".join(entry["differing"])),
        ("method", settings_text(entry["settings"])),
        ("MAPE", _errors(entry)),
        ("imported", "" if entry["runs"] else _origin(entry["origin"])),
    ]
    head = f"{entry['reference']}  {made}  {entry['digest'][:12]}".rstrip()
    return [head, *(f"    {name:<10} {text}" for name, text in rows if text), ""]


def _follows(entry: Mapping[str, Any]) -> str:
    if not entry["follows"]:
        return ""
    shift = entry["anchor_shift"]
    moved = "" if shift is None else f" (anchor networks {percent(shift)})"
    return f"{entry['follows']['reference']}{moved}"


def _errors(entry: Mapping[str, Any]) -> str:
    shown = [f"{name} {percent(entry[f'{name}_mape'], sign=False)}" for name in ("latency", "energy")]
    return ", ".join(text for text in shown if NOT_KNOWN not in text)


def _origin(origin: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in origin.items()) if isinstance(origin, Mapping) else ""


def settings_text(settings: Mapping[str, Any] | None) -> str:
    """ "median latency; plateau energy as power × time; corrected"."""
    if not settings:
        return ""
    form = {"power": "power × time", "hanna": "5.1 V × current × time"}[settings["energy_form"]]
    corrected = "corrected" if settings["correction"] else "not corrected"
    return f"{settings['latency']} latency; {settings['energy']} energy as {form}; {corrected}"
