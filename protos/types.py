"""The shared vocabulary, standard library only.

Every class is frozen and validated at birth: a value that cannot be true raises `ValueError` with a sentence. Field
names are those of the messages in ``protos/*.proto``. Sequences of numbers are tuples; units stand in the names.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Literal

SKIP = "skip"
BLOCK_KINDS = ("mbconv", "conv", "pool_linear", "dense", "pool", "norm", SKIP)
ACTIVATIONS = ("none", "relu", "relu6")
NORMS = ("none", "batch")

Method = Literal["paths", "isolated"]
Context = Literal["cold", "steady"]
METHODS: tuple[str, ...] = ("paths", "isolated")
CONTEXTS: tuple[str, ...] = ("cold", "steady")
ROLES = ("fit", "validation", "anchor")
EMULATIONS = ("none", "meter", "device")
SUBJECTS = ("idle", "item", "network", "gap")
METER_KINDS = (
    "atorch", "auto", "avhzy", "csv", "dl24m", "emulated", "hwmon", "j7c", "pi5-pmic", "ppk2", "rapl", "replay",
    "smartpower2", "smartpower3", "tc66c", "um24c", "um25c", "um34c",
)  # fmt: skip
RUN_STATES = ("queued", "latency", "energy", "building", "done", "failed", "cancelled")
ENDED_STATES = ("done", "failed", "cancelled")

FIXED_LAYER = -1  # CellRef.layer of the stem and head operators


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    _check(value in allowed, f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def digest_of(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`: sorted keys, no blanks."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# ---- what can be chosen ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockSpec:
    """The complete description of one operator; two equal specs are the same operator and are measured once.

    kind: "mbconv" is 1×1 expand → ReLU → depthwise k×k (stride) → ReLU → 1×1 project, with a channel shuffle after each
    grouped 1×1 and a residual when stride is 1 and the channels match; "conv" is one k×k convolution with bias, padding
    k // 2 and `activation`; "pool_linear" is a global average pool and a linear layer; "dense" is CondenseNet's layer
    as it runs (its input beside out_channels − in_channels new maps, made from expansion times as many); "pool"
    averages windows of stride × stride; "norm" is norm and activation alone; "skip" is nothing and costs nothing.
    """

    kind: str
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    expansion: int = 1
    groups: int = 1
    activation: str = "relu"
    norm: str = "none"
    bits: int = 32
    input_height: int = 1
    input_width: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, BLOCK_KINDS)
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("norm", self.norm, NORMS)
        for name in (
            "in_channels",
            "out_channels",
            "kernel",
            "stride",
            "expansion",
            "groups",
            "input_height",
            "input_width",
            "batch",
        ):
            value = getattr(self, name)
            _check(
                isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 20,
                f"{name} is {value!r}; it must be a whole number from 1 to 1048576",
            )
        _check(self.kernel % 2 == 1, f"kernel is {self.kernel}; it must be odd, so that padding keeps the size")
        _check(self.bits == 32, f"bits is {self.bits}; only 32 (float) can be measured")
        if self.kind == SKIP:
            same = self.in_channels == self.out_channels and self.stride == 1
            _check(same, "a skip cannot change the channels or the resolution")
        if self.kind in ("pool", "norm"):
            same = self.in_channels == self.out_channels and (self.stride == 1 or self.kind == "pool")
            _check(
                same, f"a {self.kind} cannot change the channels{'' if self.kind == 'pool' else ' or the resolution'}"
            )
        if self.kind == "dense":
            grows = self.out_channels > self.in_channels and self.stride == 1
            _check(grows, "a dense layer adds channels to its input and keeps the resolution")
        _check(self.kind != "norm" or self.norm != "none", "a norm needs a norm: batch")
        hidden = self.in_channels * self.expansion
        divides = all(c % self.groups == 0 for c in (self.in_channels, self.out_channels, hidden))
        _check(
            divides, f"groups is {self.groups}; it must divide the channels {self.in_channels} and {self.out_channels}"
        )

    @property
    def output_height(self) -> int:
        return 1 if self.kind == "pool_linear" else -(-self.input_height // self.stride)

    @property
    def output_width(self) -> int:
        return 1 if self.kind == "pool_linear" else -(-self.input_width // self.stride)

    @cached_property
    def operator_id(self) -> str:
        """16 hexadecimal digits that name this operator everywhere."""
        return digest_of(asdict(self))[:16]

    def label(self) -> str:
        """A short name for people: ``mbconv 16→24 k3 s2 e6 @16×16``."""
        if self.kind == SKIP:
            return SKIP
        parts = [self.kind, f"{self.in_channels}→{self.out_channels}"]
        if self.kind == "pool":
            parts.append(f"s{self.stride}")
        if self.kind in ("mbconv", "conv", "dense"):
            parts.append(f"k{self.kernel} s{self.stride}")
        if self.kind in ("mbconv", "dense"):
            parts.append(f"e{self.expansion}")
        if self.groups > 1:
            parts.append(f"g{self.groups}")
        if self.norm != "none":
            parts.append(self.norm)
        return " ".join([*parts, f"@{self.input_height}×{self.input_width}"])


@dataclass(frozen=True)
class Cell:
    """One candidate on one layer; without a spec the candidate is not allowed there."""

    spec: BlockSpec | None = None


@dataclass(frozen=True)
class Layer:
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class SearchSpace:
    """Ordered layers with one cell per candidate name, and the fixed operators before (stem) and after (head) them."""

    name: str
    op_names: tuple[str, ...]
    layers: tuple[Layer, ...]
    stem: tuple[BlockSpec, ...] = ()
    head: tuple[BlockSpec, ...] = ()

    def __post_init__(self) -> None:
        _check(bool(self.name), "a search space needs a name")
        _check(bool(self.layers), f"space {self.name}: no layers")
        _check(0 < len(self.op_names) < 256, f"space {self.name}: there must be 1 to 255 candidate names")
        _check(len(set(self.op_names)) == len(self.op_names), f"space {self.name}: a candidate name stands twice")
        shape = self._output_of_stem()
        for index, layer in enumerate(self.layers):
            _check(
                len(layer.cells) == len(self.op_names),
                f"space {self.name}, layer {index}: {len(layer.cells)} cells for {len(self.op_names)} candidate names",
            )
            shape = self._check_layer(index, layer, shape)
        for spec in self.head:
            shape = self._chain(f"head {spec.kind}", spec, shape)

    def _output_of_stem(self) -> tuple[int, int, int] | None:
        shape: tuple[int, int, int] | None = None
        for spec in self.stem:
            shape = self._chain(f"stem {spec.kind}", spec, shape)
        return shape

    def _chain(self, where: str, spec: BlockSpec, shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
        taken = (spec.in_channels, spec.input_height, spec.input_width)
        _check(
            shape is None or taken == shape,
            f"space {self.name}, {where}: takes {taken} (channels, height, width) but gets {shape}",
        )
        return spec.out_channels, spec.output_height, spec.output_width

    def _check_layer(self, index: int, layer: Layer, shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
        specs = [cell.spec for cell in layer.cells if cell.spec is not None]
        _check(bool(specs), f"space {self.name}, layer {index}: no candidate is allowed")
        outputs = {self._chain(f"layer {index}", spec, shape) for spec in specs}
        _check(
            len(outputs) == 1, f"space {self.name}, layer {index}: candidates give different shapes: {sorted(outputs)}"
        )
        return outputs.pop()

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, candidates)."""
        return len(self.layers), len(self.op_names)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W) that a network of this space takes."""
        first = self.stem[0] if self.stem else next(c.spec for c in self.layers[0].cells if c.spec is not None)
        return first.batch, first.in_channels, first.input_height, first.input_width

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything but the name: spaces with the same operators are the same space."""
        document = asdict(self)
        document.pop("name")
        return digest_of(document)

    def spec(self, layer: int, op: int) -> BlockSpec | None:
        """The operator of a cell; layer -1 counts through stem, then head."""
        return (self.stem + self.head)[op] if layer == FIXED_LAYER else self.layers[layer].cells[op].spec

    def allowed(self, layer: int) -> tuple[int, ...]:
        """The candidates that may be chosen on `layer`."""
        return tuple(op for op, cell in enumerate(self.layers[layer].cells) if cell.spec is not None)

    def check_choices(self, choices: tuple[int, ...]) -> None:
        """Raise ValueError naming the first cell of `choices` that is out of range or not allowed."""
        _check(
            len(choices) == len(self.layers),
            f"space {self.name}: {len(choices)} choices for {len(self.layers)} layers",
        )
        for layer, op in enumerate(choices):
            _check(
                0 <= op < len(self.op_names),
                f"space {self.name}, layer {layer}: choice {op} is out of range 0…{len(self.op_names) - 1}",
            )
            _check(
                self.layers[layer].cells[op].spec is not None,
                f"space {self.name}, layer {layer}: {self.op_names[op]} is not allowed",
            )


