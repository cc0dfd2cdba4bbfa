"""Hypothesis strategies for every type of the vocabulary that travels: any value that the type itself accepts."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from protos import types as t

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, 1e9)
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
named = st.text("abcxyz-019_ü→", min_size=1, max_size=8)
times_ns = st.integers(1, 2**50 - 1)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def tuples(strategy: st.SearchStrategy[Any], **sizes: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, **{"max_size": 4, **sizes}).map(tuple)


def built(cls: type, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a type, with a strategy for each field: a field that is added to the type must be added here."""
    names = {field.name for field in dataclasses.fields(cls)}
    assert set(fields) == names, f"{cls.__name__}: {set(fields) ^ names}"
    return st.builds(cls, **fields)


@st.composite
def block_specs(draw: st.DrawFn) -> t.BlockSpec:
    kind = draw(st.sampled_from(t.BLOCK_KINDS))
    groups = draw(st.integers(1, 4))
    inputs = groups * draw(st.integers(1, 50))
    same, dense = kind in (t.SKIP, "pool", "norm"), kind == "dense"
    more = groups * draw(st.integers(1, 50))
    return t.BlockSpec(
        kind=kind,
        in_channels=inputs,
        out_channels=inputs if same else inputs * dense + more,
        kernel=draw(st.sampled_from((1, 3, 5, 7))),
        stride=1 if kind in (t.SKIP, "norm", "dense") else draw(st.integers(1, 3)),
        expansion=draw(st.integers(1, 6)),
        groups=groups,
        activation=draw(st.sampled_from(t.ACTIVATIONS)),
        norm="batch" if kind == "norm" else draw(st.sampled_from(t.NORMS)),
        input_height=draw(st.integers(1, 64)),
        input_width=draw(st.integers(1, 64)),
        batch=draw(st.integers(1, 8)),
    )


def chained(draw: st.DrawFn, count: int, shape: tuple[int, int, int] = (3, 16, 16)) -> list[t.BlockSpec]:
    """Operators that each take what the one before gives."""
    specs: list[t.BlockSpec] = []
    for _ in range(count):
        channels, height, width = shape
        spec = t.BlockSpec(
            kind=draw(st.sampled_from(("mbconv", "conv"))),
            in_channels=channels,
            out_channels=draw(st.integers(1, 9)),
            kernel=draw(st.sampled_from((1, 3, 5))),
            stride=draw(st.integers(1, 2)),
            input_height=height,
            input_width=width,
        )
        specs += [spec]
        shape = spec.out_channels, spec.output_height, spec.output_width
    return specs


@st.composite
def spaces(draw: st.DrawFn) -> t.SearchSpace:
    ops, stem, layers, head = (draw(st.integers(least, 3)) for least in (1, 0, 1, 0))
    specs = chained(draw, stem + layers + head)
    present = st.lists(st.booleans(), min_size=ops, max_size=ops).filter(any)
    return t.SearchSpace(
        name=draw(named),
        op_names=tuple(f"op{n}" for n in range(ops)),
        layers=tuple(
            t.Layer(tuple(t.Cell(spec if there else None) for there in draw(present)))
            for spec in specs[stem : stem + layers]
        ),
        stem=tuple(specs[:stem]),
        head=tuple(specs[stem + layers :]),
    )


cell_refs = built(t.CellRef, layer=st.integers(-1, 2**31 - 1), op=uint32)
networks = built(t.Network, role=st.sampled_from(t.ROLES), choices=tuples(uint32))
plans = built(
    t.MeasurementPlan,
    method=st.sampled_from(t.METHODS),
    context=st.sampled_from(t.CONTEXTS),
    threads=st.integers(1, 1024),
    rounds_per_task=st.integers(1, 2**32 - 1),
    paths_per_round=uint32,
    warmup_calls=uint32,
    timed_calls=st.integers(1, 2**32 - 1),
    sweep_bytes=uint64,
    target_rel_halfwidth=positive,
    latency_budget_s=positive,
    energy_budget_s=positive,
    window_s=positive,
    idle_s=positive,
    idle_share=positive,
    network_window_s=positive,
    network_share=positive,
    segment_s=positive,
    isolated_every=uint32,
    other_context_every=uint32,
    networks_per_round=uint32,
)


