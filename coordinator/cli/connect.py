"""The one way from a command to a coordinator: the one that was named, a daemon, or the embedded database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.client import Coordinator


@dataclass(frozen=True)
class Link:
    """A connected client. embedded: its coordinator lives in this process and ends with it."""

    client: Coordinator
    embedded: bool = False
    where: str = ""  # in words, for "it is in …"
    option: str = ""  # what the next command needs to come here, with a blank before it; "" when it is the default

    @property
    def address(self) -> str:
        return self.client.address


@contextmanager
def connected(named: str) -> Iterator[Link]:
    """A link to the coordinator at `named`, or, when that is empty, to the one that coordinator.embedded finds."""
    from coordinator.client import ADDRESS_VARIABLE, DEFAULT_ADDRESS, Coordinator

    if named:  # without the server and its database, which take a second to import
        option = "" if os.environ.get(ADDRESS_VARIABLE) == named else f" --coordinator {named}"
        with Coordinator(named) as client:
            yield Link(client, where=f"the coordinator at {named}", option=option)
        return
    from coordinator.embedded import connect
    from lut_store.paths import default_database_url

    with connect() as client:
        if client.address == DEFAULT_ADDRESS:
            yield Link(client, where=f"the coordinator at {DEFAULT_ADDRESS}")
        else:
            yield Link(client, embedded=True, where=default_database_url().removeprefix("sqlite:///"))
