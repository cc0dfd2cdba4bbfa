"""Stored evidence → a LUT version: pure arithmetic between a few calls of the store. No device is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordinator.conditions import Differing, check_allowed, conditions, differing, sentences
from coordinator.evidence import Evidence, gather
from coordinator.provenance import Origin, provenance
from coordinator.sources import Source, combined, read_sources
from coordinator.tables import Tables, item_energy
from coordinator.validate import anchor_shift
from lut_store.completed import check_conditions, completed, reused_sentence
from lut_store.estimate.boards import LEAST_FOR_OUTSIDE, Boards, compare, is_enough
from lut_store.estimate.energy import PowerEstimate, estimate_power
from lut_store.estimate.executions import Array, covered
from lut_store.estimate.latency import estimate_latency
from lut_store.estimate.settings import DEFAULT, Settings
from lut_store.lut import Lut
from lut_store.lut_rows import method_name
from lut_store.store import Store
from protos.errors import BadInputError
from protos.types import Configuration, LutQuery, RunSpec

SHIFT_FINDING = 0.02  # of the anchors between two runs of one board
DISTURBED_FINDING = 0.3  # share of executions
LOOKED_THROUGH = 100  # versions, for one that a new one follows: each is read as a whole
BOARD_FINDING = 0.03  # between two boards, of which nobody can say which is the odd one


@dataclass(frozen=True)
class BuildRequest:
    """Which runs, how, and what is accepted.

    allow_different: names of coordinator.conditions that may differ between the runs; exclude_devices: boards whose
    measurements are left out; parents: digests of versions that this one continues, beside those that were built from
    some of the same runs.
    """

    run_ids: tuple[str, ...]
    settings: Settings = DEFAULT
    allow_different: tuple[str, ...] = ()
    exclude_devices: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


def build_lut(store: Store, run_id: str) -> Lut:
    """Build and store the LUT version of a profile run. Raises BadInputError when it has measured nothing.

    A run that completes a version of its own space (coordinator.missing) is built together with that version's runs.
    """
    spec = store.run(run_id).spec
    if spec.lut_digest:
        base = store.lut_by_digest(spec.lut_digest)
        if base.space.digest == spec.space.digest:
            p = base.provenance
            return build(
                store,
                BuildRequest(
                    run_ids=(*p["runs"], run_id),
                    allow_different=tuple(p.get("differing") or ()),
                    exclude_devices=tuple(p.get("excluded_devices") or ()),
                    parents=(base.digest,),
                ),
            )
    return build(store, BuildRequest((run_id,)))


def build(store: Store, request: BuildRequest) -> Lut:
    """Build and store a version from the evidence of runs; the stored one when it is already there.

    Raises NotFoundError for a run or parent, BadInputError for runs that cannot be merged, for a device that measured
    nothing, and when there is nothing to build from.
    """
    check_allowed(request.allow_different)
    sources = read_sources(store, request.run_ids, request.exclude_devices)
    allowed = differing(sources, request.allow_different)
    lut = _with_reused(store, sources, lut_of(sources, request, allowed), request.allow_different)
    previous = _previous(store, lut)
    said = findings(lut, _within(sources))
    validation: dict[str, Any] = {}
    if previous is not None and (shift := anchor_shift(lut, previous)) is not None:
        validation["anchor_shift"] = {"against": previous.reference, "shift": shift}
        if abs(shift) > SHIFT_FINDING:
            said.append(f"the anchor networks are {shift:+.1%} from {previous.reference}: compare the two with care")
    run_ids = [source.run_id for source in sources]
    descent = {
        "parents": _parents(store, lut, run_ids, request.parents),
        "follows": None if previous is None else {"reference": previous.reference, "digest": previous.digest},
    }
    lut = replace(
        lut,
        validation=dict(lut.validation) | validation | {"findings": said},
        provenance=dict(lut.provenance) | descent,
    )
    return store.add_lut(lut, run_ids)


def lut_of(sources: Sequence[Source], request: BuildRequest, allowed: Differing) -> Lut:
    """The LUT that this evidence gives, not yet stored."""
    spec, stored = combined(sources)
    spec = covered(spec)
    evidence = gather(*stored)
    if not evidence.streams:
        runs = f"run {sources[0].run_id} has" if len(sources) == 1 else "the runs have"
        raise BadInputError(f"{runs} no latency measurement; there is nothing to build a LUT from")
    settings = request.settings
    latency = estimate_latency(spec, evidence.streams, seed=evidence.seed, statistic=settings.latency)
    power = estimate_power(spec, evidence.segments, settings.energy) if evidence.segments else None
    tables = Tables(spec, latency, power, settings, _boards(spec, evidence, settings))
    boards = {board["name"]: board for source in sources for board in source.boards}
    origin = Origin(
        run_ids=tuple(source.run_id for source in sources),
        boards=tuple(boards[name] for name in evidence.devices if name in boards),
        settings=settings,
        conditions=conditions(sources),
        differing=allowed,
        excluded_devices=tuple(sorted(set(request.exclude_devices))),
    )
    return Lut(
        configuration=_configuration(spec, sources, origin),
        space=spec.space,
        latency=tables.latency_metric(),
        energy=tables.energy_metric(),
        flags=tables.flags(),
        validation=tables.validation(),
        provenance=provenance(spec, evidence, origin, tables),
    )


def _with_reused(store: Store, sources: Sequence[Source], lut: Lut, allow_different: Sequence[str]) -> Lut:
    """The LUT with what its runs were planned to take from versions of other spaces."""
    for digest in dict.fromkeys(source.spec.lut_digest for source in sources if source.spec.lut_digest):
        held = store.lut_by_digest(digest)
        if held.space.digest != lut.space.digest:
            check_conditions(lut, held, tuple(allow_different))
            lut = completed(lut, held)
    return lut


def _power_alone(spec: RunSpec, evidence: Evidence, settings: Settings, device: str) -> PowerEstimate | None:
    """From the traces of one board; None when they say nothing alone, as a segment that was cut off before any idle."""
    segments = evidence.segments_of(device)
    try:
        return estimate_power(spec, segments, settings.energy) if segments else None
    except BadInputError:
        return None


def _boards(spec: RunSpec, evidence: Evidence, settings: Settings) -> dict[str, Boards]:
    """Each board alone, compared, by metric; nothing where only one board has measured enough of it."""
    timed = sorted(set(evidence.stream_devices))
    if len(timed) < 2:
        return {}
    columns: dict[str, dict[str, tuple[Array, Array]]] = {"latency": {}, "energy": {}}
    for name in timed:
        latency = estimate_latency(spec, evidence.streams_of(name), seed=evidence.seed, statistic=settings.latency)
        columns["latency"][name] = latency.item_s, latency.item_se_s
        power = _power_alone(spec, evidence, settings, name)
        if power is not None:
            columns["energy"][name] = item_energy(latency, power, settings)
    found = {}
    for metric, boards in columns.items():
        enough = {name: pair for name, pair in boards.items() if is_enough(*pair)}
        if len(enough) > 1:
            values, errors = zip(*enough.values(), strict=True)
            found[metric] = compare(tuple(enough), np.stack(values), np.stack(errors))
    return found


def _configuration(spec: RunSpec, sources: Sequence[Source], origin: Origin) -> Configuration:
    return Configuration(
        device_type=origin.boards[0]["device_type"] if origin.boards else spec.device,
        space=spec.space.name,
        emulation=sources[0].emulation,
        context=spec.plan.context,
        threads=spec.plan.threads,
        batch=spec.space.input_shape[0],
    )


# ---- what a reader should hear ----


def findings(lut: Lut, within: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """What a reader should hear before using the table, in sentences. `within`: what differed inside one run."""
    said = []
    flagged = lut.provenance["rounds_flagged"]
    if flagged:
        what = f"{flagged} rounds were flagged and "
        what += "left out" if lut.provenance["rounds_left_out"] else "used, for want of enough others"
        said.append(f"{what}: hot, throttled or disturbed while they ran")
    if lut.provenance["disturbed_share"] > DISTURBED_FINDING:
        share = lut.provenance["disturbed_share"]
        said.append(f"{share:.0%} of the executions ran in unusual moments of the machine and count less")
    words: dict[str, int] = {}
    for own in lut.flags.values():
        for word in own:
            words[word] = words.get(word, 0) + 1
    said += [f"{count} cells: {word}" for word, count in sorted(words.items())]
    said += sentences(lut.provenance["differing"])
    said += [f"one run with different {name}: {', '.join(values)}" for name, values in (within or {}).items()]
    if reused := reused_sentence(lut):
        said.append(reused)
    if lut.provenance["excluded_devices"]:
        said.append(f"left out as asked: {', '.join(lut.provenance['excluded_devices'])}")
    return said + _board_findings(lut.provenance["boards"] or {})


def _board_findings(boards: Mapping[str, Any]) -> list[str]:
    said = []
    for name in ("latency", "energy"):
        devices = boards[name]["devices"] if name in boards else []
        said += [
            f"{device['name']} lies outside the other boards: {name} {device['ratio'] - 1:+.1%} "
            f"(robust z {device['robust_z']:+.1f}); leave it out with --exclude-device {device['name']}"
            for device in devices
            if device["name"] in boards[name]["outside"]
        ]
        if 2 <= len(devices) < LEAST_FOR_OUTSIDE:
            apart = abs(devices[0]["ratio"] / devices[1]["ratio"] - 1)
            if apart > BOARD_FINDING:
                both = " and ".join(device["name"] for device in devices)
                said.append(f"{both} are {apart:.1%} apart in {name}; a third board would tell which is the odd one")
    return said


def _within(sources: Sequence[Source]) -> dict[str, list[str]]:
    """What differs between the boards or rounds of one run, which nobody could refuse to merge."""
    found: dict[str, list[str]] = {}
    for source in sources:
        own = conditions([source])
        found |= {name: values for name, values in own.items() if len(values) > 1}
    return found


# ---- descent ----


def _previous(store: Store, lut: Lut) -> Lut | None:
    """The newest version of the same configuration, measured on the same devices by the same method."""
    c = lut.configuration
    query = LutQuery(c.device_type, c.space, "", c.emulation, c.context, c.threads, c.batch, c.runtime, c.precision)
    there = [v for v in store.luts(query) if v.method == method_name(lut) and v.digest != lut.digest]
    for version in there[:LOOKED_THROUGH]:
        older = store.lut_by_digest(version.digest)
        names = [[d["name"] for d in table.provenance.get("devices", [])] for table in (lut, older)]
        if names[0] == names[1] and lut.provenance["method"] == older.provenance.get("method"):
            return older
    return None


def _parents(store: Store, lut: Lut, run_ids: Sequence[str], named: Sequence[str]) -> list[dict[str, str]]:
    """The versions that came from some of the same runs and no others: the first of each largest set of runs, from
    which its later ones differ by their settings; then those that the build was asked from.
    """
    wanted = frozenset(run_ids)
    found = [v for v in store.descents(run_ids) if v.run_ids <= wanted and v.digest != lut.digest]
    largest = [v for v in found if not any(v.run_ids < other.run_ids for other in found)]
    first = {v.run_ids: v for v in reversed(largest)}  # they come in the order of time
    parents = {v.digest: v.reference for v in sorted(first.values(), key=lambda v: v.created_wall_s)}
    for digest in named:
        parents.setdefault(digest, store.lut_by_digest(digest).reference)
    return [{"reference": reference, "digest": digest} for digest, reference in parents.items()]
