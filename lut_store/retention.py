"""Which raw measurements may go: those of ended runs that are old enough and that no version needs.

A version that was built keeps its numbers for ever; with its raw measurements it can also be built anew by another
method. Those are therefore kept for every version, or at least for every version that carries a tag (`latest` is one).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lut_store.database import Database
from lut_store.records import REMOVED
from lut_store.reference import LATEST
from lut_store.schema import lut_runs, luts, measurements, runs, tag_moves, tasks
from protos.types import ENDED_STATES

# Why a run keeps what it has measured.
UNFINISHED, NEEDED, TAGGED, RECENT = "not ended", "needed by a version", "needed by a tagged version", "too recent"


@dataclass(frozen=True)
class Needs:
    """What is built on the measurements of a run."""

    versions: int = 0
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Samples:
    """The raw measurements of a run."""

    run_id: str
    state: str
    newest_wall_s: float  # when the last of them arrived
    measurements: int
    body_bytes: int


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be; `kept` counts runs by the reason."""

    removed: tuple[Samples, ...]
    kept: dict[str, int]


def reason_to_keep(state: str, needs: Needs, newest_wall_s: float, before_wall_s: float, *, untagged: bool) -> str:
    """Empty: the measurements may go. `untagged`: what only versions without a tag need may go too."""
    if state not in ENDED_STATES:
        return UNFINISHED
    if needs.tags:
        return TAGGED
    if needs.versions and not untagged:
        return NEEDED
    return RECENT if newest_wall_s >= before_wall_s else ""


def prune(database: Database, before_wall_s: float, *, untagged: bool = False, dry_run: bool = False) -> Pruned:
    """Remove the measurements of every run that nothing keeps; `before_wall_s`: none that arrived since then.

    Every run is one transaction, which looks again at what needs it. Raises StorageError.
    """
    with database.reading() as connection:
        known = connection.execute(sa.select(runs.c.run_id, runs.c.state).order_by(runs.c.number)).all()
        needs = _needs(connection)
    removed, kept = [], dict.fromkeys((UNFINISHED, TAGGED, NEEDED, RECENT), 0)
    for run in known:
        # Without a look at its measurements first: most runs are kept for what is built on them.
        reason = reason_to_keep(run.state, needs.get(run.run_id, Needs()), 0.0, before_wall_s, untagged=untagged)
        if reason:
            kept[reason] += 1
            continue
        samples, reason = _prune_run(database, run.run_id, before_wall_s, untagged=untagged, dry_run=dry_run)
        if reason:
            kept[reason] += 1
        elif samples.measurements:
            removed.append(samples)
    return Pruned(tuple(removed), kept)


def _prune_run(
    database: Database, run_id: str, before_wall_s: float, *, untagged: bool, dry_run: bool
) -> tuple[Samples, str]:
    with database.reading() if dry_run else database.writing() as connection:
        query = sa.select(runs.c.state, runs.c.reason).where(runs.c.run_id == run_id)
        # The row is locked: a version that is being stored refers to it, and waits or is seen below.
        run = connection.execute(query if dry_run else query.with_for_update()).one()
        samples = _samples(connection, run_id, run.state)
        needs = _needs(connection, run_id).get(run_id, Needs())
        reason = reason_to_keep(run.state, needs, samples.newest_wall_s, before_wall_s, untagged=untagged)
        if not dry_run and not reason and samples.measurements:
            own = sa.select(tasks.c.task_id).where(tasks.c.run_id == run_id)
            connection.execute(measurements.delete().where(measurements.c.task_id.in_(own)))
            day = time.strftime("%Y-%m-%d", time.gmtime())
            said = f"{run.reason}; " if run.reason else ""
            note = f"{said}{REMOVED} on {day}"
            connection.execute(runs.update().where(runs.c.run_id == run_id).values(reason=note))
    return samples, reason


def _samples(connection: Connection, run_id: str, state: str) -> Samples:
    columns = (
        sa.func.count(measurements.c.id),
        sa.func.coalesce(sa.func.sum(sa.func.length(measurements.c.body)), 0),
        sa.func.coalesce(sa.func.max(measurements.c.received_wall_s), 0.0),
    )
    own = sa.select(tasks.c.task_id).where(tasks.c.run_id == run_id)
    count, size, newest_wall_s = connection.execute(sa.select(*columns).where(measurements.c.task_id.in_(own))).one()
    return Samples(run_id, state, float(newest_wall_s), int(count), int(size))


def _needs(connection: Connection, run_id: str = "") -> dict[str, Needs]:
    """By run (of one run, when it is named): the versions built from it or checked by it, and their tags."""
    built = sa.select(lut_runs.c.run_id, lut_runs.c.digest)
    # A run names the version that came of it, or, when it validated one, that one.
    named = sa.select(runs.c.run_id, runs.c.lut_digest).where(runs.c.lut_digest.in_(sa.select(luts.c.digest)))
    if run_id:
        built, named = built.where(lut_runs.c.run_id == run_id), named.where(runs.c.run_id == run_id)
    by_run: dict[str, set[str]] = {}
    for row in connection.execute(built.union(named)):
        by_run.setdefault(row[0], set()).add(row[1])
    tags = tags_of(connection) if by_run else {}
    return {run: Needs(len(digests), _together(tags.get(d, ()) for d in digests)) for run, digests in by_run.items()}


def _together(names: Iterable[Iterable[str]]) -> frozenset[str]:
    return frozenset(name for part in names for name in part)


def tags_of(connection: Connection) -> dict[str, set[str]]:
    """By digest: the tags that are on it now, `latest` included."""
    found: dict[str, set[str]] = {}
    newest = sa.select(luts.c.configuration_id, sa.func.max(luts.c.version).label("version"))
    newest_of = newest.group_by(luts.c.configuration_id).subquery()
    same = (luts.c.configuration_id == newest_of.c.configuration_id) & (luts.c.version == newest_of.c.version)
    for digest in connection.execute(sa.select(luts.c.digest).join(newest_of, same)).scalars():
        found.setdefault(digest, set()).add(LATEST)
    last = sa.select(sa.func.max(tag_moves.c.number)).group_by(tag_moves.c.configuration_id, tag_moves.c.name)
    moves = sa.select(tag_moves.c.digest, tag_moves.c.name).where(tag_moves.c.number.in_(last))
    for row in connection.execute(moves):
        found.setdefault(row.digest, set()).add(row.name)
    return found