@st.composite
def run_specs(draw: st.DrawFn) -> t.RunSpec:
    space = draw(spaces())
    cells = [t.CellRef(layer, op) for layer in range(len(space.layers)) for op in space.allowed(layer)]
    cells += [t.CellRef(t.FIXED_LAYER, op) for op in range(len(space.stem) + len(space.head))]
    items = [t.PlanItem(spec, (cell,)) for cell in cells if (spec := space.spec(cell.layer, cell.op)) is not None]
    choices = tuple(draw(st.sampled_from(space.allowed(layer))) for layer in range(len(space.layers)))
    return t.RunSpec(
        device=draw(named),
        space=space,
        items=tuple(draw(st.lists(st.sampled_from(items), max_size=4))),
        networks=draw(tuples(built(t.Network, role=st.sampled_from(t.ROLES), choices=st.just(choices)))),
        plan=draw(plans),
        preset=draw(words),
        dedupe=draw(st.booleans()),
        meter=draw(words),
        seed=draw(uint64),
        purpose=draw(st.sampled_from(("profile", "validate"))),
        lut_digest=draw(words),
    )


host_facts = built(
    t.HostFacts,
    model=words,
    machine=words,
    kernel=words,
    cpu_count=uint32,
    memory_bytes=uint64,
    l2_bytes=maybe(uint64),
    llc_bytes=maybe(uint64),
    python_version=words,
    torch_version=words,
    torch_build=words,
    edgelut_version=words,
)
host_states = built(
    t.HostState,
    monotonic_ns=uint64,
    wall_time_s=finite,
    temp_c=maybe(finite),
    frequency_hz=maybe(finite),
    governor=maybe(words),
    throttled_bits=maybe(uint32),
    load_1m=maybe(finite),
    memory_available_bytes=maybe(uint64),
    other_cpu_share=maybe(finite),
)
calibrations = built(
    t.Calibration,
    lag_s=finite,
    settling_s=positive,
    noise_w=positive,
    update_period_s=positive,
    idle_w=finite,
    step_w=finite,
    lag_se_s=maybe(finite),
    idle_a=maybe(finite),
    cycles=uint32,
    duration_s=positive,
    measured_wall_s=finite,
    firmware=words,
    edgelut_version=words,
    id=words,
)
meter_infos = built(
    t.MeterInfo,
    kind=words,
    port=words,
    model=words,
    serial=words,
    firmware=words,
    rate_hz=positive,
    emulated=st.booleans(),
    calibration=maybe(calibrations),
)


@st.composite
def path_timings(draw: st.DrawFn) -> t.PathTimings:
    paths, layers, calls = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    blocks, rows = paths * calls * (layers + 2), paths * calls
    return t.PathTimings(
        calls=calls,
        choices=draw(tuples(uint32, min_size=paths * layers, max_size=paths * layers)),
        block_ns=draw(tuples(st.just(0) | times_ns, min_size=blocks, max_size=blocks)),
        total_ns=draw(tuples(times_ns, min_size=rows, max_size=rows)),
    )


def indexed(draw: st.DrawFn) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """calls, indices (n) and times (n × calls)."""
    n, calls = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    sizes = {"min_size": n * calls, "max_size": n * calls}
    return calls, draw(tuples(uint32, min_size=n, max_size=n)), draw(tuples(times_ns, **sizes))


@st.composite
def network_timings(draw: st.DrawFn) -> t.NetworkTimings:
    return t.NetworkTimings(*indexed(draw))


@st.composite
def operator_timings(draw: st.DrawFn) -> t.OperatorTimings:
    return t.OperatorTimings(*indexed(draw))


@st.composite
def latency_rounds(draw: st.DrawFn) -> t.LatencyRound:
    paths = draw(maybe(path_timings()))
    of_networks = draw(maybe(network_timings()))
    operators = draw(maybe(operator_timings()))
    executions = len(paths.total_ns) // paths.calls if paths else 0
    executions += len(of_networks.network) if of_networks else 0
    executions += len(operators.item) if operators else 0
    started_ns = draw(st.integers(0, 2**62))
    return t.LatencyRound(
        round_index=draw(uint32),
        started_ns=started_ns,
        ended_ns=started_ns + draw(st.integers(1, 2**60)),
        sweep_bytes=draw(uint64),
        threads=draw(uint32),
        paths=paths,
        networks=of_networks,
        operators=operators,
        order=tuple(draw(st.permutations(range(executions)))),
        probe_ns=draw(tuples(times_ns, min_size=executions + 1, max_size=executions + 1)),
    )


@st.composite
def power_windows(draw: st.DrawFn) -> t.PowerWindow:
    started_ns = draw(st.integers(0, 2**62))
    ended_ns = started_ns + draw(st.integers(0, 2**60))
    return t.PowerWindow(draw(st.sampled_from(t.SUBJECTS)), started_ns, ended_ns, draw(uint32), draw(uint64))


@st.composite
def meter_samples(draw: st.DrawFn) -> t.MeterSamples:
    n = draw(st.integers(0, 4))
    column = tuples(finite, min_size=n, max_size=n)
    return t.MeterSamples(
        t_ns=tuple(sorted(draw(tuples(uint64, min_size=n, max_size=n)))),
        voltage_v=draw(column),
        current_a=draw(column),
        power_w=draw(column),
        fresh=draw(tuples(st.booleans(), min_size=n, max_size=n)),
        temp_c=draw(st.just(()) | column),
    )


