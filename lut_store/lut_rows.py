"""LUT versions in the database: numbered when they are added, found by configuration, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lut_store import tag_rows
from lut_store.database import insert
from lut_store.formats import to_bytes
from lut_store.lut import Lut
from lut_store.reference import LATEST, ambiguous, no_such_version, not_found, tag_name, version_number
from lut_store.schema import configurations, lut_runs, luts, series
from lut_store.stable import validation_mape
from protos.errors import NotFoundError
from protos.types import Configuration, LutQuery, LutSummary

if TYPE_CHECKING:
    from lut_store.database import AnyRow

# What of a configuration may differ within a series; also the names of LutQuery's fields.
_CONDITIONS = ("emulation", "context", "threads", "batch", "runtime", "precision")
_JOINED = luts.join(configurations, luts.c.configuration_id == configurations.c.configuration_id).join(
    series, luts.c.series_id == series.c.series_id
)
_SUMMARY = (
    *(series.c.device_type, series.c.space, luts.c.version, luts.c.digest),
    *(configurations.c[name] for name in _CONDITIONS),
    *(luts.c.method, luts.c.created_wall_s, luts.c.run_id, luts.c.latency_mape, luts.c.energy_mape),
)


# ---- writing ----


def lock_series(connection: Connection, configuration: Configuration) -> tuple[int, int]:
    """(series, its newest version); until the transaction ends, nobody else can number a version of the series."""
    new = {"device_type": configuration.device_type, "space": configuration.space, "last_version": 0}
    # An update that changes nothing still locks the row.
    same = {"last_version": series.c.last_version}
    row = connection.execute(
        insert(connection, series)
        .values(new)
        .on_conflict_do_update(index_elements=["device_type", "space"], set_=same)
        .returning(series.c.series_id, series.c.last_version)
    ).one()
    return row.series_id, row.last_version


def _configuration_id(connection: Connection, series_id: int, lut: Lut) -> int:
    values: dict[str, Any] = {"series_id": series_id}
    values |= {name: value for name, value in asdict(lut.configuration).items() if name in _CONDITIONS}
    connection.execute(insert(connection, configurations).values(values).on_conflict_do_nothing())
    query = sa.select(configurations.c.configuration_id)
    return int(
        connection.execute(
            query.where(*(configurations.c[name] == value for name, value in values.items()))
        ).scalar_one()
    )


def add(connection: Connection, lut: Lut, series_id: int, run_ids: Sequence[str]) -> None:
    """`lut` has the version that follows the one of lock_series."""
    connection.execute(series.update().where(series.c.series_id == series_id).values(last_version=lut.version))
    connection.execute(
        luts.insert().values(
            digest=lut.digest,
            series_id=series_id,
            configuration_id=_configuration_id(connection, series_id, lut),
            version=lut.version,
            method=method_name(lut),
            created_wall_s=lut.created_wall_s,
            run_id=run_ids[0] if run_ids else "",
            latency_mape=validation_mape(lut, "latency"),
            energy_mape=validation_mape(lut, "energy"),
            document=to_bytes(lut),
        )
    )
    if run_ids:
        connection.execute(lut_runs.insert(), [{"digest": lut.digest, "run_id": run_id} for run_id in run_ids])


def method_name(lut: Lut) -> str:
    """ "paths" from provenance, where the method is a word or a record with a word for latency."""
    method = lut.provenance.get("method", "")
    if isinstance(method, dict):
        method = method.get("latency", "")
    return method if isinstance(method, str) else ""


# ---- reading ----


def document(connection: Connection, digest: str) -> bytes | None:
    row = connection.execute(sa.select(luts.c.document).where(luts.c.digest == digest)).one_or_none()
    return None if row is None else bytes(row.document)


def conditions(query: LutQuery) -> list[sa.ColumnElement[bool]]:
    """On series and configurations; empty or absent fields match anything, and so does the version."""
    wanted = [(series.c.device_type, query.device_type), (series.c.space, query.space)]
    wanted += [(configurations.c[name], getattr(query, name)) for name in _CONDITIONS]
    return [column == value for column, value in wanted if value not in ("", None)]


def summaries(connection: Connection, query: LutQuery) -> list[LutSummary]:
    """By device type and space, newest first; with version "latest" or a tag what that means in each configuration."""
    where = [luts.c.digest == query.digest] if query.digest else conditions(query)
    number, tag = version_number(query), tag_name(query)
    if number is not None:
        where.append(luts.c.version == number)
    elif tag:
        where.append(luts.c.digest == tag_rows.tagged_digest(tag, configurations.c.configuration_id))
    elif query.version == LATEST and not query.digest:
        where.append(luts.c.version == tag_rows.newest_version(configurations.c.configuration_id))
    statement = sa.select(*_SUMMARY).select_from(_JOINED).where(*where)
    statement = statement.order_by(series.c.device_type, series.c.space, luts.c.version.desc())
    tags: dict[str, list[str]] = {}
    for move in tag_rows.moves(connection, [] if query.digest else conditions(query), history=False):
        tags.setdefault(move.digest, []).append(move.name)
    return [LutSummary(**row._mapping, tags=tuple(tags.get(row.digest, ()))) for row in connection.execute(statement)]


def find(connection: Connection, query: LutQuery) -> str:
    """The digest of the one version that is meant. Raises NotFoundError or AmbiguousError, which name what there is.

    Only the fitting configurations are read, not their versions, so that ten thousand versions cost no more than one.
    """
    if query.digest:
        found = connection.execute(sa.select(luts.c.digest).where(luts.c.digest == query.digest)).scalar()
        if found is None:
            raise NotFoundError(f"there is no LUT with the digest {query.digest[:16]}")
        return str(found)
    number, tag = version_number(query), tag_name(query)
    fits = _fitting(connection, query)
    if not fits:
        there = summaries(connection, replace(query, version="")) if number is not None or tag else []
        raise no_such_version(query, there) if there else not_found(query, _newest(connection))
    if len(fits) > 1:
        newest = summaries(connection, LutQuery(query.device_type, query.space, version=LATEST))
        fields = ("device_type", "space", *_CONDITIONS)
        keys = {tuple(getattr(row, name) for name in fields) for row in fits}
        raise ambiguous(query, [s for s in newest if tuple(getattr(s, name) for name in fields) in keys])
    configuration_id = fits[0].configuration_id
    if tag:
        return str(connection.execute(sa.select(tag_rows.tagged_digest(tag, configuration_id))).scalar_one())
    chosen = sa.select(luts.c.digest).where(luts.c.configuration_id == configuration_id)
    if number is not None:
        chosen = chosen.where(luts.c.version == number)
    return str(connection.execute(chosen.order_by(luts.c.version.desc()).limit(1)).scalar_one())


def _newest(connection: Connection) -> list[LutSummary]:
    return summaries(connection, LutQuery(version=LATEST))


def _fitting(connection: Connection, query: LutQuery) -> Sequence[AnyRow]:
    """The configurations that the query fits, and that have the version or the tag that it names."""
    columns = (configurations.c.configuration_id, series.c.device_type, series.c.space)
    statement = (
        sa.select(*columns, *(configurations.c[name] for name in _CONDITIONS))
        .join(series, configurations.c.series_id == series.c.series_id)
        .where(*conditions(query))
    )
    number, tag = version_number(query), tag_name(query)
    if number is not None:
        has_it = sa.select(luts.c.digest).where(
            luts.c.configuration_id == configurations.c.configuration_id, luts.c.version == number
        )
        statement = statement.where(has_it.correlate(configurations).exists())
    if tag:
        statement = statement.where(tag_rows.has_tag(tag))
    return connection.execute(statement).all()
