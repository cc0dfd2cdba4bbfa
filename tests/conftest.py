"""What every test starts with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it loads numpy, which must not happen before the lines below
    from tests.postgres import Server

# The processes that tests start share few cores: threads of the linear algebra would wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for all tests; those that need it are skipped where there is none."""
    from tests.postgres import CARELESS, OLDEST, binaries, server

    if binaries() is None:
        pytest.skip(f"no PostgreSQL {OLDEST} or newer was found; .ci/run installs one")
    with server(*CARELESS) as own:
        yield own


@pytest.fixture(scope="session")
def postgres_template(postgres: Server) -> str:
    """The name of a database with edgelut's schema."""
    return postgres.template()


@pytest.fixture
def postgres_url(postgres: Server, postgres_template: str) -> Iterator[str]:
    """The URL of an empty database with edgelut's schema."""
    with postgres.database(postgres_template) as url:
        yield url
