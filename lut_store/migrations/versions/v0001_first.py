"""Runs, tasks, measurements, devices and LUT versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _evidence()
    _versions()


def _evidence() -> None:
    op.create_table(
        "runs",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_wall_s", sa.Float, nullable=False),
        sa.Column("lut_digest", sa.String(64), nullable=False),
        sa.Column("lut_reference", sa.Text, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("run_id"),
    )
    op.create_table(
        "tasks",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.run_id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("seed", sa.String(20), nullable=False),
        sa.Column("first_round", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("lease_until_s", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.UniqueConstraint("task_id"),
    )
    op.create_index(None, "tasks", ["run_id", "state", "number"])
    op.create_index(None, "tasks", ["state", "lease_until_s"])
    op.create_table(
        "measurements",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.task_id"), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("flags", sa.Text, nullable=False),
        sa.Column("received_wall_s", sa.Float, nullable=False),
        sa.Column("compressed", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index(None, "measurements", ["task_id", "sequence"])
    op.create_table(
        "devices",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("device_type", sa.Text, nullable=False),
        sa.Column("last_seen_wall_s", sa.Float, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )


def _versions() -> None:
    op.create_table(
        "series",
        sa.Column("series_id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("device_type", sa.Text, nullable=False),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("last_version", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("device_type", "space"),
    )
    op.create_table(
        "configurations",
        sa.Column("configuration_id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("series_id", _NUMBER, sa.ForeignKey("series.series_id"), nullable=False),
        sa.Column("emulation", sa.String(16), nullable=False),
        sa.Column("context", sa.String(16), nullable=False),
        sa.Column("threads", sa.Integer, nullable=False),
        sa.Column("batch", sa.Integer, nullable=False),
        sa.Column("runtime", sa.Text, nullable=False),
        sa.Column("precision", sa.Text, nullable=False),
        sa.UniqueConstraint("series_id", "emulation", "context", "threads", "batch", "runtime", "precision"),
    )
    op.create_table(
        "luts",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("series_id", _NUMBER, sa.ForeignKey("series.series_id"), nullable=False),
        sa.Column("configuration_id", _NUMBER, sa.ForeignKey("configurations.configuration_id"), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("created_wall_s", sa.Float, nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("latency_mape", sa.Float),
        sa.Column("energy_mape", sa.Float),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("series_id", "version"),
    )
    op.create_index(None, "luts", ["configuration_id", "version"])
    op.create_table(
        "lut_runs",
        sa.Column("digest", sa.String(64), sa.ForeignKey("luts.digest"), primary_key=True),
        sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.run_id"), primary_key=True),
    )
