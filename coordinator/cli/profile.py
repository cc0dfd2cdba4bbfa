"""`coordinator profile`: from a device to a validated LUT."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.options import CoordinatorOption, JsonOption, one_of
from protos.errors import BadInputError, UnavailableError
from protos.types import CONTEXTS, METHODS, Device, RunSpec

if TYPE_CHECKING:
    from coordinator.cli.connect import Link

LOCAL = "local"
NO_METER, EMULATED_METER = "none", "emulated"
MEASURE = "How to measure"


def profile(
    device: Annotated[
        str,
        typer.Option("--device", "-d", metavar="D", help="A device type, a device's name, or `local`: this machine."),
    ],
    space: Annotated[
        str, typer.Option("--space", "-s", metavar="NAME|FILE", help="A built-in search space, or a TOML or YAML file.")
    ] = "fbnet-cifar10",
    preset: Annotated[
        str, typer.Option("--preset", "-p", metavar="quick|standard|thorough", help="How much evidence to collect.")
    ] = "standard",
    method: Annotated[
        str,
        typer.Option(
            metavar="|".join(METHODS), help="Random paths, or hot loops (to compare).", rich_help_panel=MEASURE
        ),
    ] = "paths",
    context: Annotated[
        str,
        typer.Option(
            metavar="|".join(CONTEXTS), help="One inference with cold caches, or back to back.", rich_help_panel=MEASURE
        ),
    ] = "cold",
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Threads of the runtime.", rich_help_panel=MEASURE)
    ] = 1,
    no_dedupe: Annotated[
        bool,
        typer.Option("--no-dedupe", metavar="", help="Measure equal operators separately.", rich_help_panel=MEASURE),
    ] = False,
    meter: Annotated[
        str,
        typer.Option(
            metavar="KIND:PORT|emulated|none",
            help="The power meter. Default: what the agent has; for `local`: none.",
            rich_help_panel=MEASURE,
        ),
    ] = "",
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Of the networks and of the order. Default: a new one.", rich_help_panel=MEASURE
        ),
    ] = None,
    only_missing: Annotated[
        bool,
        typer.Option(
            "--only-missing",
            metavar="",
            help="Measure only what the newest version lacks, or no other space has.",
            rich_help_panel=MEASURE,
        ),
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", metavar="", help="Print the run's id and return; needs a daemon.")
    ] = False,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Profile a device: measure a search space on it and end with a validated LUT.

    [bold]Examples[/bold]

    coordinator profile --device local --preset quick

    coordinator profile --device rpi3b --space my-space.toml --threads 4

    coordinator profile --device pi-01 --meter um25c:/dev/rfcomm0 --context steady --detach

    coordinator profile --device rpi3b --space larger.toml --only-missing
    """
    one_of("method", method, METHODS)
    one_of("context", context, CONTEXTS)
    from coordinator.plan import make_run
    from nas.space import load_space

    local = device == LOCAL
    spec = make_run(
        load_space(space),
        device,
        preset=preset,
        method=method,
        context=context,
        threads=threads,
        dedupe=not no_dedupe,
        meter=(meter or NO_METER) if local else meter,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
    )
    run(spec, complete=only_missing, detach=detach, coordinator=coordinator, as_json=as_json)


def run(spec: RunSpec, *, complete: bool = False, detach: bool, coordinator: str, as_json: bool) -> None:
    """Submit a run and stay with it to its end, or return at once when detached. `complete`: only what is missing."""
    from coordinator.cli.connect import connected
    from coordinator.cli.only_missing import only_missing

    with connected(coordinator) as link:
        if detach:
            check_detach(link, spec.device)
        if complete:
            narrowed = only_missing(link, spec, as_json=as_json)
            if narrowed is None:
                return
            spec = narrowed
        run_on(link, spec, detach=detach, as_json=as_json)


def run_on(link: Link, spec: RunSpec, *, detach: bool = False, as_json: bool = False) -> None:
    """`run` over a link that is there."""
    with begun(link, spec) as run_id:
        if detach:
            print(json.dumps({"run_id": run_id}) if as_json else run_id)
        else:
            stay(link, run_id, as_json=as_json)


