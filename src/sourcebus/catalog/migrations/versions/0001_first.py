"""The first schema: sources, objects, stories, documents, cursors and the full-text index of each database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_LIVE = sa.text("removed_at_ms IS NULL")
_PERISHABLE = sa.text("state IN ('deleted', 'noted')")


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("no", _ID, primary_key=True),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("workspace", sa.LargeBinary, nullable=False),
        sa.Column("connector", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("quota", sa.Text),
        sa.Column("window_ms", sa.BigInteger),
        sa.Column("poll_interval_s", sa.Float),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.Column("fence_floor", sa.BigInteger, nullable=False),
        sa.Column("removed_at_ms", sa.BigInteger),
    )
    op.create_index("sources_id", "sources", ["id"], unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE)
    op.create_table(
        "objects",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), nullable=False),
        sa.Column("ref", sa.LargeBinary, nullable=False),
        sa.Column("ref_tail", sa.LargeBinary, nullable=False),
        sa.Column("ref_tail_hash", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("settled_at_ms", sa.BigInteger, nullable=False),
        sa.Column("documents", sa.Integer, nullable=False),
    )
    op.create_index("objects_ref", "objects", ["source_no", "ref", "ref_tail_hash"], unique=True)
    op.create_index("objects_counts", "objects", ["source_no", "state", "documents"])
    op.create_index("objects_perishable", "objects", ["settled_at_ms"], sqlite_where=_PERISHABLE, postgresql_where=_PERISHABLE)
    op.create_table(
        "stories",
        sa.Column("object_id", sa.BigInteger, sa.ForeignKey("objects.id"), primary_key=True, autoincrement=False),
        sa.Column("lines", sa.Text, nullable=False),
    )
    op.create_table(
        "documents",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("part", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "cursors",
        sa.Column("source_no", sa.BigInteger, sa.ForeignKey("sources.no"), primary_key=True, autoincrement=False),
        sa.Column("scope_hash", sa.LargeBinary, primary_key=True),
        sa.Column("scope", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        _postgres_index()
    else:
        _sqlite_index()


def _postgres_index() -> None:
    op.create_table(
        "document_words",
        sa.Column("document_id", sa.BigInteger, sa.ForeignKey("documents.id"), primary_key=True, autoincrement=False),
        sa.Column("words", TSVECTOR, nullable=False),
    )
    op.create_index("document_words_words", "document_words", ["words"], postgresql_using="gin")


def _sqlite_index() -> None:
    # The texts stay in `documents` (external content); the underscore separates words, so `path` finds `os_path`, and
    # all positions are kept, so `os_path` is found as a phrase.
    op.execute(
        "CREATE VIRTUAL TABLE documents_fts USING fts5(title, text, content='documents', content_rowid='id',"
        " tokenize='unicode61 remove_diacritics 2')"
    )
    for option in (
        "VALUES ('rank', 'bm25(8.0, 1.0)')",  # a word of the title weighs as much as eight of the text
        "VALUES ('pgsz', 8000)",  # an index leaf fills one page of the file
        "VALUES ('hashsize', 16777216)",  # a batch becomes one segment, not one per megabyte
        "VALUES ('automerge', 8)",  # fewer merges while writing; `maintain` merges when there is time
    ):
        op.execute("INSERT INTO documents_fts(documents_fts, rank) " + option)
