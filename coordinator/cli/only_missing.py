"""`coordinator profile --only-missing`: what the newest version lacks, and nothing that is known already."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from coordinator.cli.options import print_json
from protos.errors import NotFoundError
from protos.types import Device, RunSpec

if TYPE_CHECKING:
    from coordinator.cli.connect import Link
    from coordinator.missing import Known
    from lut_store.lut import Lut

EMULATED = "emulated"


def only_missing(link: Link, spec: RunSpec, *, as_json: bool = False) -> RunSpec | None:
    """The run without what a version of the same configuration holds; None when nothing is missing, which is printed.

    Says on stderr what is spared and why, or why nothing is.
    """
    from coordinator.cli.profile import LOCAL, NO_METER, fitting
    from coordinator.missing import best_of, difference, known_of, narrowed
    from coordinator.plan import for_meters

    devices = [] if spec.device == LOCAL else fitting(spec.device, link.client.devices())
    device_type = next((device.device_type for device in devices), spec.device)
    meter = bool(spec.meter and spec.meter != NO_METER) or (not spec.meter and any(d.meter for d in devices))
    energy = meter and spec.plan.energy_budget_s > 0
    candidates: list[Known] = []
    for lut in _versions(link, spec, device_type, _emulation(spec, devices)):
        apart = difference(lut, devices)
        if apart:
            print(f"{lut.reference} is not used: {apart}.", file=sys.stderr)
        else:
            candidates.append(known_of(lut, spec, energy=energy))
    known = best_of(candidates)
    if known is None:
        print("No version holds an operator of this run under the same conditions: all are measured.", file=sys.stderr)
        return spec
    if known.same_space and not known.missing:
        what = "latency and energy" if energy else "latency"
        if as_json:
            print_json({"reference": known.lut.reference, "digest": known.lut.digest, "missing": 0})
        else:
            print(f"{known.lut.reference} lacks nothing: every operator of {spec.space.name} has its {what}.")
        return None
    run = narrowed(for_meters(spec, devices), known)
    print(_said(known, run, energy=energy), file=sys.stderr)
    return run


def _said(known: Known, run: RunSpec, *, energy: bool) -> str:
    if known.same_space:
        what = "latency or energy" if energy else "latency"
        return f"{known.lut.reference} lacks the {what} of {len(known.missing)} operators: these are measured."
    again = len(run.items) - len(known.missing)
    what = "energies" if run.plan.method == "paths" else "numbers"
    return (
        f"{known.lut.reference} holds {len(known.spared)} operators of {run.space.name}: their {what} are reused, "
        f"{again} of them measured again to compare; {len(known.missing)} operators are new."
    )


def _emulation(spec: RunSpec, devices: Sequence[Device]) -> str:
    """What of the run's LUT will be emulated."""
    if any(device.emulation == "device" for device in devices):
        return "device"
    kind = spec.meter.partition(":")[0].partition("?")[0]
    own = not spec.meter and any(device.meter is not None and device.meter.emulated for device in devices)
    return "meter" if kind == EMULATED or own else "none"


def _versions(link: Link, spec: RunSpec, device_type: str, emulation: str) -> Iterator[Lut]:
    """The newest version of this configuration, then those that differ in their space alone."""
    from coordinator.missing import newest_by_space, query_of

    query = query_of(spec, device_type, emulation)
    with contextlib.suppress(NotFoundError):
        yield link.client.lut(**asdict(query))
    others = link.client.luts(replace(query, space="", version=""))
    for summary in newest_by_space([s for s in others if s.space != spec.space.name], spec.plan.method):
        yield link.client.lut(digest=summary.digest)
