"""Unguessable hook addresses, and the deliveries log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("sources", sa.Column("hook_token", sa.LargeBinary))
    op.create_table(
        "deliveries",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), nullable=False),
        sa.Column("refused", sa.Boolean, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary),
    )
    op.create_index("deliveries_source", "deliveries", ["source_no", "refused", "id"])
