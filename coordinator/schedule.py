"""What a run does next and which board does it: pure functions, without gRPC, clock or database.

`next_move` looks at one run and says what it needs; `assign` gives the free boards to the runs that want work;
`choose_boards` says which boards may take part in a run at all. None of them depends on the order of its input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from protos.types import EMULATIONS, ENDED_STATES, RunSpec, digest_of

# A task that failed is tried again this many times, then its run fails with the reason of the last attempt.
MAX_RETRIES = 3
# The evidence is looked at when the clean rounds have grown by this factor since the last look: a few planned looks,
# because stopping at the first lucky one of many would make the intervals too narrow (the more looks, the more chances
# to stop early).
LOOK_GROWTH = 1.25
_UNLIMITED = 1 << 20
_TASK = {"latency": "a latency task", "energy": "an energy task"}
LIKENESS = 0.75  # of a name that was probably meant: rpi4 is no misspelling of rpi3b


@dataclass(frozen=True)
class Board:
    """A device with a session. free: it has no lease, is not resting after a failure and is not broken."""

    name: str
    device_type: str
    emulation: str
    free: bool
    broken: str = ""
    has_meter: bool = False


@dataclass(frozen=True)
class TaskView:
    """state: "pending", "leased" or "done"; attempts counts the failures so far."""

    task_id: str
    kind: str
    state: str
    device: str = ""
    attempts: int = 0
    reason: str = ""
    fence: int = 0


@dataclass(frozen=True)
class Tally:
    """What is stored for a run. Device times in seconds include flagged rounds, because the board spent them."""

    rounds: int = 0
    rounds_flagged: int = 0
    latency_device_s: float = 0.0
    energy_device_s: float = 0.0
    looked_rounds: int = 0  # clean rounds at the last look
    rel_halfwidths: tuple[float | None, ...] = ()  # of that look, by item

    @property
    def worst_rel_halfwidth(self) -> float | None:
        """The widest operator's; None when one of them is not known yet."""
        known = [h for h in self.rel_halfwidths if h is not None]
        return max(known) if known and len(known) == len(self.rel_halfwidths) else None


