"""Tags in the database: pointers to versions that move, and every move that they made."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lut_store.reference import LATEST
from lut_store.schema import configurations, luts, series, tag_moves
from protos.types import TagMove

if TYPE_CHECKING:
    from lut_store.database import AnyRow

AUTOMATIC = "edgelut"  # who moves `latest`
_CONFIGURATION = (
    *(series.c.device_type, series.c.space),
    *(configurations.c[name] for name in ("emulation", "context", "threads", "batch", "runtime", "precision")),
)


def has_tag(name: str) -> sa.ColumnElement[bool]:
    """Whether the configuration of the statement around it has the tag."""
    statement = sa.select(tag_moves.c.number).where(
        tag_moves.c.configuration_id == configurations.c.configuration_id, tag_moves.c.name == name
    )
    return statement.correlate(configurations).exists()


def tagged_digest(name: str, configuration_id: sa.ColumnElement[int] | int) -> sa.ScalarSelect[str]:
    """Where the tag of a configuration points."""
    statement = sa.select(tag_moves.c.digest).where(
        tag_moves.c.configuration_id == configuration_id, tag_moves.c.name == name
    )
    return statement.order_by(tag_moves.c.number.desc()).limit(1).correlate_except(tag_moves).scalar_subquery()


def moves(connection: Connection, where: Sequence[sa.ColumnElement[bool]], *, history: bool) -> list[TagMove]:
    """By device type, space, configuration and tag, the newest first; without `history` the newest move of each alone.

    where: conditions on series and configurations. `latest` moved whenever a version was stored.
    """
    statement = (
        sa.select(*_CONFIGURATION, luts.c.version, tag_moves)
        .join(luts, tag_moves.c.digest == luts.c.digest)
        .join(configurations, tag_moves.c.configuration_id == configurations.c.configuration_id)
        .join(series, configurations.c.series_id == series.c.series_id)
        .where(*where)
    )
    if not history:
        newest = sa.select(sa.func.max(tag_moves.c.number)).group_by(tag_moves.c.configuration_id, tag_moves.c.name)
        statement = statement.where(tag_moves.c.number.in_(newest))
    rows = connection.execute(statement.order_by(tag_moves.c.number.desc())).all()
    found = [_move(row) for row in rows] + _latest(connection, where, history=history)
    return sorted(found, key=_order)  # stable: the newest stays first


def _order(move: TagMove) -> tuple[Any, ...]:
    conditions = (move.emulation, move.context, move.threads, move.batch, move.runtime, move.precision)
    return move.device_type, move.space, *conditions, move.name != LATEST, move.name


def _configuration(row: AnyRow) -> dict[str, Any]:
    return {column.name: row._mapping[column.name] for column in _CONFIGURATION}


def _move(row: AnyRow) -> TagMove:
    return TagMove(
        **_configuration(row),
        name=row.name,
        version=row.version,
        digest=row.digest,
        previous_version=row.previous_version,
        moved_wall_s=row.moved_wall_s,
        moved_by=row.moved_by,
        forced=row.forced,
        reason=row.reason,
        objections=tuple(json.loads(row.objections)),
    )


def _latest(connection: Connection, where: Sequence[sa.ColumnElement[bool]], *, history: bool) -> list[TagMove]:
    """`latest` of each configuration, newest first: it points at the newest version and moves with every new one."""
    of_configuration = luts.alias("of_configuration")
    previous = sa.select(sa.func.max(of_configuration.c.version)).where(
        of_configuration.c.configuration_id == luts.c.configuration_id, of_configuration.c.version < luts.c.version
    )
    statement = (
        sa.select(
            *_CONFIGURATION,
            luts.c.version,
            luts.c.digest,
            luts.c.created_wall_s,
            sa.func.coalesce(previous.correlate(luts).scalar_subquery(), 0).label("previous_version"),
        )
        .join(configurations, luts.c.configuration_id == configurations.c.configuration_id)
        .join(series, configurations.c.series_id == series.c.series_id)
        .where(*where)
    )
    if not history:
        statement = statement.where(luts.c.version == newest_version(luts.c.configuration_id))
    return [
        TagMove(
            **_configuration(row),
            name=LATEST,
            version=row.version,
            digest=row.digest,
            previous_version=row.previous_version,
            moved_wall_s=row.created_wall_s,
            moved_by=AUTOMATIC,
        )
        for row in connection.execute(statement.order_by(luts.c.version.desc()))
    ]


def newest_version(configuration_id: sa.ColumnElement[int]) -> sa.ScalarSelect[int]:
    """The newest version of the configuration of the statement around it."""
    own = luts.alias("newest")
    statement = sa.select(sa.func.max(own.c.version)).where(own.c.configuration_id == configuration_id)
    return statement.correlate_except(own).scalar_subquery()


def add(
    connection: Connection,
    digest: str,
    name: str,
    *,
    moved_by: str,
    reason: str,
    objections: Sequence[str],
) -> None:
    """Set the tag on a version; nothing is recorded when it points there already.

    The caller holds the lock of the series (lut_rows.lock_series), so that two moves follow each other.
    """
    own = sa.select(luts.c.configuration_id).where(luts.c.digest == digest)
    configuration_id = connection.execute(own).scalar_one()
    before = connection.execute(
        sa.select(luts.c.digest, luts.c.version).where(luts.c.digest == tagged_digest(name, configuration_id))
    ).one_or_none()
    if before is not None and before.digest == digest:
        return
    connection.execute(
        tag_moves.insert().values(
            configuration_id=configuration_id,
            name=name,
            digest=digest,
            previous_version=0 if before is None else before.version,
            moved_wall_s=time.time(),
            moved_by=moved_by,
            forced=bool(objections),
            reason=reason,
            objections=json.dumps(list(objections), ensure_ascii=False),
        )
    )
