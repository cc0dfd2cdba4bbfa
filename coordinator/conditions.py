"""What must be the same before runs may be merged into one LUT: one list of facts, and a refusal that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coordinator.sources import Source
from protos.errors import BadInputError, unknown

NOT_KNOWN = "not known"
Values = tuple[str, ...]  # of one run, sorted; more than one where its boards or rounds differ; empty: does not apply
Differing = dict[str, dict[str, list[str]]]  # field -> value in words -> runs


def _plan(name: str) -> Callable[[Source], Values]:
    return lambda source: (str(getattr(source.spec.plan, name)),)


def _board(name: str) -> Callable[[Source], Values]:
    """A fact of the boards."""

    def values(source: Source) -> Values:
        facts: list[Mapping[str, Any]] = [board.get("facts") or {} for board in source.boards]
        missing = len(source.boards) < len(source.devices)
        found = {str(f.get(name) or NOT_KNOWN) for f in facts} | ({NOT_KNOWN} if missing else set())
        return tuple(sorted(found))

    return values


def _governor(source: Source) -> Values:
    states = (state for s in source.stored for state in (s.measurement.before, s.measurement.after))
    return tuple(sorted({state.governor or NOT_KNOWN for state in states}))


def _sweep(source: Source) -> Values:
    rounds = (s.measurement.latency for s in source.stored)
    return tuple(sorted({f"{part.sweep_bytes} bytes" for part in rounds if part is not None}))


def _meter(source: Source) -> Values:
    """Empty without energy: such a run says nothing against another one's meter."""
    return tuple(sorted({s.measurement.power.meter.kind for s in source.stored if s.measurement.power is not None}))


def _device_type(source: Source) -> Values:
    return tuple(sorted({str(board["device_type"]) for board in source.boards})) or (source.spec.device,)


def _space(source: Source) -> Values:
    return (f"{source.spec.space.name} ({source.spec.space.digest[:12]})",)


# Never merged, whoever allows it: the numbers would stand for nothing.
NEVER: dict[str, tuple[Callable[[Source], Values], str]] = {
    "space": (_space, "one table holds one space"),
    "device_type": (_device_type, "a LUT belongs to one type of device"),
    "emulation": (lambda source: (source.emulation,), "what is real and what is emulated never mix"),
    "method": (_plan("method"), "one timed inside networks, the other in hot loops"),
    "dedupe": (lambda source: (str(source.spec.dedupe),), "one measured operators, the other cells"),
}
ALLOWABLE: dict[str, Callable[[Source], Values]] = {
    "context": _plan("context"),
    "threads": _plan("threads"),
    "warmup_calls": _plan("warmup_calls"),
    "timed_calls": _plan("timed_calls"),
    "sweep_bytes": _sweep,
    "governor": _governor,
    "meter": _meter,
    "model": _board("model"),
    "machine": _board("machine"),
    "cpu_count": _board("cpu_count"),
    "kernel": _board("kernel"),
    "python": _board("python_version"),
    "torch": _board("torch_version"),
    "torch_build": _board("torch_build"),
    "edgelut": _board("edgelut_version"),
}


def conditions(sources: Sequence[Source]) -> dict[str, list[str]]:
    """Field by field, every value that occurs."""
    read = {name: values for name, (values, _) in NEVER.items()} | ALLOWABLE
    return {name: sorted({v for source in sources for v in values(source)}) for name, values in read.items()}


def check_allowed(fields: Sequence[str]) -> None:
    """Raise BadInputError for a field that does not exist or that may never differ."""
    for name in fields:
        if name in NEVER:
            raise BadInputError(f"--allow-different {name}: {NEVER[name][1]}; build a LUT of each")
        if name not in ALLOWABLE:
            raise unknown("field that may differ", name, ALLOWABLE)


def differing(sources: Sequence[Source], allow: Sequence[str] = ()) -> Differing:
    """What differs between the runs and was allowed to. Raises BadInputError, naming field and values, for the rest."""
    check_allowed(allow)
    for name, (values, why) in NEVER.items():
        apart = _apart(sources, values)
        if len(apart) > 1:
            raise BadInputError(f"the runs differ in {name}: {_words(apart)}. They cannot be merged: {why}")
    found = {name: apart for name, values in ALLOWABLE.items() if len(apart := _apart(sources, values)) > 1}
    refused = [name for name in found if name not in allow]
    if refused:
        what = "; in ".join(f"{name}: {_words(found[name])}" for name in refused)
        options = " ".join(f"--allow-different {name}" for name in refused)
        raise BadInputError(
            f"the runs differ in {what}. Build them apart, or accept it with {options}: the version then says so"
        )
    return found


def _apart(sources: Sequence[Source], values: Callable[[Source], Values]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for source in sources:
        own = values(source)
        if own:
            found.setdefault(" and ".join(own), []).append(source.run_id)
    return found


def _words(apart: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{value} (run{'s' if len(runs) > 1 else ''} {', '.join(runs)})" for value, runs in apart.items())


def sentences(found: Differing) -> list[str]:
    """For the version's findings."""
    return [f"the runs differ in {name}, which was allowed: {_words(apart)}" for name, apart in found.items()]