@contextmanager
def begun(link: Link, spec: RunSpec) -> Iterator[str]:
    """Submit the run, fitted to its devices; gives its id. The agent of a run on this machine ends with the block."""
    from coordinator.cli.local import is_local, spec_device
    from coordinator.memory import for_memory
    from coordinator.plan import for_meters

    if spec.device == LOCAL:
        spec = replace(spec, device=spec_device(link))
    if link.embedded and not is_local(spec.device):
        raise UnavailableError(
            f"no coordinator runs, so no agent of {spec.device!r} can be connected: start `coordinator serve`, and on "
            f"the board `edgelut-agent run --coordinator HOST:PORT --device-type TYPE`; or profile this machine with "
            f"--device local"
        )
    with agent_for(link, spec):
        devices = fitting(spec.device, link.client.devices())
        asked, spec = len(spec.networks), for_memory(for_meters(spec, devices), devices)
        if len(spec.networks) < asked:
            held = f"The memory of {spec.device} holds {len(spec.networks)} of the {asked} networks of this preset"
            print(f"{held}: fewer to fit and to validate with.", file=sys.stderr)
        announce(spec, devices)
        run_id = new_run_id()
        link.client.submit(spec, run_id)
        yield run_id


@contextmanager
def agent_for(link: Link, spec: RunSpec) -> Iterator[None]:
    """An agent on this machine while the block lasts, when the run is one on this machine; else nothing."""
    from coordinator.cli.local import is_local, local_agent

    if not is_local(spec.device):
        yield
        return
    with local_agent(link, spec.meter or NO_METER):
        yield


def stay(link: Link, run_id: str, *, as_json: bool) -> None:
    """Watch the run and print its outcome; Ctrl-C detaches."""
    from coordinator.cli.outcome import detached, finish, watched

    run = watched(link, run_id)
    if run is None:
        detached(link, run_id)
    else:
        finish(link, run, as_json=as_json)


def check_detach(link: Link, device: str) -> None:
    """Raise BadInputError when nobody would go on with the run after this command."""
    from coordinator.cli.local import is_local

    if link.embedded:
        raise BadInputError(
            "--detach needs a coordinator that goes on without this command: start one with `coordinator serve`"
        )
    if is_local(device):
        raise BadInputError(
            "--detach needs an agent that goes on without this command, and the one of `local` ends with it: "
            "start one with `edgelut-agent run --device-type local` and name it"
        )


def fitting(device: str, devices: Sequence[Device]) -> list[Device]:
    """The connected devices that a run on `device`, a type or a name, may use."""
    return [d for d in devices if device in (d.name, d.device_type) and d.state not in ("gone", "broken")]


def announce(spec: RunSpec, devices: Sequence[Device]) -> None:
    """Say before a run what will be measured, and plainly what will not. Raises BadInputError when it cannot fit."""
    from coordinator.memory import check_memory

    for device in devices:
        check_memory(spec, device)
    for note in notes(spec, devices) if devices else []:
        print(note, file=sys.stderr)


def notes(spec: RunSpec, devices: Sequence[Device]) -> list[str]:
    """Sentences about the run that the operator must not miss."""
    cells = sum(len(item.cells) for item in spec.items)
    found = [f"{len(spec.items)} operators for {cells} cells of {spec.space.name}, and {len(spec.networks)} networks."]
    emulated = [device.name for device in devices if device.emulation == "device"]
    if emulated:
        found.append(f"EMULATED DEVICE ({', '.join(emulated)}): every number comes from a model, none from hardware.")
    elif spec.meter == EMULATED_METER or any(d.meter is not None and d.meter.emulated for d in devices):
        found.append("EMULATED METER: its current follows the CPU time of the worker; the energies are an exercise.")
    if spec.plan.energy_budget_s <= 0 and spec.purpose == "profile":
        found.append("No meter: latency only. Energy needs --meter KIND:PORT (or emulated, to try it).")
    elif devices and spec.purpose == "profile" and not spec.meter and all(d.meter is None for d in devices):
        found.append(f"No meter on {', '.join(d.name for d in devices)}: latency only.")
    return found


def new_run_id() -> str:
    """``20260301-101500-4f2a``: when it began, and four digits against a second one in the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