@dataclass(frozen=True)
class CellRef:
    """layer counts from 0; layer -1 is stem or head, and op is then the position in stem followed by head."""

    layer: int
    op: int


@dataclass(frozen=True)
class PlanItem:
    """One operator to measure and every cell that it stands for."""

    spec: BlockSpec
    cells: tuple[CellRef, ...]

    def __post_init__(self) -> None:
        _check(bool(self.cells), "a plan item stands for no cell")


@dataclass(frozen=True)
class Network:
    """A whole architecture that is measured end to end, with weights of its own."""

    role: str
    choices: tuple[int, ...]

    def __post_init__(self) -> None:
        _one_of("role", self.role, ROLES)


# ---- what is asked for ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeasurementPlan:
    """How to measure. Times are device time (an emulated device may run faster than the wall clock)."""

    method: str = "paths"
    context: str = "cold"
    threads: int = 1
    rounds_per_task: int = 10
    paths_per_round: int = 40
    warmup_calls: int = 0  # untimed calls before the timed ones; 0 in `cold`, where one call follows a sweep
    timed_calls: int = 1
    sweep_bytes: int = 0  # 0: the agent chooses from the board's caches, and says what it chose
    target_rel_halfwidth: float = 0.01
    latency_budget_s: float = 480.0
    energy_budget_s: float = 0.0
    window_s: float = 2.0
    idle_s: float = 6.0
    idle_share: float = 0.2
    network_window_s: float = 6.0
    network_share: float = 0.15
    segment_s: float = 300.0
    isolated_every: int = 0  # method "paths": every n-th round also runs hot loops, to show their error; 0: never
    other_context_every: int = 0  # every n-th round also times the validation networks in the other context; 0: never
    networks_per_round: int = 0  # a round times this many of the run's networks, in turn; 0: all of them

    def __post_init__(self) -> None:
        _one_of("method", self.method, METHODS)
        _one_of("context", self.context, CONTEXTS)
        _check(1 <= self.threads <= 1024, f"threads is {self.threads}; it must be 1 to 1024")
        _check(self.timed_calls >= 1, "timed_calls must be at least 1")
        _check(self.rounds_per_task >= 1, "rounds_per_task must be at least 1")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)):
                _check(
                    math.isfinite(value) and value >= 0, f"{item.name} is {value}; it must be finite and not negative"
                )


