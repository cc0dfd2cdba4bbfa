"""The databases that the contract suite runs over. A new backend is one more entry of BACKENDS."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from lut_store.store import Store


@cache
def fresh_database() -> Path:
    """Made by the migrations once; a copy is much quicker."""
    path = Path(mkdtemp(prefix="edgelut-test-")) / "edgelut.db"
    Store(f"sqlite:///{path}").close()
    return path


def sqlite_url(request: pytest.FixtureRequest) -> str:
    path = request.getfixturevalue("tmp_path") / "edgelut.db"
    shutil.copy(fresh_database(), path)
    return f"sqlite:///{path}"


def postgres_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("postgres_url")
    return url


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], str]] = {"sqlite": sqlite_url, "postgresql": postgres_url}


@pytest.fixture(params=sorted(BACKENDS))
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    return BACKENDS[request.param](request)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session", autouse=True)
def _remove_fresh_database() -> Iterator[None]:
    yield
    if fresh_database.cache_info().currsize:
        shutil.rmtree(fresh_database().parent)
