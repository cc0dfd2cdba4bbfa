"""Measurements from all sessions into the database: checked, committed in batches, and only then acknowledged.

A batch is whatever arrived while the previous one was being committed, and a little later (group commit): alone, a
measurement is stored at once; under load, one commit carries many. The store judges and writes in one thread beside the
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from coordinator.sessions import Session
from lut_store.records import Encoded, Outcome
from protos import agent_pb2, raw_pb2
from protos.errors import EdgelutError, StorageError

log = logging.getLogger(__name__)

# Under load, a batch gathers for so long: one of fifty costs two thirds of fifty of one, and nobody notices the wait.
GATHER_S = 0.02
# One transaction holds at most this much, so that an acknowledgement is never far away.
BATCH_MESSAGES = 512
BATCH_BYTES = 16 << 20
# What may wait in memory; beyond it sessions are not read, and gRPC's flow control slows the agents down.
WAITING_BYTES = 64 << 20
# What a message costs in memory beside its bytes.
_OVERHEAD_BYTES = 1024


class _Offer(NamedTuple):
    session: Session
    measurement: Encoded


@dataclass
class _Batch:
    offers: list[_Offer] = field(default_factory=list)
    size: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    error: StorageError | None = None

    @property
    def full(self) -> bool:
        return len(self.offers) >= BATCH_MESSAGES or self.size >= BATCH_BYTES


class Ingest:
    """The queue between sessions and the database.

    `write` stores (device, measurement) pairs in one transaction and gives an outcome for each, in order; it runs in
    the writer thread. `stored` is told, on the event loop, what is new.
    """

    def __init__(
        self,
        write: Callable[[Sequence[tuple[str, Encoded]]], Sequence[Outcome]],
        stored: Callable[[Sequence[raw_pb2.Measurement]], None],
    ) -> None:
        self._write = write
        self._stored = stored
        self._batches: deque[_Batch] = deque()
        self._current: _Batch | None = None
        self._batch_began_s = 0.0
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ingest")

    @property
    def busy_s(self) -> float:
        """How long the batch in hand has taken so far; 0 without one."""
        return 0.0 if self._current is None else time.monotonic() - self._batch_began_s

    async def offer(self, session: Session, measurement: Encoded) -> None:
        """Queue a measurement; waits while too much is queued already."""
        size = len(measurement.body) + _OVERHEAD_BYTES
        while self._waiting_bytes > WAITING_BYTES:
            session.held_up = True
            self._room.clear()
            await self._room.wait()
        session.held_up = False
        if not self._batches or self._batches[-1].full:
            self._batches.append(_Batch())
        batch = self._batches[-1]
        batch.offers.append(_Offer(session, measurement))
        batch.size += size
        self._waiting_bytes += size
        self._arrived.set()

    async def settle(self) -> None:
        """Wait until everything that has been offered is stored or refused. Raises StorageError when it cannot be."""
        batch = self._batches[-1] if self._batches else self._current
        if batch is not None:
            await batch.settled.wait()
            if batch.error is not None:
                raise batch.error

    async def run(self) -> None:
        """Store what arrives until `close` has been called and nothing is left."""
        try:
            busy = False  # something arrived while the last batch was being committed
            while self._batches or not self._closing:
                if not self._batches:
                    busy = False
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                if busy and not self._closing and not self._batches[0].full:
                    await asyncio.sleep(GATHER_S)
                await self._store(self._batches.popleft())
                busy = True
        finally:
            self._writer.shutdown(wait=True)

    def close(self) -> None:
        """Make `run` end when the queue is empty."""
        self._closing = True
        self._arrived.set()

    async def _store(self, batch: _Batch) -> None:
        self._current = batch
        self._batch_began_s = time.monotonic()
        try:
            await self._commit(batch.offers)
        except StorageError as error:
            log.error("%d measurements could not be stored: %s", len(batch.offers), error)
            batch.error = error
            for session in {id(offer.session): offer.session for offer in batch.offers}.values():
                session.end(error)
        finally:
            self._current = None
            self._waiting_bytes -= batch.size
            self._room.set()
            batch.settled.set()

    async def _commit(self, offers: Sequence[_Offer]) -> None:
        """Store the offers in one transaction and answer them. One that makes the store fail is singled out."""
        pairs = [(offer.session.name, offer.measurement) for offer in offers]
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._writer, self._write, pairs)
        except StorageError:
            raise
        except Exception as error:
            if len(offers) > 1:
                for offer in offers:
                    await self._commit([offer])
                return
            log.exception("%s: measurement %s failed", pairs[0][0], pairs[0][1].message.id)
            offers[0].session.end(
                EdgelutError(f"the coordinator failed on a measurement ({error}); its log says where")
            )
            return
        _answer(offers, outcomes)
        self._stored([m.message for (_, m), outcome in zip(pairs, outcomes, strict=True) if outcome.status == "stored"])


def _answer(offers: Sequence[_Offer], outcomes: Sequence[Outcome]) -> None:
    """One acknowledgement per session for all that is durable now, and a refusal for each that never will be."""
    durable: dict[int, tuple[Session, list[str]]] = {}
    for offer, outcome in zip(offers, outcomes, strict=True):
        if outcome.status == "refused":
            log.warning("%s: measurement %s refused: %s", offer.session.name, outcome.id, outcome.message)
            refuse = agent_pb2.Refuse(measurement_id=outcome.id, code=outcome.code, message=outcome.message)
            offer.session.send(agent_pb2.CoordinatorMessage(refuse=refuse))
        else:
            durable.setdefault(id(offer.session), (offer.session, []))[1].append(outcome.id)
    for session, ids in durable.values():
        session.send(agent_pb2.CoordinatorMessage(acknowledge=agent_pb2.Acknowledge(measurement_ids=ids)))