@dataclass(frozen=True)
class RunSpec:
    """A request to profile a space on a device; complete, so that a coordinator needs to know no space by name."""

    device: str
    space: SearchSpace
    items: tuple[PlanItem, ...]
    networks: tuple[Network, ...]
    plan: MeasurementPlan
    preset: str = "standard"
    dedupe: bool = True
    meter: str = ""
    seed: int = 0
    purpose: str = "profile"
    lut_digest: str = ""

    def __post_init__(self) -> None:
        _check(bool(self.device), "a run needs a device type or a device's name")
        _one_of("purpose", self.purpose, ("profile", "validate"))
        _check(0 <= self.seed < 1 << 64, f"seed is {self.seed}; it must be 0 to 2^64 - 1")
        for network in self.networks:
            self.space.check_choices(network.choices)
        for item in self.items:
            for cell in item.cells:
                _check(
                    -1 <= cell.layer < len(self.space.layers),
                    f"a plan item names layer {cell.layer}, which space {self.space.name} does not have",
                )
                spec = self.space.spec(cell.layer, cell.op)
                _check(spec == item.spec, f"a plan item for {item.spec.label()} names a cell of another operator")


@dataclass(frozen=True)
class Configuration:
    """What a LUT belongs to. Versions of one configuration follow each other; two configurations never mix."""

    device_type: str
    space: str
    emulation: str = "none"
    context: str = "cold"
    threads: int = 1
    batch: int = 1
    runtime: str = "torch-eager"
    precision: str = "float32"

    def __post_init__(self) -> None:
        _check(bool(self.device_type) and bool(self.space), "a configuration needs a device type and a space")
        _one_of("emulation", self.emulation, EMULATIONS)
        _one_of("context", self.context, CONTEXTS)


