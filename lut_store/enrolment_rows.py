"""Tokens that invite to a certificate, and the certificates that were issued."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import or_, select, update
from sqlalchemy.engine import Connection

from lut_store.database import insert
from lut_store.records import Invitation, Issued
from lut_store.schema import certificates, enrolment_tokens
from protos.errors import BadInputError, ConflictError, StaleLeaseError


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def invite(connection: Connection, secret: str, holder: Invitation, now_s: float, expires_s: float) -> None:
    """Keep the token. Raises ConflictError when the name belongs to somebody with another role or device type."""
    known = connection.execute(
        select(certificates.c.role, certificates.c.device_type).where(
            certificates.c.name == holder.name,
            certificates.c.revoked_wall_s.is_(None),
            certificates.c.expires_wall_s > now_s,
        )
    ).first()
    if known is not None and (known.role, known.device_type) != (holder.role, holder.device_type):
        raise ConflictError(
            f"{holder.name} has a certificate as {' '.join((known.role, known.device_type)).strip()}: "
            f"revoke it first (coordinator revoke {holder.name}), or choose another name"
        )
    connection.execute(
        insert(connection, enrolment_tokens).values(
            secret_hash=_hash(secret),
            name=holder.name,
            role=holder.role,
            device_type=holder.device_type,
            created_wall_s=now_s,
            expires_wall_s=expires_s,
            cancelled=False,
        )
    )


def redeem(connection: Connection, secret: str, now_s: float) -> Invitation:
    """Use the token up. Raises StaleLeaseError (permission denied) for one that is unknown, used, cancelled or too old;
    the sentence does not say which, for it may go to somebody who guesses.
    """
    found = enrolment_tokens.c.secret_hash == _hash(secret)
    used = connection.execute(
        update(enrolment_tokens)
        .where(
            found,
            enrolment_tokens.c.used_wall_s.is_(None),
            ~enrolment_tokens.c.cancelled,
            enrolment_tokens.c.expires_wall_s > now_s,
        )
        .values(used_wall_s=now_s)
    )
    if used.rowcount != 1:
        raise StaleLeaseError(
            "this token is not valid: it was used, cancelled, has expired or never was; make a new one with "
            "`coordinator enroll` on the coordinator's machine"
        )
    row = connection.execute(select(enrolment_tokens).where(found)).one()
    return Invitation(row.name, row.role, row.device_type)


def add_certificate(connection: Connection, issued: Issued) -> None:
    connection.execute(
        insert(connection, certificates).values(
            serial=issued.serial,
            name=issued.holder.name,
            role=issued.holder.role,
            device_type=issued.holder.device_type,
            issued_wall_s=issued.issued_wall_s,
            expires_wall_s=issued.expires_wall_s,
            reason="",
        )
    )


def revoke(connection: Connection, name: str, reason: str, now_s: float) -> tuple[Sequence[str], int]:
    """(serials of the certificates, number of tokens) of `name` that were valid until now.

    Raises BadInputError when there is nothing of that name, naming what there is.
    """
    valid = [certificates.c.revoked_wall_s.is_(None), certificates.c.expires_wall_s > now_s]
    serials = connection.execute(select(certificates.c.serial).where(certificates.c.name == name, *valid)).scalars()
    gone = list(serials)
    connection.execute(
        update(certificates).where(certificates.c.serial.in_(gone)).values(revoked_wall_s=now_s, reason=reason)
    )
    pending = [~enrolment_tokens.c.cancelled, enrolment_tokens.c.used_wall_s.is_(None)]
    tokens = connection.execute(
        update(enrolment_tokens)
        .where(enrolment_tokens.c.name == name, *pending, enrolment_tokens.c.expires_wall_s > now_s)
        .values(cancelled=True)
    ).rowcount
    if not gone and not tokens:
        there = connection.execute(select(certificates.c.name).where(*valid).distinct()).scalars()
        raise BadInputError(
            f"{name!r} has no valid certificate or token to revoke (valid: {', '.join(sorted(there)) or 'none'})"
        )
    return gone, tokens


def revoked_serials(connection: Connection, now_s: float) -> frozenset[str]:
    """Of the certificates that would still be valid."""
    rows = connection.execute(
        select(certificates.c.serial).where(
            certificates.c.revoked_wall_s.is_not(None), certificates.c.expires_wall_s > now_s
        )
    )
    return frozenset(rows.scalars())


def every(connection: Connection, now_s: float) -> list[Issued]:
    """The certificates that have not expired, revoked ones included, by name and age."""
    rows = connection.execute(
        select(certificates)
        .where(or_(certificates.c.expires_wall_s > now_s, certificates.c.revoked_wall_s.is_not(None)))
        .order_by(certificates.c.name, certificates.c.issued_wall_s)
    )
    return [
        Issued(
            row.serial,
            Invitation(row.name, row.role, row.device_type),
            row.issued_wall_s,
            row.expires_wall_s,
            row.revoked_wall_s,
            row.reason,
        )
        for row in rows
    ]
