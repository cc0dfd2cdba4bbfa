"""What every test starts with."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it loads numpy, which must not happen before the lines below
    from tests.postgres import Server

# The processes that tests start share few cores: threads of the linear algebra would wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


# What a shell runs in the background ignores Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """A command that ran in this process leaves no handler behind that writes to a stream of its test."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for all tests; those that need it are skipped where there is none."""
    from tests.postgres import CARELESS, OLDEST, binaries, server

    if binaries() is None:
        pytest.skip(f"no PostgreSQL {OLDEST} or newer was found; .ci/run installs one")
    with server(*CARELESS) as own:
        yield own


@pytest.fixture(scope="session")
def _postgres_database(postgres: Server) -> Iterator[str]:
    """The URL of a database with edgelut's schema, which the tests share: a new one for each would take a second."""
    from lut_store.store import Store

    with postgres.database() as url:
        Store(url).close()
        yield url


@pytest.fixture
def postgres_url(postgres: Server, _postgres_database: str) -> str:
    """The URL of an empty database with edgelut's schema."""
    postgres.empty(_postgres_database)
    return _postgres_database