# ---- the board and the meter ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostFacts:
    """What does not change while the board runs. torch_version is empty until the worker has said it."""

    model: str = ""
    machine: str = ""
    kernel: str = ""
    cpu_count: int = 1
    memory_bytes: int = 0
    l2_bytes: int | None = None
    llc_bytes: int | None = None
    python_version: str = ""
    torch_version: str = ""
    torch_build: str = ""
    edgelut_version: str = ""


@dataclass(frozen=True)
class HostState:
    """The board at one moment; what could not be read is None."""

    monotonic_ns: int
    wall_time_s: float = 0.0
    temp_c: float | None = None
    frequency_hz: float | None = None
    governor: str | None = None
    throttled_bits: int | None = None
    load_1m: float | None = None
    memory_available_bytes: int | None = None
    other_cpu_share: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)):
                _check(math.isfinite(value), f"host state: {item.name} is {value}")


@dataclass(frozen=True)
class Calibration:
    """What `edgelut-agent calibrate` found of a meter with a square wave of load (keys: docs/lut-format.md).

    lag_s is the mean of the meter's impulse response, settling_s the time until its values stay within 5 % of a step,
    noise_w the standard deviation of one new value while the board is idle.
    """

    lag_s: float
    settling_s: float
    noise_w: float
    update_period_s: float
    idle_w: float
    step_w: float
    lag_se_s: float | None = None
    idle_a: float | None = None
    cycles: int = 0
    duration_s: float = 0.0
    measured_wall_s: float = 0.0
    firmware: str = ""
    edgelut_version: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)):
                _check(math.isfinite(value), f"meter calibration: {item.name} is {value}")
        _check(min(self.settling_s, self.noise_w, self.update_period_s) >= 0, "meter calibration: a negative width")


@dataclass(frozen=True)
class MeterInfo:
    kind: str
    port: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    rate_hz: float = 0.0
    emulated: bool = False
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        _check(math.isfinite(self.rate_hz) and self.rate_hz >= 0, f"meter {self.kind}: rate_hz is {self.rate_hz}")


# ---- evidence -------------------------------------------------------------------------------------------------------


def _check_times(name: str, values: tuple[int, ...], *, zero: bool = False) -> None:
    low = 0 if zero else 1
    for value in values:
        _check(low <= value < 1 << 50, f"{name} holds {value} ns; a time must be positive and below 13 days")


@dataclass(frozen=True)
class PathTimings:
    """Random paths with a timer around every block; rows = paths × calls in the order they ran.

    choices (paths, layers) and block_ns (rows, stem + layers + head) are row-major; a removed skip has 0 in its slot.
    """

    calls: int
    choices: tuple[int, ...]
    block_ns: tuple[int, ...]
    total_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(self.calls >= 1, "path timings: calls must be at least 1")
        _check(len(self.total_ns) % self.calls == 0, "path timings: total_ns does not hold whole paths")
        _check_times("block_ns", self.block_ns, zero=True)
        _check_times("total_ns", self.total_ns)


