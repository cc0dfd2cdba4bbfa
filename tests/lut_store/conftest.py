"""The databases that the contract suite runs over. A new backend is one more entry of BACKENDS."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from coordinator.client import Coordinator
from coordinator.embedded import serving
from lut_store.lut import Lut
from lut_store.store import Store
from protos.types import LutQuery


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


class ClientReader:
    """A coordinator's client with the names of the store: what is read over gRPC must be what the store says."""

    def __init__(self, client: Coordinator) -> None:
        self._client = client
        self.luts, self.run, self.runs, self.devices = client.luts, client.run, client.runs, client.devices

    def lut(self, query: LutQuery) -> Lut:
        return self._client.lut(**asdict(query))

    def lut_by_digest(self, digest: str) -> Lut:
        return self._client.lut(digest=digest)


@pytest.fixture(params=["store", "client"])
def reader(
    request: pytest.FixtureRequest, store: Store, database_url: str, tmp_path: Path
) -> Iterator[Store | ClientReader]:
    """Who reads the database behind `store`: the store itself, or a client through a coordinator of its own."""
    if request.param == "store":
        yield store
        return
    with serving(database_url) as address, Coordinator(address, cache=tmp_path / "cache") as client:
        yield ClientReader(client)


@pytest.fixture(scope="session", autouse=True)
def _remove_fresh_database() -> Iterator[None]:
    yield
    if fresh_database.cache_info().currsize:
        shutil.rmtree(fresh_database().parent)
