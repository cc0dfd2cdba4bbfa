"""What lint found in each version, as it was when the version was stored."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lut_store.schema import lints
from protos.types import CellRef, Finding


def add(connection: Connection, digest: str, findings: Sequence[Finding]) -> None:
    documents = [asdict(finding) for finding in findings]
    text = json.dumps(documents, separators=(",", ":"), ensure_ascii=False)
    connection.execute(lints.insert().values(digest=digest, linted_wall_s=time.time(), findings=text))


def of_version(connection: Connection, digest: str) -> tuple[Finding, ...] | None:
    """None for a version that was stored before there was lint."""
    text = connection.execute(sa.select(lints.c.findings).where(lints.c.digest == digest)).scalar()
    return None if text is None else tuple(_finding(document) for document in json.loads(text))


def _finding(document: dict[str, object]) -> Finding:
    cells = document.pop("cells")
    assert isinstance(cells, list)
    return Finding(**document, cells=tuple(CellRef(**cell) for cell in cells))  # type: ignore[arg-type]
