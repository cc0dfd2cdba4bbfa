"""What a search engine waits for: the version that a reference means, whenever it means another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from lut_store.reference import tag_name
from lut_store.store import Store
from protos.errors import NotFoundError
from protos.types import LutQuery

POLL_S = 1.0  # other coordinators may move tags of the same database, so that it is asked


async def moves(
    store: Store, query: LutQuery, known_digest: str, ready: Callable[[], Awaitable[None]]
) -> AsyncIterator[tuple[str, bytes]]:
    """(digest, the .lut file) of the version that the query means now, unless the caller knows it, then of each that it
    means later, for ever. `ready` is called once the query has been found to make sense.

    While a tag is not set there is nothing to give. Raises NotFoundError for a device type or space that is not there,
    AmbiguousError, BadInputError.
    """
    said = False
    while True:
        try:
            digest, document = await asyncio.to_thread(store.lut_document, query, known_digest)
        except NotFoundError:
            if not tag_name(query) or not await asyncio.to_thread(store.luts, replace(query, version="latest")):
                raise
            digest, document = known_digest, b""
        if not said:
            await ready()
            said = True
        if digest != known_digest:
            yield digest, document
            known_digest = digest
        await asyncio.sleep(POLL_S)
