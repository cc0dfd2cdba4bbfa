"""The runs that a LUT is built from: what was asked, what was measured, and on which boards as they were then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from lut_store.records import REMOVED, StoredMeasurement
from lut_store.store import Store
from protos.errors import BadInputError, NotFoundError, unknown
from protos.types import BlockSpec, CellRef, Device, Measurement, Network, PlanItem, RunSpec

K = TypeVar("K")
Board = Mapping[str, Any]  # a Device as the provenance keeps it: plain values, without the momentary state


@dataclass(frozen=True)
class Source:
    """One run. `boards`: by name, those that measured, as they were at the time."""

    run_id: str
    spec: RunSpec
    stored: tuple[StoredMeasurement, ...]
    boards: tuple[Board, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(sorted({s.device for s in self.stored}))

    @property
    def emulation(self) -> str:
        """ "none", "meter" or "device"."""
        if any(board["emulation"] == "device" for board in self.boards):
            return "device"
        traces = (s.measurement.power for s in self.stored if s.measurement.power is not None)
        return "meter" if any(trace.meter.emulated for trace in traces) else "none"


def read_sources(store: Store, run_ids: Sequence[str], exclude_devices: Sequence[str] = ()) -> list[Source]:
    """The runs by id, without what the excluded devices measured.

    Raises NotFoundError for a run, BadInputError for one that is no profile, for a device that measured nothing, and
    when nothing is left.
    """
    if not run_ids:
        raise BadInputError("no run is named; say which with --run RUN (`coordinator runs list` shows them)")
    sources = [_read(store, run_id) for run_id in sorted(set(run_ids))]
    there = sorted({name for source in sources for name in source.devices})
    for name in exclude_devices:
        if name not in there:
            raise unknown("device to leave out", name, there)
    kept = [_without(source, exclude_devices) for source in sources]
    if exclude_devices and not any(source.stored for source in kept):
        raise BadInputError(f"without {', '.join(exclude_devices)} nothing is left to build a LUT from")
    return [source for source in kept if source.stored or len(kept) == 1]


def _read(store: Store, run_id: str) -> Source:
    try:
        record = store.run(run_id)
    except NotFoundError as error:
        raise NotFoundError(f"{error}; `coordinator runs list` shows those that there are") from error
    if record.spec.purpose != "profile":
        raise BadInputError(f"run {run_id} was to validate a LUT and has measured no operators; name a profile run")
    stored = (*store.measurements(run_id, "latency"), *store.measurements(run_id, "power"))
    if not stored and REMOVED in record.reason:
        raise BadInputError(f"run {run_id} cannot be built from any more: {record.reason}")
    names = sorted({s.device for s in stored})
    return Source(run_id, record.spec, stored, _boards(store, record.lut_digest, names))


def _boards(store: Store, lut_digest: str, names: Sequence[str]) -> tuple[Board, ...]:
    """As the version says that the run itself made, because a board may have been changed since; else as last seen."""
    known: dict[str, Board] = {device.name: board_record(device) for device in store.devices()}
    if lut_digest:
        known |= {board["name"]: board for board in store.lut_by_digest(lut_digest).provenance.get("devices", [])}
    return tuple(known[name] for name in names if name in known)


def board_record(device: Device) -> Board:
    return asdict(device) | {"host": None}


def _without(source: Source, devices: Sequence[str]) -> Source:
    return replace(
        source,
        stored=tuple(s for s in source.stored if s.device not in devices),
        boards=tuple(board for board in source.boards if board["name"] not in devices),
    )


# ---- one numbering of items and networks ----


def combined(sources: Sequence[Source]) -> tuple[RunSpec, list[tuple[StoredMeasurement, ...]]]:
    """One specification with every operator and network of the runs, and their measurements numbered by it.

    A single run stays as it is. Plan and preset are those of the first. A network that any run fits to validates
    nothing.
    """
    first = sources[0].spec
    if len(sources) == 1:
        return first, [sources[0].stored]
    fitted = {n.choices for source in sources for n in source.spec.networks if n.role == "fit"}
    items = _Numbers[BlockSpec | PlanItem]()
    cells: dict[int, dict[CellRef, None]] = {}
    networks = _Numbers[Network]()
    numbered = []
    for source in sources:
        of_items = [items.of(item.spec if first.dedupe else item) for item in source.spec.items]
        for number, item in zip(of_items, source.spec.items, strict=True):
            cells.setdefault(number, {}).update(dict.fromkeys(item.cells))
        of_networks = [
            networks.of(replace(n, role="fit") if n.role == "validation" and n.choices in fitted else n)
            for n in source.spec.networks
        ]
        numbered.append(
            tuple(replace(s, measurement=_renumbered(s.measurement, of_items, of_networks)) for s in source.stored)
        )
    specs = [key if isinstance(key, BlockSpec) else key.spec for key in items]
    merged = tuple(PlanItem(spec, tuple(cells[number])) for number, spec in enumerate(specs))
    return replace(first, items=merged, networks=tuple(networks)), numbered


class _Numbers(dict[K, int]):
    """Numbers things in the order in which they first come."""

    def of(self, thing: K) -> int:
        return self.setdefault(thing, len(self))


def _renumbered(measurement: Measurement, items: Sequence[int], networks: Sequence[int]) -> Measurement:
    if items == list(range(len(items))) and networks == list(range(len(networks))):
        return measurement
    if measurement.latency is not None:
        part = measurement.latency
        timed = {
            name: replace(timings, network=tuple(networks[n] for n in timings.network))
            for name in ("networks", "other_context")
            if (timings := getattr(part, name)) is not None
        }
        if part.operators is not None:
            operators = replace(part.operators, item=tuple(items[n] for n in part.operators.item))
            return replace(measurement, latency=replace(part, operators=operators, **timed))
        return replace(measurement, latency=replace(part, **timed))
    assert measurement.power is not None
    numbers = {"item": items, "network": networks}
    windows = tuple(
        replace(w, index=numbers[w.subject][w.index]) if w.subject in numbers else w for w in measurement.power.windows
    )
    return replace(measurement, power=replace(measurement.power, windows=windows))
