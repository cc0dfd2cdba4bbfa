"""The databases that the contract suite runs over. A new backend is one more entry of BACKENDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lut_store.store import Store


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'edgelut.db'}"


BACKENDS: dict[str, Callable[[Path], str]] = {"sqlite": sqlite_url}


@pytest.fixture(params=sorted(BACKENDS))
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    yield opened
    opened.close()