power_traces = built(
    t.PowerTrace,
    segment_id=words,
    chunk=uint32,
    windows=tuples(power_windows()),
    samples=meter_samples(),
    meter=meter_infos,
    losses=tuples(words),
)


@st.composite
def measurements(draw: st.DrawFn) -> t.Measurement:
    latency = draw(maybe(latency_rounds()))
    return t.Measurement(
        id=draw(named),
        task_id=draw(words),
        fence=draw(uint64),
        sequence=draw(uint32),
        before=draw(host_states),
        after=draw(host_states),
        flags=draw(tuples(words)),
        latency=latency,
        power=draw(power_traces) if latency is None else None,
    )


leases = built(
    t.Lease,
    task_id=words,
    fence=uint64,
    run_id=words,
    kind=st.sampled_from(("latency", "energy")),
    seed=uint64,
    first_round=uint32,
    run=run_specs(),
)
devices = built(
    t.Device,
    name=words,
    device_type=words,
    emulation=st.sampled_from(t.EMULATIONS),
    state=words,
    reason=words,
    last_seen_s=finite,
    version=words,
    facts=host_facts,
    host=maybe(host_states),
    meter=maybe(meter_infos),
)
operator_progress = built(t.OperatorProgress, item=uint32, n=uint32, rel_halfwidth=maybe(finite))
device_activities = built(t.DeviceActivity, device=words, activity=words, current_a=maybe(finite), temp_c=maybe(finite))
runs = built(
    t.Run,
    run_id=words,
    state=st.sampled_from(t.RUN_STATES),
    reason=words,
    spec=maybe(run_specs()),
    created_wall_s=finite,
    latency_device_s=finite,
    energy_device_s=finite,
    rounds=uint32,
    rounds_flagged=uint32,
    rel_halfwidth=maybe(finite),
    eta_s=maybe(finite),
    operators=tuples(operator_progress),
    devices=tuples(device_activities),
    lut_digest=words,
    lut_reference=words,
    report=words,
)
lut_queries = built(
    t.LutQuery,
    device_type=words,
    space=words,
    version=words,
    emulation=words,
    context=words,
    threads=maybe(uint32),
    batch=maybe(uint32),
    runtime=words,
    precision=words,
    digest=words,
)
lut_summaries = built(
    t.LutSummary,
    device_type=words,
    space=words,
    version=uint32,
    digest=words,
    emulation=words,
    context=words,
    threads=uint32,
    batch=uint32,
    runtime=words,
    precision=words,
    method=words,
    created_wall_s=finite,
    run_id=words,
    latency_mape=maybe(finite),
    energy_mape=maybe(finite),
    tags=tuples(words),
)

findings = built(
    t.Finding,
    rule=words,
    severity=st.sampled_from(t.SEVERITIES),
    sentence=words,
    metric=words,
    cells=tuples(cell_refs),
)
tag_moves = built(
    t.TagMove,
    device_type=words,
    space=words,
    emulation=words,
    context=words,
    threads=uint32,
    batch=uint32,
    runtime=words,
    precision=words,
    name=words,
    version=uint32,
    digest=words,
    previous_version=uint32,
    moved_wall_s=finite,
    moved_by=words,
    forced=st.booleans(),
    reason=words,
    objections=tuples(words),
)

STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    t.BlockSpec: block_specs(),
    t.Cell: built(t.Cell, spec=maybe(block_specs())),
    t.Layer: built(t.Layer, cells=tuples(built(t.Cell, spec=maybe(block_specs())))),
    t.SearchSpace: spaces(),
    t.CellRef: cell_refs,
    t.PlanItem: built(t.PlanItem, spec=block_specs(), cells=tuples(cell_refs, min_size=1)),
    t.Network: networks,
    t.MeasurementPlan: plans,
    t.RunSpec: run_specs(),
    t.HostFacts: host_facts,
    t.HostState: host_states,
    t.Calibration: calibrations,
    t.MeterInfo: meter_infos,
    t.PathTimings: path_timings(),
    t.NetworkTimings: network_timings(),
    t.OperatorTimings: operator_timings(),
    t.LatencyRound: latency_rounds(),
    t.PowerWindow: power_windows(),
    t.MeterSamples: meter_samples(),
    t.PowerTrace: power_traces,
    t.Measurement: measurements(),
    t.Lease: leases,
    t.Device: devices,
    t.OperatorProgress: operator_progress,
    t.DeviceActivity: device_activities,
    t.Run: runs,
    t.LutQuery: lut_queries,
    t.LutSummary: lut_summaries,
    t.Finding: findings,
    t.TagMove: tag_moves,
}