@dataclass(frozen=True)
class Enter:
    """The run goes on to another state."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Look:
    """The evidence has grown: estimate how wide the intervals are."""


@dataclass(frozen=True)
class Work:
    """The run can use up to `boards` more boards for tasks of this kind."""

    kind: str
    boards: int
    waits_for: str = ""  # when no board is free for it: what it waits for


@dataclass(frozen=True)
class Wait:
    reason: str


Move = Enter | Look | Work | Wait


def matches(device: str, board: Board) -> bool:
    """Whether a run on `device`, a type or a name, may use the board."""
    return device in (board.name, board.device_type)


def choose_boards(device: str, boards: Iterable[Board], emulation: str | None) -> tuple[tuple[Board, ...], str]:
    """The connected boards that may take part in a run, by name, and a sentence about those that are left out.

    `emulation` is that of the run once a board has worked for it; until then a board of that very name wins, and real
    boards win over emulated ones. Boards of another emulation are left out: what they measure is another configuration.
    """
    fitting = [board for board in boards if matches(device, board)]
    named = [board for board in fitting if board.name == device]
    fitting = named or fitting
    if emulation is None and fitting:
        emulation = min((board.emulation for board in fitting), key=EMULATIONS.index)
    chosen = sorted((board for board in fitting if board.emulation == emulation), key=lambda board: board.name)
    left_out = sorted(board.name for board in fitting if board.emulation != emulation)
    note = ""
    if left_out and emulation is not None:
        kind = {"none": "real boards", "meter": "boards with an emulated meter", "device": "emulated devices"}[
            emulation
        ]
        note = f"the run uses {kind} only; left out: {', '.join(left_out)}"
    return tuple(chosen), note


def next_move(spec: RunSpec, state: str, tasks: Sequence[TaskView], tally: Tally, boards: Sequence[Board]) -> Move:
    """What the run needs now. `boards` are those of `choose_boards`."""
    if state in ENDED_STATES:
        return Wait("")
    kind = "energy" if state == "energy" else "latency"
    failed = [task for task in tasks if task.kind == kind and task.state != "done" and task.attempts > MAX_RETRIES]
    if failed and state != "building":
        worst = min(failed, key=lambda task: task.task_id)
        return Enter("failed", f"{_TASK[kind]} failed {worst.attempts} times: {worst.reason}")
    if state == "queued":
        started = any(task.state != "pending" for task in tasks)
        return Enter("latency") if started else _latency_move(spec, tasks, tally, boards)
    if state == "latency":
        return _latency_move(spec, tasks, tally, boards)
    if state == "energy":
        return _energy_move(spec, tasks, boards)
    return Wait("the LUT is being built")


def _latency_move(spec: RunSpec, tasks: Sequence[TaskView], tally: Tally, boards: Sequence[Board]) -> Move:
    latency = [task for task in tasks if task.kind == "latency"]
    done = sum(task.state == "done" for task in latency)
    leased = sum(task.state == "leased" for task in latency)
    # What a task costs; too low while those under way have stored nothing, which errs on more work.
    task_s = tally.latency_device_s / (done + leased) if done else 0.0
    left_s = spec.plan.latency_budget_s - tally.latency_device_s
    # Less than half a task is left: one more would go further beyond the budget than stopping stays below it.
    spent = left_s <= 0 or left_s < task_s / 2
    grown = tally.rounds >= max(1.0, LOOK_GROWTH * tally.looked_rounds)
    at_the_end = spent and not leased and tally.rounds > tally.looked_rounds
    if spec.items and ((done and grown) or at_the_end):
        return Look()
    if spent or _tight(spec, tally):
        return _after_latency(spec, leased, boards)
    room = _UNLIMITED if task_s == 0 else round(min(left_s / task_s, _UNLIMITED)) - leased
    if room <= 0 and leased:
        return Wait("the tasks under way will use up the budget of device time")
    return Work("latency", max(1, room), _waits_for(spec, boards))


def _tight(spec: RunSpec, tally: Tally) -> bool:
    """Every interval is narrow enough, and more rounds are clean than flagged: else the look had to use the flagged
    ones.
    """
    worst = tally.worst_rel_halfwidth
    return worst is not None and worst <= spec.plan.target_rel_halfwidth and tally.rounds >= tally.rounds_flagged


def _after_latency(spec: RunSpec, leased: int, boards: Sequence[Board]) -> Move:
    if energy_segments(spec):
        usable = [board for board in boards if not board.broken]
        if any(can_meter(spec, board) for board in usable):
            return Enter("energy")
        if not usable:
            return Wait(f"waits for {spec.device} to come back, to measure energy")
    if leased:
        return Wait("waits for the last latency tasks")
    return Enter("building")


def _energy_move(spec: RunSpec, tasks: Sequence[TaskView], boards: Sequence[Board]) -> Move:
    done = sum(task.kind == "energy" and task.state == "done" for task in tasks)
    leased = sum(task.state == "leased" for task in tasks)
    leased_energy = sum(task.kind == "energy" and task.state == "leased" for task in tasks)
    segments = energy_segments(spec)
    if done >= segments:
        return Wait("waits for the last tasks") if leased else Enter("building")
    needed = segments - done - leased_energy
    if needed <= 0:
        return Wait("the last energy segments are under way")
    return Work("energy", needed, _waits_for(spec, boards, meter=True))


def energy_segments(spec: RunSpec) -> int:
    """How many energy tasks the run asks for; 0 when it asks for no energy."""
    if spec.plan.energy_budget_s <= 0 or spec.meter == "none":
        return 0
    if spec.plan.segment_s <= 0:
        return 1
    return math.ceil(spec.plan.energy_budget_s / spec.plan.segment_s - 1e-9)


def can_meter(spec: RunSpec, board: Board) -> bool:
    """Whether the board can do an energy task of the run: it has a meter, or the run names one for it to open."""
    return board.has_meter or spec.meter not in ("", "none")


def _waits_for(spec: RunSpec, boards: Sequence[Board], *, meter: bool = False) -> str:
    fit = [board for board in boards if can_meter(spec, board)] if meter else list(boards)
    what = f"{spec.device} with a meter" if meter else spec.device
    if not fit:
        return f"waits for {what}: none is connected"
    if any(board.free and not board.broken for board in fit):
        return ""
    broken = sorted(f"{board.name} ({board.broken})" for board in fit if board.broken)
    busy = len(fit) - len(broken)
    if broken and not busy:
        return f"waits for {what}: broken is {', '.join(broken)}"
    return f"waits for {what}: {busy} busy" + (f", broken is {', '.join(broken)}" if broken else "")


@dataclass(frozen=True)
class Demand:
    """A run that wants work: its move, the boards that may do it and how many it holds already."""

    run_id: str
    created_wall_s: float
    work: Work
    boards: tuple[Board, ...]
    held: int = 0


def assign(demands: Sequence[Demand]) -> list[tuple[str, str]]:
    """(run_id, board name) pairs: each free board to one run, each time to the run that holds the fewest, then the
    oldest.

    A board that few runs can use is given first to them: boards are tried in the order of how many runs want them, so
    that a run on one named board is not starved by a run on its whole type.
    """
    wanted: dict[str, list[Demand]] = {}
    for demand in demands:
        for board in demand.boards:
            if board.free and not board.broken:
                wanted.setdefault(board.name, []).append(demand)
    held = {demand.run_id: demand.held for demand in demands}
    room = {demand.run_id: demand.work.boards for demand in demands}
    out = []
    for name in sorted(wanted, key=lambda name: (len(wanted[name]), name)):
        takers = [demand for demand in wanted[name] if room[demand.run_id] > 0]
        if not takers:
            continue
        best = min(takers, key=lambda demand: (held[demand.run_id], demand.created_wall_s, demand.run_id))
        held[best.run_id] += 1
        room[best.run_id] -= 1
        out.append((best.run_id, name))
    return out


def task_seed(spec: RunSpec, kind: str, index: int) -> int:
    """The seed of the index-th task of a kind: the same after a restart, different for every task; fits 53 bits."""
    return int(digest_of([spec.seed, kind, index])[:13], 16)


def eta_s(spec: RunSpec, state: str, tally: Tally, device_s_per_s: float) -> float | None:
    """Wall seconds until the measuring is over, or None when nothing is known yet.

    A half-width falls with the square root of the rounds, so that a look at the widest one says how many more are
    needed. `device_s_per_s`: how much device time passes per second, over all boards at work.
    """
    if device_s_per_s <= 0 or state in ENDED_STATES:
        return None
    left_s = max(0.0, spec.plan.energy_budget_s - tally.energy_device_s) if energy_segments(spec) else 0.0
    if state in ("queued", "latency"):
        budget_s = max(0.0, spec.plan.latency_budget_s - tally.latency_device_s)
        worst = tally.worst_rel_halfwidth
        if worst is not None and tally.rounds and spec.plan.target_rel_halfwidth > 0:
            needed = tally.looked_rounds * min(worst / spec.plan.target_rel_halfwidth, _UNLIMITED) ** 2
            round_s = tally.latency_device_s / (tally.rounds + tally.rounds_flagged)
            budget_s = min(budget_s, max(0.0, needed - tally.rounds) * round_s)
        left_s += budget_s
    elif state == "building":
        left_s = 0.0
    return left_s / device_s_per_s


def retry_pause_s(attempts: int, base_s: float) -> float:
    """How long a board rests after it failed a task: what is broken for a moment must not burn all attempts at once."""
    return base_s * float(2 ** max(0, min(attempts, MAX_RETRIES) - 1))


def nearest(name: str, known: Mapping[str, str]) -> str:
    """A sentence that names what is connected, and what was probably meant. `known`: device name → device type."""
    if not known:
        return "nor any other; start one with `edgelut-agent run` or, without hardware, `edgelut-agent emulate`"
    listed = ", ".join(f"{device} ({kind})" for device, kind in sorted(known.items())[:20])
    close = get_close_matches(name, {*known, *known.values()}, n=1, cutoff=LIKENESS)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return f"but these are: {listed}{', …' if len(known) > 20 else ''}{guess}"
