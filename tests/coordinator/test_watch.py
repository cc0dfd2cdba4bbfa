"""Tags over the wire, and a client that waits for one to move."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from coordinator.client import Coordinator
from coordinator.embedded import serving
from coordinator.server import running
from lut_store.lut import Lut
from lut_store.store import Store
from protos import lut_pb2, lut_pb2_grpc
from protos.errors import AmbiguousError, BadInputError, EdgelutError, NotFoundError, UnavailableError
from protos.types import Configuration, LutQuery
from tests.coordinator.scripted import PATIENCE_S, SPACE, play, url_of
from tests.coordinator.test_server_restart import daemon
from tests.coordinator.test_tls import site
from tests.lut_store.samples import lut_of

VALIDATED = {name: {"corrected": {"mape": 0.01}} for name in ("latency", "energy")}


def fit(seed: int, **changes: object) -> Lut:
    return lut_of(SPACE, seed=seed, validation=VALIDATED, flags={}, **changes)


def add(folder: Path, *seeds: int) -> None:
    with closing(Store(url_of(folder))) as store:
        for seed in seeds:
            store.add_lut(fit(seed))


def tag(folder: Path, version: int, name: str = "stable") -> None:
    with closing(Store(url_of(folder))) as store:
        store.move_tag(LutQuery("rpi3b", version=str(version)), name, moved_by="ada", force=True)


@contextmanager
def watching(client: Coordinator, reference: str) -> Iterator[queue.Queue[Lut | Exception]]:
    """What a watch in a thread of its own gives, or how it ends; the client is closed with the block."""
    seen: queue.Queue[Lut | Exception] = queue.Queue()

    def follow() -> None:
        try:
            for lut in client.watch(reference):
                seen.put(lut)
        except Exception as error:
            seen.put(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield seen
    finally:
        client.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def following(seen: queue.Queue[Lut | Exception]) -> int:
    """The version that comes next."""
    got = seen.get(timeout=PATIENCE_S)
    assert isinstance(got, Lut), got
    return got.version


def test_a_watch_gives_the_lut_now_and_whenever_the_tag_moves(tmp_path: Path) -> None:
    add(tmp_path, 0, 1, 2)
    tag(tmp_path, 1)
    with serving(url_of(tmp_path)) as address, watching(Coordinator(address), "rpi3b@stable") as seen:
        assert following(seen) == 1
        tag(tmp_path, 3)
        assert following(seen) == 3
        tag(tmp_path, 1, "another")
        tag(tmp_path, 2)
        assert following(seen) == 2
        assert seen.empty()


def test_a_tag_that_is_not_set_yet_is_waited_for(tmp_path: Path) -> None:
    add(tmp_path, 0)
    with serving(url_of(tmp_path)) as address, watching(Coordinator(address), f"rpi3b/{SPACE.name}@mine") as seen:
        tag(tmp_path, 1, "mine")
        assert following(seen) == 1


def test_latest_moves_with_every_new_version(tmp_path: Path) -> None:
    add(tmp_path, 0)
    with serving(url_of(tmp_path)) as address, watching(Coordinator(address), "rpi3b") as seen:
        assert following(seen) == 1
        add(tmp_path, 1)
        assert following(seen) == 2


def test_a_watch_survives_a_coordinator_that_is_killed_and_one_that_is_stopped(tmp_path: Path) -> None:
    add(tmp_path, 0, 1, 2)
    tag(tmp_path, 1)
    with daemon(tmp_path) as (process, address), watching(Coordinator(address), "rpi3b@stable") as seen:
        assert following(seen) == 1
        process.kill()
        process.wait()
        tag(tmp_path, 2)
        with here(tmp_path, address):
            assert following(seen) == 2  # it moved while nobody was there
        with here(tmp_path, address):
            tag(tmp_path, 3)
            assert following(seen) == 3
        assert seen.empty()


@contextmanager
def here(folder: Path, address: str) -> Iterator[None]:
    """A coordinator in this process, at an address where there was one before; stopped in order with the block."""
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(address, url_of(folder)):
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def test_what_cannot_be_watched_is_said(tmp_path: Path) -> None:
    add(tmp_path, 0)
    with closing(Store(url_of(tmp_path))) as store:
        store.add_lut(fit(1, configuration=Configuration("rpi3b", SPACE.name, threads=4)))
    with serving(url_of(tmp_path)) as address, Coordinator(address) as client:
        with pytest.raises(NotFoundError, match="there is no LUT rpi4@stable"):
            next(client.watch("rpi4@stable"))
        with pytest.raises(AmbiguousError, match="add --threads"):
            next(client.watch("rpi3b@latest"))
        with pytest.raises(BadInputError, match="names no LUT"):
            next(client.watch("a b@stable"))
        assert next(client.watch("rpi3b", threads=4)).version == 2
    with Coordinator("127.0.0.1:1") as nobody, pytest.raises(UnavailableError, match="no coordinator answers"):
        next(nobody.watch("rpi3b@stable"))


def test_tags_and_findings_over_the_wire_are_those_of_the_store(tmp_path: Path) -> None:
    add(tmp_path, 0, 1)
    with serving(url_of(tmp_path)) as address, Coordinator(address, cache=tmp_path / "cache") as client:
        query = LutQuery("rpi3b", SPACE.name, "1")
        moved = client.move_tag(query, "mine", moved_by="ada@lab", reason="a try")
        assert (moved.version, moved.moved_by, moved.reason) == (1, "ada@lab", "a try")
        assert client.lut("rpi3b@mine").version == 1
        assert client.lut(f"rpi3b/{SPACE.name}@mine") == client.lut("rpi3b", version="mine")
        assert client.lut("rpi3b/" + SPACE.name).version == 2
        with closing(Store(url_of(tmp_path))) as store:
            assert client.tags(history=True) == store.tags(history=True)
            assert client.tags(LutQuery(version="mine")) == [moved]
            assert tuple(client.findings(query)) == store.findings(query)[1]
            assert client.luts() == store.luts()
        with pytest.raises(BadInputError, match=r"stable: .*more than 0\.1%"):
            client.move_tag(query, "stable", moved_by="ada", max_mape=0.001)
        assert client.move_tag(query, "stable", moved_by="ada", max_mape=0.001, force=True).forced
        with pytest.raises(NotFoundError, match="has no tag 'my'"):
            client.lut("rpi3b@my")


def test_a_watch_says_at_once_that_it_stands(tmp_path: Path) -> None:
    """Other languages wait for the headers, as our client does, to know that the question makes sense."""
    add(tmp_path, 0)
    with serving(url_of(tmp_path)) as address, grpc.insecure_channel(address) as channel:
        query = lut_pb2.LutQuery(device_type="rpi3b", version="stable")
        call = lut_pb2_grpc.LutServiceStub(channel).WatchLut(lut_pb2.GetLutRequest(query=query))
        assert call.initial_metadata() is not None
        assert call.is_active()
        call.cancel()


def test_with_certificates_readers_move_no_tag_and_the_history_names_the_holder(tmp_path: Path) -> None:
    async def scene() -> None:
        add(tmp_path, 0)
        async with site(tmp_path) as own:
            query = LutQuery("rpi3b")
            with own.client("alice") as alice, own.client("bob", role="reader") as bob:
                moved = await asyncio.to_thread(lambda: alice.move_tag(query, "mine", moved_by="somebody else"))
                assert moved.moved_by == "alice"
                assert await asyncio.to_thread(bob.tags, LutQuery(version="mine")) == [moved]
                assert await asyncio.to_thread(lambda: next(bob.watch("rpi3b@mine")).version) == 1
                with pytest.raises(EdgelutError, match="bob is a reader, who may not call MoveTag"):
                    await asyncio.to_thread(lambda: bob.move_tag(query, "mine", moved_by="bob"))

    play(scene())
