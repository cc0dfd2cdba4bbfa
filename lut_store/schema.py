"""The tables of the database. Alembic owns the schema (lut_store/migrations); a test compares the two.

Times `*_wall_s` are seconds since 1970. Messages are stored as the bytes of protos/*.proto, so that raw evidence is
kept exactly as it was sent.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

REVISION = "0003"  # the newest migration: what this program reads and writes

# SQLite counts only in plain INTEGER keys; elsewhere they should not end at two thousand million.
RowNumber = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

runs = Table(
    "runs",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("run_id", String(64), nullable=False, unique=True),
    Column("device", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_wall_s", Float, nullable=False),
    Column("lut_digest", String(64), nullable=False),
    Column("lut_reference", Text, nullable=False),
    Column("spec", LargeBinary, nullable=False),  # RunSpec, zlib
)

tasks = Table(
    "tasks",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),  # the order in which they are leased
    Column("task_id", String(64), nullable=False, unique=True),
    Column("run_id", String(64), ForeignKey("runs.run_id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("seed", String(20), nullable=False),  # 64 bits without a sign, which no integer column holds
    Column("first_round", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("device", Text, nullable=False),  # of the newest lease
    Column("fence", BigInteger, nullable=False),  # counts the leases
    Column("lease_until_s", Float, nullable=False),
    Column("attempts", Integer, nullable=False),  # failures
    Column("reason", Text, nullable=False),  # of the newest failure
    Index(None, "run_id", "state", "number"),
    Index(None, "state", "lease_until_s"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("task_id", String(64), ForeignKey("tasks.task_id"), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("device", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("flags", Text, nullable=False),  # separated by blanks
    Column("received_wall_s", Float, nullable=False),
    Column("compressed", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),  # Measurement, zlib when compressed
    Index(None, "task_id", "sequence"),
)

devices = Table(
    "devices",
    metadata,
    Column("name", Text, primary_key=True),
    Column("device_type", Text, nullable=False),
    Column("last_seen_wall_s", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),  # Device
)

# One line of version numbers.
series = Table(
    "series",
    metadata,
    Column("series_id", RowNumber, primary_key=True, autoincrement=True),
    Column("device_type", Text, nullable=False),
    Column("space", Text, nullable=False),
    Column("last_version", BigInteger, nullable=False),
    UniqueConstraint("device_type", "space"),
)

configurations = Table(
    "configurations",
    metadata,
    Column("configuration_id", RowNumber, primary_key=True, autoincrement=True),
    Column("series_id", RowNumber, ForeignKey("series.series_id"), nullable=False),
    Column("emulation", String(16), nullable=False),
    Column("context", String(16), nullable=False),
    Column("threads", Integer, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("precision", Text, nullable=False),
    UniqueConstraint("series_id", "emulation", "context", "threads", "batch", "runtime", "precision"),
)

luts = Table(
    "luts",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("series_id", RowNumber, ForeignKey("series.series_id"), nullable=False),
    Column("configuration_id", RowNumber, ForeignKey("configurations.configuration_id"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("method", Text, nullable=False),
    Column("created_wall_s", Float, nullable=False),
    Column("run_id", String(64), nullable=False),  # the first of lut_runs; empty for an import
    Column("latency_mape", Float),
    Column("energy_mape", Float),
    Column("document", LargeBinary, nullable=False),  # the .lut file
    UniqueConstraint("series_id", "version"),
    Index(None, "configuration_id", "version"),
)

lut_runs = Table(
    "lut_runs",
    metadata,
    Column("digest", String(64), ForeignKey("luts.digest"), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.run_id"), primary_key=True),
)

# Append-only: the newest row of a configuration and a name is the tag, the others are its history. `latest` has no
# rows: it is the newest version.
tag_moves = Table(
    "tag_moves",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("configuration_id", RowNumber, ForeignKey("configurations.configuration_id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), ForeignKey("luts.digest"), nullable=False),
    Column("previous_version", BigInteger, nullable=False),  # 0: the tag was new
    Column("moved_wall_s", Float, nullable=False),
    Column("moved_by", Text, nullable=False),
    Column("forced", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("objections", Text, nullable=False),  # JSON: sentences of the policy
    Index(None, "configuration_id", "name", "number"),
    Index(None, "digest"),
)

# What lint found when the version was stored. A version of an older edgelut has no row.
lints = Table(
    "lints",
    metadata,
    Column("digest", String(64), ForeignKey("luts.digest"), primary_key=True),
    Column("linted_wall_s", Float, nullable=False),
    Column("findings", Text, nullable=False),  # JSON: protos.types.Finding
)

# Invitations to a certificate; the secret itself is nowhere but in the token.
enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("secret_hash", String(64), primary_key=True),  # SHA-256
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("device_type", Text, nullable=False),
    Column("created_wall_s", Float, nullable=False),
    Column("expires_wall_s", Float, nullable=False),
    Column("used_wall_s", Float),
    Column("cancelled", Boolean, nullable=False),
    Index(None, "name"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("device_type", Text, nullable=False),
    Column("issued_wall_s", Float, nullable=False),
    Column("expires_wall_s", Float, nullable=False),
    Column("revoked_wall_s", Float),
    Column("reason", Text, nullable=False),  # of the revocation
    Index(None, "name"),
    Index(None, "revoked_wall_s"),
)
