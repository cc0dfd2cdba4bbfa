from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(Path(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def emulated(world: World) -> Iterator[World]:
    """A world with a daemon and an emulated Pi 3B."""
    with world.daemon(), world.emulated():
        yield world
