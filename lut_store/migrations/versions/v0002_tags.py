"""Tags with their history, and what lint found in every version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "tag_moves",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("configuration_id", _NUMBER, sa.ForeignKey("configurations.configuration_id"), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), sa.ForeignKey("luts.digest"), nullable=False),
        sa.Column("previous_version", sa.BigInteger, nullable=False),
        sa.Column("moved_wall_s", sa.Float, nullable=False),
        sa.Column("moved_by", sa.Text, nullable=False),
        sa.Column("forced", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("objections", sa.Text, nullable=False),
    )
    op.create_index(None, "tag_moves", ["configuration_id", "name", "number"])
    op.create_index(None, "tag_moves", ["digest"])
    op.create_table(
        "lints",
        sa.Column("digest", sa.String(64), sa.ForeignKey("luts.digest"), primary_key=True),
        sa.Column("linted_wall_s", sa.Float, nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
    )
