"""Subscriptions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), primary_key=True, autoincrement=False),
        sa.Column("id_hash", sa.LargeBinary, primary_key=True),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