@dataclass(frozen=True)
class NetworkTimings:
    """Whole networks: `network` (n) indexes RunSpec.networks, total_ns is (n, calls) row-major."""

    calls: int
    network: tuple[int, ...]
    total_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(
            self.calls >= 1 and len(self.total_ns) == len(self.network) * self.calls,
            f"network timings: {len(self.total_ns)} times for {len(self.network)} networks × {self.calls} calls",
        )
        _check_times("total_ns", self.total_ns)


@dataclass(frozen=True)
class OperatorTimings:
    """Hot loops over single operators: `item` (n) indexes RunSpec.items, total_ns is (n, calls) row-major."""

    calls: int
    item: tuple[int, ...]
    total_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(
            self.calls >= 1 and len(self.total_ns) == len(self.item) * self.calls,
            f"operator timings: {len(self.total_ns)} times for {len(self.item)} operators × {self.calls} calls",
        )
        _check_times("total_ns", self.total_ns)


@dataclass(frozen=True)
class LatencyRound:
    """Everything that was timed in one round, shuffled together.

    An execution is one path, network or operator with all its calls; `order` (executions) counts through paths, then
    networks, then operators. `probe_ns` (executions + 1) times a short fixed computation before each and after the
    last: how fast the machine was at that moment.
    """

    round_index: int
    started_ns: int
    ended_ns: int
    sweep_bytes: int = 0
    threads: int = 1
    paths: PathTimings | None = None
    networks: NetworkTimings | None = None
    operators: OperatorTimings | None = None
    order: tuple[int, ...] = ()
    probe_ns: tuple[int, ...] = ()
    other_context: NetworkTimings | None = None  # in some rounds: the validation networks in the context not chosen

    def __post_init__(self) -> None:
        _check(self.ended_ns > self.started_ns, "a latency round ends before it starts")
        executions = (
            (len(self.paths.total_ns) // self.paths.calls if self.paths else 0)
            + (len(self.networks.network) if self.networks else 0)
            + (len(self.operators.item) if self.operators else 0)
        )
        _check(
            sorted(self.order) == list(range(executions)), "a latency round: order does not name every execution once"
        )
        _check(len(self.probe_ns) == executions + 1, "a latency round: probe_ns does not frame every execution")
        _check_times("probe_ns", self.probe_ns)


@dataclass(frozen=True)
class PowerWindow:
    """What the board did from started_ns to ended_ns; `index` into RunSpec.items or .networks, by `subject`."""

    subject: str
    started_ns: int
    ended_ns: int
    index: int = 0
    count: int = 0

    def __post_init__(self) -> None:
        _one_of("subject", self.subject, SUBJECTS)
        _check(self.ended_ns >= self.started_ns, "a power window ends before it starts")


@dataclass(frozen=True)
class MeterSamples:
    """Columns of equal length; `fresh` is False for a repeat of a value that the meter had already given."""

    t_ns: tuple[int, ...] = ()
    voltage_v: tuple[float, ...] = ()
    current_a: tuple[float, ...] = ()
    power_w: tuple[float, ...] = ()
    fresh: tuple[bool, ...] = ()
    temp_c: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.t_ns)
        for name in ("voltage_v", "current_a", "power_w", "fresh"):
            _check(len(getattr(self, name)) == n, f"meter samples: {name} has not the length of t_ns ({n})")
        _check(len(self.temp_c) in (0, n), f"meter samples: temp_c has not the length of t_ns ({n})")
        for name in ("voltage_v", "current_a", "power_w"):
            _check(
                all(map(math.isfinite, getattr(self, name))), f"meter samples: {name} holds a value that is not finite"
            )
        _check(
            all(a <= b for a, b in zip(self.t_ns, self.t_ns[1:], strict=False)), "meter samples: time runs backwards"
        )


