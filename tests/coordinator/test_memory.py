"""What fits the memory of a board."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from coordinator.memory import LEAST, MEMORY_SHARE, check_memory, for_memory
from coordinator.plan import PRESETS, make_run
from nas.opstats import run_memory_bytes, space_memory_bytes
from nas.space import load_space
from protos.errors import BadInputError
from protos.types import Device, HostFacts, RunSpec

SPACE = load_space("fbnet-cifar10")
PI_3B = Device("pi-01", "rpi3b", facts=HostFacts(memory_bytes=906 << 20))
PI_4 = Device("pi-02", "rpi4", facts=HostFacts(memory_bytes=3792 << 20))


def roles(run: RunSpec) -> Counter[str]:
    return Counter(network.role for network in run.networks)


@pytest.mark.parametrize("context", ["cold", "steady"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_of_hannas_space_is_cut_to_fit_a_pi_3b(preset: str, context: str) -> None:
    asked = make_run(SPACE, "rpi3b", preset=preset, context=context)
    run = for_memory(asked, [PI_4, PI_3B])
    check_memory(run, PI_3B)
    assert roles(run)["anchor"] == PRESETS[preset].anchors
    assert roles(run)["fit"] >= LEAST["fit"]
    assert roles(run)["validation"] >= LEAST["validation"]
    for role in roles(asked):
        ours = [n for n in run.networks if n.role == role]
        assert ours == [n for n in asked.networks if n.role == role][: len(ours)]
    in_a_round = run.plan.networks_per_round or len(run.networks)
    assert run.plan.paths_per_round == pytest.approx(in_a_round, abs=1)


def test_as_many_networks_as_fit() -> None:
    run = for_memory(make_run(SPACE, "rpi3b"), [PI_3B])
    assert len(run.networks) < len(make_run(SPACE, "rpi3b").networks)
    assert PI_3B.facts.memory_bytes * MEMORY_SHARE - run_memory_bytes(run) < 25e6


def test_what_fits_is_left_as_it_is() -> None:
    run = make_run(SPACE, "rpi4", preset="thorough")
    assert for_memory(run, [PI_4]) is run
    assert for_memory(run, []) is run
    assert for_memory(run, [Device("mute", "rpi3b")]) is run  # a board that does not say what it has
    validate = make_run(SPACE, "rpi3b", purpose="validate", preset="quick")
    assert for_memory(validate, [PI_3B]) is validate


def test_a_run_that_cannot_be_cut_to_fit_is_refused_with_its_sizes_and_a_way_out() -> None:
    tiny = replace(PI_3B, name="tiny", facts=HostFacts(memory_bytes=256 << 20))
    run = for_memory(make_run(SPACE, "rpi3b"), [tiny])
    with pytest.raises(BadInputError) as caught:
        check_memory(run, tiny)
    message = str(caught.value)
    assert f"would need {run_memory_bytes(run) / 1e6:.0f} MB" in message
    assert f"for {len(run.networks)} whole networks" in message
    assert "may use 188 MB (70% of 268 MB)" in message
    assert message.endswith("choose a smaller space, input or batch")


def test_isolated_loops_need_no_supernet() -> None:
    paths = run_memory_bytes(make_run(SPACE, "rpi3b"))
    isolated = run_memory_bytes(make_run(SPACE, "rpi3b", method="isolated"))
    assert paths - 1.2 * space_memory_bytes(SPACE, ()) < isolated < paths


def test_a_device_that_does_not_know_its_memory_is_not_refused() -> None:
    check_memory(make_run(SPACE, "rpi3b", preset="thorough"), Device("pi-02", "rpi3b"))
