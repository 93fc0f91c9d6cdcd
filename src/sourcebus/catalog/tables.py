"""Every table, as SQLAlchemy sees it. A test keeps the migrations equal to this file.

Times are milliseconds since the epoch. Names from outside are bytes (see `keys`), JSON is ASCII text. What only one
database has is marked with ``info={"dialect": …}``; SQLite's full-text index (`documents_fts`) is a virtual table,
which SQLAlchemy cannot describe, so only the migration knows it.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.sql import text

metadata = MetaData()

_Id = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts rows up only in a column declared INTEGER

PARTS = 1 << 20
"""Most documents of one object. A document's id is ``object id * PARTS + position``: the documents of an object are a
range of the primary key, so they need no index of their own and arrive in its order."""

sources = Table(
    "sources",
    metadata,
    Column("no", _Id, primary_key=True),
    Column("id", LargeBinary, nullable=False),
    Column("workspace", LargeBinary, nullable=False),
    Column("connector", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("quota", Text),
    Column("window_ms", BigInteger),
    Column("poll_interval_s", Float),
    Column("mode", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("weight", Float, nullable=False),
    Column("secret", LargeBinary),  # a Fernet token, see `vault`
    Column("hook_token", LargeBinary),  # another
    Column("state", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    # The highest fence that a removed source of the same id had settled: what is not above it belongs to that one.
    Column("fence_floor", BigInteger, nullable=False),
    # Set while the rows of a removed source are being deleted, and for a week after.
    Column("removed_at_ms", BigInteger),
    Column("reconcile_interval_s", Float),
    # Grows whenever all that is known of the source's listings is forgotten: a listing under way then keeps nothing.
    Column("listing_epoch", Integer, nullable=False, server_default="0"),
    Index(
        "sources_id",
        "id",
        unique=True,
        sqlite_where=text("removed_at_ms IS NULL"),
        postgresql_where=text("removed_at_ms IS NULL"),
    ),
)

objects = Table(
    "objects",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("source_no", BigInteger, ForeignKey("sources.no"), nullable=False),
    Column("ref", LargeBinary, nullable=False),
    Column("ref_tail", LargeBinary, nullable=False),
    Column("ref_tail_hash", LargeBinary, nullable=False),
    # indexed, unreadable, deleted; or noted: it has a story but was never settled
    Column("state", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("fingerprint", Text),
    Column("fence", BigInteger, nullable=False),
    Column("settled_at_ms", BigInteger, nullable=False),
    Column("documents", Integer, nullable=False),
    Index("objects_ref", "source_no", "ref", "ref_tail_hash", unique=True),
    Index("objects_counts", "source_no", "state", "documents"),
    Index(
        "objects_perishable",
        "settled_at_ms",
        sqlite_where=text("state IN ('deleted', 'noted')"),
        postgresql_where=text("state IN ('deleted', 'noted')"),
    ),
)

stories = Table(
    "stories",
    metadata,
    Column("object_id", BigInteger, ForeignKey("objects.id"), primary_key=True, autoincrement=False),
    Column("lines", Text, nullable=False),  # see `story`
)

documents = Table(
    "documents",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("part", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("source_no", BigInteger, ForeignKey("sources.no"), primary_key=True, autoincrement=False),
    Column("scope_hash", LargeBinary, primary_key=True),  # a scope may be longer than an index takes
    Column("scope", LargeBinary, nullable=False),
    Column("value", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),  # the connector's `cursor_version`
)

listings = Table(
    "listings",
    metadata,
    Column("no", _Id, primary_key=True),
    Column("source_no", BigInteger, ForeignKey("sources.no"), nullable=False),
    Column("scope_hash", LargeBinary, nullable=False),
    # pass: a complete listing that was cut and goes on; held: objects whose delete waits for a person; kept: those that a
    # person wants kept although the source does not list them
    Column("purpose", Text, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("signal", Text, nullable=False),
    Column("began_at_ms", BigInteger, nullable=False),
    Column("caught_up_at_ms", BigInteger, nullable=False),
    Column("counts", Text, nullable=False),
    Index("listings_scope", "source_no", "scope_hash", "purpose", unique=True),
    sqlite_autoincrement=True,  # a number is never used again: what its listing has seen goes after it
)

sightings = Table(
    "sightings",
    metadata,
    # Of which listing. Not a foreign key: a listing goes at once, its sightings in small slices afterwards.
    Column("listing_no", BigInteger, primary_key=True, autoincrement=False),
    Column("ref_hash", LargeBinary, primary_key=True),
    sqlite_with_rowid=False,
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("no", _Id, primary_key=True),
    Column("source_no", BigInteger, ForeignKey("sources.no"), nullable=False),
    Column("id_hash", LargeBinary, nullable=False),  # a provider's id may be longer than an index takes
    Column("id", LargeBinary, nullable=False),
    Column("hook_url", Text, nullable=False),
    Column("secret", LargeBinary),  # a Fernet token, see `vault`
    Column("state", Text, nullable=False),
    Column("made_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("renew_at_ms", BigInteger),
    Index("subscriptions_id", "source_no", "id_hash", unique=True),
)

upkeeps = Table(
    "upkeeps",
    metadata,
    # A row for every source that is to have a subscription.
    Column("source_no", BigInteger, ForeignKey("sources.no"), primary_key=True, autoincrement=False),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("error", Text),
    Index("upkeeps_due", "due_at_ms"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("source_no", BigInteger, ForeignKey("sources.no"), nullable=False),
    # Those that prove nothing are kept apart, and fewer of them, so that they cannot push out the others.
    Column("refused", Boolean, nullable=False),
    Column("line", Text, nullable=False),  # what is shown
    Column("sealed", LargeBinary),  # the whole request: compressed, then a Fernet token, see `vault`
    Index("deliveries_source", "source_no", "refused", "id"),
)

contents = Table(
    "contents",
    metadata,
    # What came in deliveries of sources that cannot be asked: the newest state of each object, see `depot`.
    Column("source_no", BigInteger, ForeignKey("sources.no"), primary_key=True, autoincrement=False),
    Column("ref_hash", LargeBinary, primary_key=True),
    Column("ref", LargeBinary, nullable=False),
    Column("version", Text, nullable=False),
    Column("body", LargeBinary),  # null: the object is gone
    Column("title", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("sequence", Float),
)

document_words = Table(
    "document_words",
    metadata,
    Column("document_id", BigInteger, ForeignKey("documents.id"), primary_key=True, autoincrement=False),
    Column("words", TSVECTOR, nullable=False),
    Index("document_words_words", "words", postgresql_using="gin"),
    info={"dialect": "postgresql"},
)