@dataclass(frozen=True)
class PowerTrace:
    """A stretch of an energy trace; chunks of one segment follow each other without a hole and are fitted together."""

    segment_id: str
    chunk: int
    windows: tuple[PowerWindow, ...]
    samples: MeterSamples
    meter: MeterInfo
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Raw evidence from one task: either latency or power. The id is made on the device; a repeat is harmless."""

    id: str
    task_id: str
    fence: int
    sequence: int
    before: HostState
    after: HostState
    flags: tuple[str, ...] = ()
    latency: LatencyRound | None = None
    power: PowerTrace | None = None

    def __post_init__(self) -> None:
        _check(0 < len(self.id) <= 64, "a measurement needs an id of at most 64 characters")
        _check((self.latency is None) != (self.power is None), "a measurement holds either latency or power")


# ---- talk -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """The right to do one task; a measurement with an older fence is refused."""

    task_id: str
    fence: int
    run_id: str
    kind: str
    seed: int
    first_round: int
    run: RunSpec


@dataclass(frozen=True)
class Device:
    name: str
    device_type: str
    emulation: str = "none"
    state: str = "gone"
    reason: str = ""
    last_seen_s: float = 0.0
    version: str = ""
    facts: HostFacts = field(default_factory=HostFacts)
    host: HostState | None = None
    meter: MeterInfo | None = None


@dataclass(frozen=True)
class OperatorProgress:
    item: int
    n: int
    rel_halfwidth: float | None = None


@dataclass(frozen=True)
class DeviceActivity:
    device: str
    activity: str = ""
    current_a: float | None = None
    temp_c: float | None = None


@dataclass(frozen=True)
class Run:
    """A run as an operator sees it."""

    run_id: str
    state: str
    reason: str = ""
    spec: RunSpec | None = None
    created_wall_s: float = 0.0
    latency_device_s: float = 0.0
    energy_device_s: float = 0.0
    rounds: int = 0
    rounds_flagged: int = 0
    rel_halfwidth: float | None = None
    eta_s: float | None = None
    operators: tuple[OperatorProgress, ...] = ()
    devices: tuple[DeviceActivity, ...] = ()
    lut_digest: str = ""
    lut_reference: str = ""
    report: str = ""  # of "done" with purpose "validate": prediction against measurement, as JSON


@dataclass(frozen=True)
class LutQuery:
    """Empty or absent fields match anything; `digest` alone names one version."""

    device_type: str = ""
    space: str = ""
    version: str = ""
    emulation: str = ""
    context: str = ""
    threads: int | None = None
    batch: int | None = None
    runtime: str = ""
    precision: str = ""
    digest: str = ""


@dataclass(frozen=True)
class LutSummary:
    device_type: str
    space: str
    version: int
    digest: str
    emulation: str
    context: str
    threads: int
    batch: int
    runtime: str
    precision: str
    method: str
    created_wall_s: float
    run_id: str
    latency_mape: float | None = None
    energy_mape: float | None = None
    tags: tuple[str, ...] = ()  # that point here now


# ---- what is said of a LUT ------------------------------------------------------------------------------------------

SEVERITIES = ("error", "warning")


@dataclass(frozen=True)
class Finding:
    """Something that a reader of a LUT must know, in a sentence with its numbers.

    rule: which check found it; severity: an "error" makes a LUT unfit for the tag `stable`; metric: "latency",
    "energy" or "" for neither; cells: those that it is about, none when it is about the whole.
    """

    rule: str
    severity: str
    sentence: str
    metric: str = ""
    cells: tuple[CellRef, ...] = ()

    def __post_init__(self) -> None:
        _one_of("severity", self.severity, SEVERITIES)


@dataclass(frozen=True)
class TagMove:
    """A tag of one configuration that was set on a version: the newest move of a name is the tag itself.

    previous_version is 0 for a new tag. `forced`: it was set although `objections`, the policy's sentences, spoke
    against it.
    """

    device_type: str
    space: str
    emulation: str
    context: str
    threads: int
    batch: int
    runtime: str
    precision: str
    name: str
    version: int
    digest: str
    previous_version: int
    moved_wall_s: float
    moved_by: str
    forced: bool = False
    reason: str = ""
    objections: tuple[str, ...] = ()
