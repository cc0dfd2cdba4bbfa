"""Energy counters of an x86 processor (RAPL), for `--device local`.

Configuration to paste (by default only root may read the counters; the rule is in the second line)::

    edgelut-agent run --meter rapl
    sudo chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj

Options: `rate_hz` (20; the counters advance every millisecond). PORT names a domain (`rapl:package-0`, `rapl:core`).
This is the energy of the processor, not of the machine. RAPL knows neither voltage nor current: `current_a` is that of
a 1 V line, so that V · I is the power.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.meters.base import Clock, LineDecoder, Meter, Reading
from agent.meters.polled import PolledMeter
from agent.meters.spec import MeterSpec
from protos.errors import BadInputError
from protos.types import MeterInfo

ROOT = Path("/sys/class/powercap")
UPDATE_S = 0.001
MOST_W = 2000.0


class RaplDecoder(LineDecoder):
    """Lines `time_ns energy_uj`; the counter wraps at `wrap_uj`. Each line but the first gives the mean power since
    the one before.
    """

    def __init__(self, wrap_uj: int = 1 << 32) -> None:
        super().__init__()
        self._wrap_uj = wrap_uj
        self._last: tuple[int, int] | None = None
        self._energy_uj = 0

    def _line(self, line: str) -> Sequence[Reading] | str:
        words = line.split()
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            return "line that is not a time and an energy"
        time_ns, energy_uj = map(int, words)
        if self._last is None:
            self._last = (time_ns, energy_uj)
            return ()
        passed_ns, used_uj = time_ns - self._last[0], (energy_uj - self._last[1]) % self._wrap_uj
        if passed_ns <= 0:
            return "line whose time runs backwards"
        self._last = (time_ns, energy_uj)
        self._energy_uj += used_uj
        power_w = used_uj * 1e3 / passed_ns
        if power_w > MOST_W:
            return "power that no processor takes (the counter was reset)"
        return (Reading(1.0, power_w, power_w, device_time_s=time_ns * 1e-9, energy_j=self._energy_uj * 1e-6),)

    def reset(self) -> None:
        self._tail.clear()
        self._last = None


def find(name: str, root: Path = ROOT) -> Path:
    """The folder of a domain, by its name; BadInputError names what is there."""
    folders = {f"{(p / 'name').read_text().strip()}": p for p in sorted(root.glob("*rapl:*")) if (p / "name").exists()}
    wanted = name or next(iter(folders), "")
    if wanted not in folders:
        there = ", ".join(folders) or "none: not an x86 machine, or a virtual one"
        raise BadInputError(f"meter rapl:{name}: there is no such domain (there are: {there}).")
    return folders[wanted]


def decoder(kind: str, options: Mapping[str, str]) -> RaplDecoder:
    MeterSpec(kind, "", options).only("wrap_uj")
    return RaplDecoder(round(MeterSpec(kind, "", options).number("wrap_uj", 1 << 32, 1, 1 << 62)))


def open_meter(spec: MeterSpec, clock: Clock, root: Path = ROOT) -> Meter:
    spec.only("rate_hz")
    folder = find(spec.port, root)
    counter = folder / "energy_uj"

    def read() -> bytes:
        return f"{clock.now_ns()} {counter.read_text().strip()}\n".encode()

    try:
        wrap_uj = int((folder / "max_energy_range_uj").read_text()) + 1
        read()
    except PermissionError as error:
        raise BadInputError(f"meter {spec}: no permission for {counter}: `sudo chmod a+r {counter}`.") from error
    except OSError as error:
        raise BadInputError(f"meter {spec}: {counter} cannot be read: {error}.") from error
    name = (folder / "name").read_text().strip()
    info = MeterInfo("rapl", name, f"RAPL {name}", rate_hz=spec.number("rate_hz", 20.0, 0.1, 200.0))
    return PolledMeter(info, clock, RaplDecoder(wrap_uj), read, UPDATE_S, over_interval=True)
