"""The boards that can be emulated, and every number about them with its reason.

The numbers are a plausible world, not a measured one: a Raspberry Pi 3B draws 0.24 A idle and at most 0.74 A at 5.1 V
(HANNA, arXiv 1906.07214), and needs 0.1–0.4 s for a network of fbnet-cifar10 on one thread. A Pi 4 is about three times
as fast, but not by the same factor everywhere, so that operators rank differently on the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protos.errors import unknown

POINTWISE, GROUPED, DEPTHWISE, SPATIAL, LINEAR, ELEMENTWISE = range(6)  # classes of kernels
KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class ComputeModel:
    """How fast the cores calculate. Tuples over the classes of kernels are in the order POINTWISE … ELEMENTWISE."""

    rate: tuple[float, ...]  # multiply-adds (ELEMENTWISE: elements) per second of one core on a large, friendly shape
    kernel5: float  # rate of a depthwise 5×5 relative to 3×3, per multiply-add
    stride2: float  # the same of stride 2: strided loads
    pixels_half: float  # pixels at which a matrix product reaches half its rate: short rows leave the pipeline empty
    channels_half: float  # the same in input channels: the inner loop's prologue
    tile: int  # output channels are computed in tiles of this many; what does not fill one is wasted
    parallel: tuple[float, ...]  # Amdahl's parallel share
    grain: tuple[float, ...]  # work below which no further thread is woken
    fork_s: float  # to wake and join the threads of one kernel
    overlap: float  # p of (compute^p + memory^p)^(1/p): 1 is no overlap of the two, infinity a perfect one
    dispatch_s: float  # one kernel call through the framework
    module_s: float  # one block's module call in Python, and the loop or the timer around it
    predecessor: float  # how much an operator slows down right after one with a very large intermediate result
    predecessor_half_bytes: float  # the size of that result with half the effect


@dataclass(frozen=True)
class MemoryModel:
    """How fast bytes come."""

    dram_rate: float  # bytes/s that one core gets from memory
    dram_scaling: float  # all threads together get threads^scaling times that
    cache_rate: float  # bytes/s from the last-level cache
    code_rate: float  # bytes/s of instructions that missed
    page_walk: float  # how much slower a very large network is: it overflows the tables of address translation
    page_walk_half_bytes: float  # size of a network's weights with half of that
    packing: float  # times the weights are moved once more inside the cache, to be packed on every call
    stream_share: float  # share of the cache that one range may occupy: what streams through does not flush all
    interpreter_bytes: int  # instructions and data of interpreter and dispatcher that every call touches
    kernel_bytes: int  # the same of one class of kernels
    history_bytes: int  # what a sweep erases beside the cache (address translations, branch history), as bytes of code


@dataclass(frozen=True)
class PowerModel:
    """What the board draws at its input, in watts above idle unless it says otherwise."""

    idle_w: float  # itself, at rest and at its resting temperature
    source_v: float  # of the supply without load
    resistance_ohm: float  # of supply and cable: the voltage sags with the current
    active_w: float  # a core that does anything at all
    spin_w: float  # every further core that works or waits for work
    compute_w: tuple[float, ...]  # per busy core, by class of kernel: vector units
    scaling: float  # n busy cores draw n^scaling times that: they share one cache and one rail, and wait for both
    dram_w: float  # memory interface at full traffic
    clash_w: float  # taken off where compute and memory are both busy: each then waits for the other
    gap_w: float  # while the next load is set up
    burst_w: float  # another process on a free core
    leakage_w_per_c: float  # a warmer chip draws more


@dataclass(frozen=True)
class ThermalModel:
    """Two heat capacities in a row: the chip, and the board that it sits on."""

    chip_c_per_w: float
    chip_s: float  # time constant
    board_c_per_w: float
    board_s: float
    throttle_c: float  # the firmware lowers the clock here …
    release_c: float  # … and raises it again here
    throttled_hz: float


@dataclass(frozen=True)
class DeviceType:
    name: str
    model: str  # what /proc/device-tree/model says
    cores: int
    memory_bytes: int
    cache_bytes: int  # last level, shared
    frequency_hz: float
    compute: ComputeModel
    memory: MemoryModel
    power: PowerModel
    thermal: ThermalModel
    probe_s: float  # the fixed computation that shows the momentary speed
    start_s: float  # of a worker process, which loads the framework
    build_s: float  # of one module


RPI3B = DeviceType(
    name="rpi3b",
    model="Raspberry Pi 3 Model B Rev 1.2",
    cores=4,
    memory_bytes=906 * MIB,  # of 1 GiB, what the GPU leaves
    cache_bytes=512 * KIB,
    frequency_hz=1.2e9,
    compute=ComputeModel(
        # Cortex-A53: in-order, 4 multiply-adds a cycle at best (4.8 G/s); general matrix code reaches 7 % of it on such
        # shapes, depthwise code 1 %: every load stalls the pipeline.
        rate=(3.2e8, 3.1e8, 5.6e7, 1.6e8, 2.2e8, 1.6e8),
        kernel5=0.92,  # 25 taps and their row pointers do not fit the registers, and nothing hides the spills
        stride2=0.75,  # every second element of a vector is thrown away
        pixels_half=5.0,  # a 4 × 4 map reaches 76 %
        channels_half=5.0,  # 16 channels reach 76 %
        tile=8,  # two vector registers of four floats
        # Channels and rows divide well; groups and a single output row do not.
        parallel=(0.93, 0.80, 0.88, 0.90, 0.60, 0.70),
        # About 0.3 ms; elementwise: the framework's own grain, 32768 elements.
        grain=(1.0e5, 8.0e4, 4.0e4, 1.0e5, 1.0e5, 3.3e4),
        fork_s=25e-6,  # a wake-up through the kernel
        overlap=1.8,  # an in-order core stalls on a miss, only the prefetcher overlaps
        dispatch_s=130e-6,  # about 25 × a server's
        module_s=50e-6,  # the same for Python around it
        predecessor=0.028,  # after expansion 6 about 1 % more, after expansion 1 less than the mean (method notes, A2)
        predecessor_half_bytes=160e3,  # a hidden map of the first stages
    ),
    memory=MemoryModel(
        dram_rate=1.1e9,  # LPDDR2-900 × 32 bit, one core
        dram_scaling=0.35,  # one core uses 60 % of what four can get
        cache_rate=3.2e9,  # three times the memory's
        code_rate=1.2e9,  # the memory's: code comes line by line, but the most of it in order
        page_walk=0.10,  # with this networks miss the sum of their operators by 0.5 % on average, as on a server
        page_walk_half_bytes=8e6,  # the middle of the space
        packing=2.0,  # read raw, write packed
        stream_share=0.35,  # the real one replaces at random: a stream leaves some of the rest alone
        interpreter_bytes=96 * KIB,  # what of Python and the dispatcher is used again on every call
        kernel_bytes=28 * KIB,  # an unrolled kernel with its set-up
        history_bytes=2400 * KIB,  # 2 ms, or 1 % of a network: with 512 KiB of cache the contexts nearly agree
    ),
    power=PowerModel(
        idle_w=5.1 * 0.24,
        source_v=5.136,  # 5.1 V at idle
        resistance_ohm=0.15,  # a good cable and the meter's shunt
        active_w=0.46,  # 90 mA: the clock and one core
        spin_w=0.07,
        compute_w=(0.84, 0.72, 0.30, 0.70, 0.55, 0.16),  # depthwise waits more than it calculates
        scaling=0.52,  # so that four cores on the hungriest operator stay below 0.74 A
        dram_w=0.90,
        clash_w=0.15,
        gap_w=0.58,  # Python, with some memory traffic
        burst_w=0.30,  # 60 mA
        leakage_w_per_c=0.0045,  # 1 mA per degree
    ),
    thermal=ThermalModel(
        chip_c_per_w=2.5,
        chip_s=9.0,  # a bare chip without a heat sink
        board_c_per_w=9.5,  # together the 12 °C/W of a bare Pi 3B
        board_s=150.0,
        throttle_c=80.0,  # the firmware's limit
        release_c=77.0,
        throttled_hz=0.9e9,
    ),
    probe_s=2.4e-3,
    start_s=14.0,  # `import torch` alone takes that long
    build_s=2.5e-3,  # random weights
)

# What differs from the Pi 3B has its reason; the rest is the same, scaled to a chip that is about three times as fast.
RPI4 = DeviceType(
    name="rpi4",
    model="Raspberry Pi 4 Model B Rev 1.4",
    cores=4,
    memory_bytes=3792 * MIB,
    cache_bytes=1 * MIB,
    frequency_hz=1.5e9,
    compute=ComputeModel(
        # Cortex-A72: out of order, so depthwise gains most (its stalls are hidden); grouped products, too small for its
        # pipeline, gain least.
        rate=(8.6e8, 4.6e8, 7.0e8, 6.0e8, 6.0e8, 7.0e8),
        kernel5=1.25,  # more arithmetic per load, and enough registers in flight to use it
        stride2=0.9,
        pixels_half=9.0,  # a deeper pipeline: the smallest maps use it worse
        channels_half=8.0,
        tile=12,
        parallel=(0.90, 0.85, 0.93, 0.90, 0.55, 0.60),
        grain=(2.5e5, 2.0e5, 1.0e5, 2.5e5, 2.5e5, 3.3e4),
        fork_s=12e-6,
        overlap=3.5,  # misses are overlapped with work
        dispatch_s=30e-6,
        module_s=13e-6,
        predecessor=0.020,
        predecessor_half_bytes=300e3,
    ),
    memory=MemoryModel(
        dram_rate=3.0e9,  # LPDDR4, but one narrow channel: less gain than in compute
        dram_scaling=0.25,
        cache_rate=9.0e9,
        code_rate=2.6e9,
        page_walk=0.13,
        page_walk_half_bytes=12e6,
        packing=3.0,  # packs for its wider tile in two steps
        stream_share=0.35,
        interpreter_bytes=112 * KIB,
        kernel_bytes=40 * KIB,
        history_bytes=2800 * KIB,
    ),
    power=PowerModel(
        idle_w=5.1 * 0.54,  # twice a Pi 3B's: USB 3, Ethernet and memory never rest
        source_v=5.165,
        resistance_ohm=0.12,
        active_w=0.62,
        spin_w=0.16,
        compute_w=(0.90, 0.80, 1.45, 0.95, 0.60, 0.35),  # depthwise keeps all ports busy here
        scaling=0.6,
        dram_w=0.95,  # LPDDR4 and its controller
        clash_w=0.25,
        gap_w=0.70,
        burst_w=0.55,
        leakage_w_per_c=0.008,
    ),
    thermal=ThermalModel(
        chip_c_per_w=2.0,
        chip_s=7.0,
        board_c_per_w=6.5,
        board_s=220.0,
        throttle_c=80.0,
        release_c=77.0,
        throttled_hz=1.0e9,
    ),
    probe_s=0.8e-3,
    start_s=4.5,
    build_s=0.8e-3,
)

_TYPES: Mapping[str, DeviceType] = {kind.name: kind for kind in (RPI3B, RPI4)}


def device_types() -> tuple[str, ...]:
    """The names of the boards that can be emulated."""
    return tuple(_TYPES)


def device_type(name: str) -> DeviceType:
    """The board called `name`; raises BadInputError, which names those that exist."""
    if name not in _TYPES:
        raise unknown("emulated device type", name, _TYPES)
    return _TYPES[name]
