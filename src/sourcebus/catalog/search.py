"""Full-text search over the documents of live sources. Any text that a person types is a valid query.

The query is cut at white space; every piece must match. A piece of several words (``os_path``, ``os.path``) matches where
these follow one another; the very last word also matches as a prefix. SQLite ranks with bm25, PostgreSQL with ts_rank; a
match in the title weighs more than one in the text.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Sequence
from typing import Any

from sourcebus.catalog import words
from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import clean_text, from_bytes, ref_of, to_bytes
from sourcebus.catalog.tables import PARTS
from sourcebus.errors import InvalidInput
from sourcebus.model import Hit, from_ms

_LONGEST_QUERY = 64
"""Pieces of a query that are looked at; FTS5 takes no more than 256."""

_MOST_HITS = 1_000
_PARTS = str(PARTS)

_SQLITE = """
SELECT s.id, o.ref, o.ref_tail, f.title, snippet(documents_fts, 1, ?, ?, '…', 24), o.version, o.settled_at_ms, -f.rank
FROM documents_fts f
CROSS JOIN objects o ON o.id = f.rowid / PARTS
CROSS JOIN sources s ON s.no = o.source_no
WHERE documents_fts MATCH ? AND s.removed_at_ms IS NULL FILTER
ORDER BY f.rank LIMIT ? OFFSET ?
""".replace("PARTS", _PARTS)

_POSTGRES = """
WITH best AS (
    SELECT w.document_id, s.id, o.ref, o.ref_tail, o.version, o.settled_at_ms, ts_rank(w.words, q.q, 1) AS rank
    FROM (SELECT CAST(? AS tsquery) AS q) q
    JOIN document_words w ON w.words @@ q.q
    JOIN objects o ON o.id = w.document_id / PARTS
    JOIN sources s ON s.no = o.source_no
    WHERE s.removed_at_ms IS NULL FILTER
    ORDER BY rank DESC, w.document_id LIMIT ? OFFSET ?
)
SELECT b.id, b.ref, b.ref_tail, d.title, left(d.text, 1000000), b.version, b.settled_at_ms, b.rank
FROM best b JOIN documents d ON d.id = b.document_id ORDER BY b.rank DESC, b.document_id
""".replace("PARTS", _PARTS)


def search(database: Database, q: str, *, source_id: str | None, workspace: str | None, limit: int, offset: int) -> list[Hit]:
    """The best hits, best first. A query without a letter or digit finds nothing. InvalidInput: an empty `q`."""
    if not q.strip():
        raise InvalidInput("q", "is empty", "give at least one word to look for")
    if not 1 <= limit <= _MOST_HITS or offset < 0:
        raise InvalidInput("limit", f"must be 1 to {_MOST_HITS}, with an offset of at least 0")
    pieces = [piece for piece in clean_text(q).split() if words.WORD.search(piece)][:_LONGEST_QUERY]
    if not pieces:
        return []
    condition, chosen = "", list[Any]()
    for column, value in (("s.id", source_id), ("s.workspace", workspace)):
        if value is not None:
            condition += f" AND {column} = ?"
            chosen.append(to_bytes(value))
    find = _find_sqlite if database.is_sqlite else _find_postgres
    return find(database, pieces, condition, (*chosen, limit, offset))


def _find_sqlite(database: Database, pieces: Sequence[str], condition: str, rest: tuple[Any, ...]) -> list[Hit]:
    quoted = " ".join('"' + piece.replace('"', '""') + '"' for piece in pieces) + "*"
    opening, closing = secrets.token_hex(8), secrets.token_hex(8)  # no text can hold them, so none can forge a mark
    with database.read() as connection:
        rows = connection.exec_driver_sql(_SQLITE.replace("FILTER", condition), (opening, closing, quoted, *rest)).all()
    return [_hit(row, html.escape(row[4]).replace(opening, "<mark>").replace(closing, "</mark>")) for row in rows]


def _find_postgres(database: Database, pieces: Sequence[str], condition: str, rest: tuple[Any, ...]) -> list[Hit]:
    statement = database.sql(_POSTGRES.replace("FILTER", condition))
    wanted = [word for piece in pieces for word in words.words(piece)]
    if not wanted:
        return []
    with database.read() as connection:
        rows = connection.exec_driver_sql(statement, (words.query(pieces), *rest)).all()
    return [_hit(row, words.snippet(row[4], wanted)) for row in rows]


def _hit(row: Sequence[Any], snippet: str) -> Hit:
    source_id, head, tail, title, _, version, settled_at_ms, score = row
    return Hit(from_bytes(bytes(source_id)), ref_of(head, tail), title, snippet, version, from_ms(settled_at_ms), float(score))
