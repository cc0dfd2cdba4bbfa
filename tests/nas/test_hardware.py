"""Devices by name, shares of a batch, and the batch that fits into memory."""

from __future__ import annotations

import pytest
import torch

from nas.hardware import (
    GIB,
    RESERVE,
    StepMemory,
    World,
    free_bytes,
    joined,
    pick_device,
    step_memory,
    too_large,
)
from nas.supernet import Supernet, widest
from protos.errors import BadInputError
from tests.lut_store.samples import space_of

CPU = torch.device("cpu")


def test_devices_by_name() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(BadInputError, match=r"unknown device 'tpu'; this machine has auto, cpu"):
        pick_device("tpu")
    with pytest.raises(BadInputError, match="unknown device 'cuda:99'"):
        pick_device("cuda:99")


def test_shares_of_a_batch_are_all_of_it() -> None:
    index = torch.arange(10)
    parts = [World(rank, 4).share(index) for rank in range(4)]
    assert torch.cat(parts).sort().values.tolist() == index.tolist()
    assert len(World(3, 4).share(torch.arange(2))) == 0


def test_one_process_is_a_world_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as world:
        assert world == World()
        assert world.total([1.0, 2.0]) == [1.0, 2.0]
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(BadInputError, match="start several processes with torchrun"), joined():
        pass


def test_the_batch_that_fits() -> None:
    memory = StepMemory(fixed_bytes=1.0 * GIB, image_bytes=0.01 * GIB)
    free = 10.0 * GIB
    fits = memory.fitting_batch(free)
    assert fits == 800  # (0.9 · 10 − 1) / 0.01
    assert memory.needed(fits) <= RESERVE * free < memory.needed(fits + 1)
    text = str(too_large(4096, memory, free, CPU))
    assert text == (
        "a step with 4096 images needs about 42 GiB, and cpu has 10 GiB free; "
        "a batch of 800 would fit (--set batch=800)"
    )
    # It failed although it should have fitted: another process took memory. What failed is not advised.
    assert "a batch of 99 would fit" in str(too_large(100, memory, free, CPU))
    assert "not even one image would fit" in str(too_large(8, memory, 1.0 * GIB, CPU))
    assert memory.fitting_batch(0.0) == 0


def test_what_a_step_keeps_grows_with_images_and_paths() -> None:
    space = space_of(((1, 16, 1), (2, 24, 2)), size=8)
    net = Supernet(space)

    def memory(relaxation: str) -> StepMemory:
        drawn = widest(space, relaxation)
        return step_memory(lambda count: net(torch.zeros(count, 3, 16, 16), drawn), net.parameters())

    found = {relaxation: memory(relaxation) for relaxation in ("mixture", "two-path", "single-path")}
    assert found["mixture"].image_bytes > 1.4 * found["two-path"].image_bytes > 2 * found["single-path"].image_bytes
    # Two hidden maps of 22 × 16 channels on 8 × 8 positions are the least that a layer of the mixture keeps.
    assert found["mixture"].image_bytes > 2 * 22 * 16 * 64 * 4
    states = 2 * sum(p.nbytes for p in net.parameters())
    assert found["single-path"].fixed_bytes >= states


def test_free_memory_is_known() -> None:
    assert free_bytes(CPU) > 0
