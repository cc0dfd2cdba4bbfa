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
from coordinator.record import named_versions, settings_text
from coordinator.units import NOT_KNOWN, percent
from lut_store.stable import validation_mape
from protos.errors import NotFoundError

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
    """The version and all that it came from or follows, each once, the newest first. What is not there, because a file
    was imported without its ancestors, is only named by its descendants.
    """
    found: dict[str, Lut | None] = {lut.digest: lut}
    waiting = [lut]
    while waiting:
        for digest in _before(waiting.pop().provenance):
            if digest not in found:
                try:
                    waiting.append(by_digest(digest))
                except NotFoundError:
                    found[digest] = None
                else:
                    found[digest] = waiting[-1]
    there = [one for one in found.values() if one is not None]
    return sorted(there, key=lambda one: (one.created_wall_s, one.version), reverse=True)


def _before(provenance: Mapping[str, Any]) -> list[str]:
    return [v["digest"] for v in named_versions([*_list(provenance.get("parents")), provenance.get("follows")])]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def record(lut: Lut) -> dict[str, Any]:
    """One version for JSON."""
    p = lut.provenance
    follows, shift, software = named_versions([p.get("follows")]), lut.validation.get("anchor_shift"), p.get("software")
    return {
        "reference": lut.reference,
        "digest": lut.digest,
        "version": lut.version,
        "created_wall_s": lut.created_wall_s,
        "parents": named_versions(p.get("parents")),
        "follows": follows[0] if follows else None,
        "anchor_shift": shift.get("shift") if isinstance(shift, Mapping) else None,
        "runs": [str(run) for run in _list(p.get("runs"))],
        "devices": [str(d.get("name", "")) for d in _list(p.get("devices")) if isinstance(d, Mapping)],
        "excluded_devices": [str(name) for name in _list(p.get("excluded_devices"))],
        "settings": p.get("settings"),
        "differing": p.get("differing") or {},
        "latency_mape": validation_mape(lut, "latency"),
        "energy_mape": validation_mape(lut, "energy"),
        "git": software.get("git") if isinstance(software, Mapping) else None,
        "origin": p.get("origin"),
    }


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
