"""The contents that come in deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "contents",
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), primary_key=True, autoincrement=False),
        sa.Column("ref_hash", sa.LargeBinary, primary_key=True),
        sa.Column("ref", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("sequence", sa.Float),
    )
