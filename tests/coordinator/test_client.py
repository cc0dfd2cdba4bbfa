"""The client against a real coordinator: LUTs and their cache, errors, and the rule for where the coordinator is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from coordinator import client as client_module
from coordinator import embedded
from coordinator.client import Coordinator, cache_directory
from lut_store.store import Store
from protos.errors import AmbiguousError, BadInputError, NotFoundError, StorageError, UnavailableError
from protos.types import Configuration, LutQuery
from tests.coordinator.scripted import SPACE, Agent, play, spec_of, until, url_of
from tests.lut_store.samples import lut_of

LUT = lut_of(SPACE)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with embedded.serving(url_of(folder)) as address:
        yield address


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A database with a LUT of one thread, and one of two."""
    store = Store(url_of(tmp_path))
    store.add_lut(LUT)
    store.add_lut(lut_of(SPACE, seed=5, configuration=Configuration("rpi3b", SPACE.name, threads=2)))
    store.close()
    return tmp_path


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the documents that came over the wire."""
    sizes: list[int] = []
    call = Coordinator._call

    def spy(self: Coordinator, method: object, request: object) -> object:
        reply = call(self, method, request)  # type: ignore[arg-type]
        if hasattr(reply, "document"):
            sizes.append(len(reply.document))
        return reply

    monkeypatch.setattr(Coordinator, "_call", spy)
    return sizes


def test_a_lut_comes_once_over_the_wire(filled: Path, documents: list[int]) -> None:
    with serving(filled) as address:
        for _ in range(2):
            with Coordinator(address, cache=filled / "cache") as client:
                lut = client.lut("rpi3b", space=SPACE.name, threads=1)
                assert lut.digest == LUT.digest
                assert np.array_equal(lut.latency_s, LUT.latency_s, equal_nan=True)
        assert documents[0] > 0
        assert documents[1:] == [0]


def test_a_cache_that_is_damaged_or_in_the_way_is_no_cache(filled: Path, documents: list[int]) -> None:
    cache = filled / "cache"
    with serving(filled) as address, Coordinator(address, cache=cache) as client:
        client.lut("rpi3b", threads=1)
        (file,) = (cache / "luts").iterdir()
        file.write_bytes(file.read_bytes()[:-9])
        assert client.lut("rpi3b", threads=1).digest == LUT.digest
        file.unlink()
        assert client.lut("rpi3b", threads=1).digest == LUT.digest
        (query,) = (cache / "queries").iterdir()
        query.write_bytes(b"\xff/../..")
        assert client.lut("rpi3b", threads=1).digest == LUT.digest
        in_the_way = filled / "file"
        in_the_way.write_text("")
        with Coordinator(address, cache=in_the_way) as other:
            assert other.lut("rpi3b", threads=1).digest == LUT.digest
    assert all(documents)


def test_a_newer_version_replaces_what_is_cached(filled: Path) -> None:
    with serving(filled) as address, Coordinator(address, cache=filled / "cache") as client:
        assert client.lut("rpi3b", threads=1).version == 1
        store = Store(url_of(filled))
        store.add_lut(lut_of(SPACE, seed=9))
        store.close()
        assert client.lut("rpi3b", threads=1).version == 3
        assert client.lut("rpi3b", version=1).version == 1
        assert client.lut(digest=LUT.digest).version == 1


def test_what_does_not_fit_or_fits_twice_is_said_in_the_coordinators_words(filled: Path) -> None:
    with serving(filled) as address, Coordinator(address, cache=filled / "cache") as client:
        with pytest.raises(AmbiguousError, match="threads"):
            client.lut("rpi3b")
        with pytest.raises(NotFoundError, match="rpi3b"):
            client.lut("rpi5")
        assert [(s.version, s.threads) for s in client.luts()] == [(2, 2), (1, 1)]
        assert [s.version for s in client.luts(LutQuery(threads=1))] == [1]
        assert client.luts(LutQuery(device_type="rpi5")) == []
        assert client.devices() == []


def test_a_cache_is_kept_apart_by_coordinator(filled: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serving(filled) as address, Coordinator(address, cache=cache) as client:
        client.lut("rpi3b", threads=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    with serving(empty) as address, Coordinator(address, cache=cache) as client, pytest.raises(NotFoundError):
        client.lut("rpi3b", threads=1)


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "edgelut"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == Path.home() / ".cache" / "edgelut"


def test_the_client_needs_nothing_of_the_server() -> None:
    script = (
        "import sys; import coordinator.client; "
        "print([m for m in ('sqlalchemy', 'alembic', 'typer', 'rich', 'scipy', 'torch', 'matplotlib', 'pandas') "
        "if m in sys.modules], [m for m in sys.modules if m.startswith('coordinator.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['coordinator.client']"


def test_services_are_described_to_other_languages(filled: Path) -> None:
    with serving(filled) as address, grpc.insecure_channel(address) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        services = set(described.get_services())
        assert {f"edgelut.v1.{name}" for name in ("AgentService", "RunService", "LutService")} <= services
        assert "grpc.health.v1.Health" in services


# ---- where the coordinator is ----


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon on the default address, whatever runs on this machine."""
    monkeypatch.setattr(embedded, "DEFAULT_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv(client_module.ADDRESS_VARIABLE, raising=False)


@pytest.mark.usefixtures("elsewhere")
def test_without_a_daemon_the_server_runs_in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with embedded.connect() as client:
        assert client.luts() == []
        assert client.address.startswith("127.0.0.1:")
        address = client.address
    assert (tmp_path / "edgelut" / "edgelut.db").exists()
    assert not embedded.answers(address)


def test_a_daemon_on_the_default_address_is_used(monkeypatch: pytest.MonkeyPatch, filled: Path) -> None:
    monkeypatch.delenv(client_module.ADDRESS_VARIABLE, raising=False)
    with serving(filled) as address:
        monkeypatch.setattr(embedded, "DEFAULT_ADDRESS", address)
        with embedded.connect() as client:
            assert client.address == address
            assert len(client.luts()) == 2


@pytest.mark.usefixtures("elsewhere")
def test_a_coordinator_that_is_named_is_used_or_missed(monkeypatch: pytest.MonkeyPatch, filled: Path) -> None:
    with serving(filled) as address:
        with embedded.connect(address) as client:
            assert len(client.luts()) == 2
        monkeypatch.setenv(client_module.ADDRESS_VARIABLE, address)
        with embedded.connect() as client:
            assert client.address == address
        with Coordinator() as client:
            assert client.address == address
    with embedded.connect() as client, pytest.raises(UnavailableError, match="`coordinator serve`"):
        client.luts()


@pytest.mark.usefixtures("elsewhere")
def test_a_run_inside_one_command(tmp_path: Path) -> None:
    """An agent reaches the embedded coordinator by its address; the run is measured, and fails to build for want of
    data.
    """

    async def scene() -> None:
        with embedded.connect(database_url=url_of(tmp_path)) as client:
            async with Agent(client.address) as agent:
                spec = replace(spec_of(latency_budget_s=1500.0), items=())
                await asyncio.to_thread(client.submit, spec, "run-1")
                work = asyncio.create_task(agent.work())
                assert (await until(client, "run-1", "done", "failed")).rounds == 2
                work.cancel()

    play(scene())


@pytest.mark.usefixtures("elsewhere")
def test_a_database_that_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "edgelut.db").write_text("this is no database, but a text that somebody has put here")
    with (
        pytest.raises(StorageError, match="this file is no database"),
        embedded.connect(database_url=url_of(tmp_path)),
    ):
        pass


@pytest.mark.parametrize("address", ["garbage", "127.0.0.1:99999", ":7443", "host:port", "127.0.0.1"])
def test_what_is_no_address_is_refused_before_anything_is_dialled(address: str) -> None:
    with pytest.raises(BadInputError, match="write HOST:PORT"):
        Coordinator(address)
