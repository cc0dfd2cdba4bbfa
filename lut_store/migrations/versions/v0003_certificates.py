"""Tokens and certificates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "enrolment_tokens",
        sa.Column("secret_hash", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("device_type", sa.Text, nullable=False),
        sa.Column("created_wall_s", sa.Float, nullable=False),
        sa.Column("expires_wall_s", sa.Float, nullable=False),
        sa.Column("used_wall_s", sa.Float),
        sa.Column("cancelled", sa.Boolean, nullable=False),
    )
    op.create_index(None, "enrolment_tokens", ["name"])
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(40), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("device_type", sa.Text, nullable=False),
        sa.Column("issued_wall_s", sa.Float, nullable=False),
        sa.Column("expires_wall_s", sa.Float, nullable=False),
        sa.Column("revoked_wall_s", sa.Float),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index(None, "certificates", ["name"])
    op.create_index(None, "certificates", ["revoked_wall_s"])
