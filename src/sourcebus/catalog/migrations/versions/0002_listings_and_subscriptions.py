"""Listings that are cut and go on, what they have seen, deletes that are held; subscriptions and when to look after them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("sources", sa.Column("reconcile_interval_s", sa.Float))
    op.add_column("sources", sa.Column("listing_epoch", sa.Integer, nullable=False, server_default="0"))
    op.add_column("cursors", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.create_table(
        "listings",
        sa.Column("no", _ID, primary_key=True),
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), nullable=False),
        sa.Column("scope_hash", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("signal", sa.Text, nullable=False),
        sa.Column("began_at_ms", sa.BigInteger, nullable=False),
        sa.Column("caught_up_at_ms", sa.BigInteger, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("listings_scope", "listings", ["source_no", "scope_hash", "purpose"], unique=True)
    op.create_table(
        "sightings",
        sa.Column("listing_no", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ref_hash", sa.LargeBinary, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "subscriptions",
        sa.Column("no", _ID, primary_key=True),
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), nullable=False),
        sa.Column("id_hash", sa.LargeBinary, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("hook_url", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("made_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger),
        sa.Column("renew_at_ms", sa.BigInteger),
    )
    op.create_index("subscriptions_id", "subscriptions", ["source_no", "id_hash"], unique=True)
    op.create_table(
        "upkeeps",
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), primary_key=True, autoincrement=False),
        sa.Column("due_at_ms", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_index("upkeeps_due", "upkeeps", ["due_at_ms"])
