"""The evidence of a run → a LUT version: pure arithmetic between two calls of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coordinator.evidence import Evidence, gather
from coordinator.provenance import provenance
from coordinator.tables import Tables
from coordinator.validate import anchor_shift
from lut_store.estimate.energy import estimate_power
from lut_store.estimate.latency import estimate_latency
from lut_store.lut import Lut
from lut_store.store import Store
from protos.errors import BadInputError, NotFoundError
from protos.types import Configuration, Device, LutQuery, RunSpec

SHIFT_FINDING = 0.02  # of the anchors between two runs of one board
DISTURBED_FINDING = 0.3  # share of executions


def build_lut(store: Store, run_id: str) -> Lut:
    """Build and store the LUT version of a profile run. Raises BadInputError when it has measured nothing."""
    spec = store.run(run_id).spec
    evidence = gather([*store.measurements(run_id, "latency"), *store.measurements(run_id, "power")])
    if not evidence.streams:
        raise BadInputError(f"run {run_id} has no latency measurement; there is nothing to build a LUT from")
    known = {device.name: device for device in store.devices()}
    lut = lut_of(spec, evidence, [known[name] for name in evidence.devices if name in known], run_id)
    said, previous = findings(lut), _previous(store, lut)
    validation: dict[str, Any] = {}
    if previous is not None and (shift := anchor_shift(lut, previous)) is not None:
        validation["anchor_shift"] = {"against": previous.reference, "shift": shift}
        if abs(shift) > SHIFT_FINDING:
            said.append(f"the anchor networks are {shift:+.1%} from {previous.reference}: compare the two with care")
    validation = dict(lut.validation) | validation | {"findings": said}
    return store.add_lut(replace(lut, validation=validation), [run_id])


def findings(lut: Lut) -> list[str]:
    """What a reader should hear before using the table, in sentences."""
    said = []
    flagged = lut.provenance["rounds_flagged"]
    if flagged:
        what = f"{flagged} rounds were flagged and "
        what += "left out" if lut.provenance["rounds_left_out"] else "used, for want of enough others"
        said.append(f"{what}: hot, throttled or disturbed while they ran")
    if lut.provenance["disturbed_share"] > DISTURBED_FINDING:
        said.append(f"{lut.provenance['disturbed_share']:.0%} of the executions were disturbed and left out")
    words: dict[str, int] = {}
    for own in lut.flags.values():
        for word in own:
            words[word] = words.get(word, 0) + 1
    said += [f"{count} cells: {word}" for word, count in sorted(words.items())]
    return said


def _previous(store: Store, lut: Lut) -> Lut | None:
    """The newest version of the same configuration, measured on the same devices."""
    c = lut.configuration
    query = LutQuery(
        c.device_type, c.space, "latest", c.emulation, c.context, c.threads, c.batch, c.runtime, c.precision
    )
    try:
        newest = store.lut(query)
    except NotFoundError:
        return None
    names = [[d["name"] for d in table.provenance.get("devices", [])] for table in (lut, newest)]
    return newest if names[0] == names[1] else None


def lut_of(spec: RunSpec, evidence: Evidence, devices: Sequence[Device], run_id: str) -> Lut:
    """The LUT that this evidence gives, not yet stored."""
    latency = estimate_latency(spec, evidence.streams, seed=evidence.seed)
    power = estimate_power(spec, evidence.segments) if evidence.segments else None
    tables = Tables(spec, latency, power)
    return Lut(
        configuration=_configuration(spec, evidence, devices),
        space=spec.space,
        latency=tables.latency_metric(),
        energy=tables.energy_metric(),
        flags=tables.flags(),
        validation=tables.validation(),
        provenance=provenance(spec, evidence, devices, run_id, latency, power),
    )


def _configuration(spec: RunSpec, evidence: Evidence, devices: Sequence[Device]) -> Configuration:
    emulation = "none"
    if any(device.emulation == "device" for device in devices):
        emulation = "device"
    elif evidence.meter is not None and evidence.meter.emulated:
        emulation = "meter"
    return Configuration(
        device_type=devices[0].device_type if devices else spec.device,
        space=spec.space.name,
        emulation=emulation,
        context=spec.plan.context,
        threads=spec.plan.threads,
        batch=spec.space.input_shape[0],
    )
