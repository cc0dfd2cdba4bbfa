"""Which versions came from which runs: the line of descent, from the rows of lut_runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lut_store.schema import lut_runs, luts, series


@dataclass(frozen=True)
class Descent:
    """A stored version and all the runs that it was built from."""

    digest: str
    reference: str
    created_wall_s: float
    run_ids: frozenset[str]


def of_runs(connection: Connection, run_ids: Sequence[str]) -> list[Descent]:
    """The versions that were built from any of the runs, perhaps with others; the oldest first."""
    touched = sa.select(lut_runs.c.digest).where(lut_runs.c.run_id.in_(run_ids))
    rows = connection.execute(
        sa.select(
            *(luts.c.digest, series.c.device_type, series.c.space, luts.c.version, luts.c.created_wall_s),
            lut_runs.c.run_id,
        )
        .select_from(lut_runs.join(luts, lut_runs.c.digest == luts.c.digest))
        .join(series, luts.c.series_id == series.c.series_id)
        .where(lut_runs.c.digest.in_(touched))
        .order_by(luts.c.created_wall_s, luts.c.digest)
    ).all()
    runs: dict[str, set[str]] = {}
    for row in rows:
        runs.setdefault(row.digest, set()).add(row.run_id)
    newest = {row.digest: row for row in rows}
    return [
        Descent(digest, f"{row.device_type}/{row.space}@{row.version}", row.created_wall_s, frozenset(runs[digest]))
        for digest, row in newest.items()
    ]
