"""SQL: what is known of every source and object, and the documents that the search finds.

The promise of this room:

- *One transaction.* A version, its documents, their index entries and the line in the story are written together or not at
  all. What `search` finds is what `versions` says.
- *Fenced.* An outcome counts only if its fence is not below the one stored for its object. A delete leaves a tombstone
  that keeps the fence, so a late, older lease cannot bring an object back.
- *Any name.* References and ids are any `str`, lone surrogates of `os.fsdecode` included; they come back as they were, and
  sort by code point. Texts lose NUL characters, nothing else.
- *Two databases, one behaviour.* SQLite (WAL, FTS5) and PostgreSQL (tsvector) pass the same tests.

SQL, SQLAlchemy and Alembic are used nowhere else.
"""

from sourcebus.catalog.catalog import Catalog
from sourcebus.catalog.subscriptions import Subscribed, Upkeep

__all__ = ["Catalog", "Subscribed", "Upkeep"]
