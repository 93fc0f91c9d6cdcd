"""Writing outcomes: versions, documents, their index and their stories, many in one transaction.

The outcomes are folded in memory over what the database holds of their objects, in order; then each table gets one
statement for the whole batch. So an object that occurs twice is written once, and a batch of any size costs the same few
statements beside the texts themselves.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection

from sourcebus.catalog import story, words
from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import RefKey, clean_text, ref_key, to_bytes
from sourcebus.catalog.tables import PARTS
from sourcebus.errors import InvalidInput
from sourcebus.model import Document, Outcome

_WHATS = {"indexed", "deleted", "unreadable", "unchanged", "note"}
_KEYS_PER_QUERY = 500


class _Place(NamedTuple):
    """Where an object is: its source's number and its reference. Sorts like the database's index."""

    source_no: int
    key: RefKey


class _Text(NamedTuple):
    """A document as its row, without the id."""

    part: str
    media_type: str
    metadata: str
    title: str
    text: str


@dataclass(slots=True)
class _Object:
    """An object as this transaction leaves it. `stored` documents are in the database, `fresh` ones replace them."""

    id: int | None = None
    state: str = "noted"
    version: str = ""
    fingerprint: str | None = None
    fence: int = 0
    settled_at_ms: int = 0
    stored: int = 0
    lines: str | None = None
    fresh: Sequence[_Text] | None = None

    @property
    def documents(self) -> int:
        return self.stored if self.fresh is None else len(self.fresh)


class _Entry(NamedTuple):
    """An outcome, with all that can be prepared before the transaction."""

    outcome: Outcome
    source_id: bytes
    key: RefKey
    line: str
    texts: Sequence[_Text]


def settle(database: Database, outcomes: Sequence[Outcome]) -> list[bool]:
    """Apply `outcomes` in one transaction; for each, whether it was applied.

    False: its fence is below the one stored for the object, its source is not (or no longer) known, or it belongs to a
    removed source of the same id. InvalidInput: an outcome that means nothing; then none was applied.
    """
    entries = [_prepared(number, outcome) for number, outcome in enumerate(outcomes)]
    if not entries:
        return []
    return database.transact(lambda connection: _Settlement(database, connection).run(entries))


def _prepared(number: int, outcome: Outcome) -> _Entry:
    if outcome.what not in _WHATS:
        raise InvalidInput(f"outcomes[{number}].what", f"is {outcome.what!r}", f"one of {', '.join(sorted(_WHATS))}")
    if outcome.what == "indexed" and outcome.version is None:
        raise InvalidInput(f"outcomes[{number}].version", "is missing", "an indexed object needs the version that was read")
    if len(outcome.documents) >= PARTS:
        raise InvalidInput(f"outcomes[{number}].documents", f"are {len(outcome.documents)}", f"fewer than {PARTS}")
    texts = [_text(document) for document in outcome.documents] if outcome.what == "indexed" else ()
    return _Entry(outcome, to_bytes(outcome.source_id), ref_key(outcome.object_ref), story.line_of(outcome), texts)


def _text(document: Document) -> _Text:
    metadata = json.dumps(dict(document.metadata), default=str) if document.metadata else "{}"
    return _Text(
        clean_text(document.part),
        clean_text(document.media_type),
        metadata,
        clean_text(document.title),
        clean_text(document.text),
    )


class _Settlement:
    """One transaction of `settle`."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database, self._connection = database, connection

    def run(self, entries: Sequence[_Entry]) -> list[bool]:
        sources = self._sources({entry.source_id for entry in entries})
        places = [_Place(sources[e.source_id][0], e.key) if e.source_id in sources else None for e in entries]
        objects = self._objects(sorted({place for place in places if place}))
        touched: dict[_Place, _Object] = {}
        applied: list[bool] = []
        for entry, place in zip(entries, places, strict=True):
            row = objects.setdefault(place, _Object()) if place else None
            done = row is not None and entry.outcome.fence > sources[entry.source_id][1] and _apply(entry, row)
            applied.append(done)
            if place and row and done:
                touched[place] = row
        if touched:
            self._write(touched)
        return applied

    def _sources(self, ids: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
        """Number and fence floor of the live ones among `ids`, kept from removal until the commit."""
        wanted = sorted(ids)
        rows = self._query(_SOURCES.replace("(?)", _marks(wanted)), wanted, "FOR SHARE")
        return {bytes(source_id): (no, floor) for source_id, no, floor in rows}

    def _objects(self, places: Sequence[_Place]) -> dict[_Place, _Object]:
        """What the database holds of `places`, locked until the commit; the unknown are absent."""
        found: dict[_Place, _Object] = {}
        for start in range(0, len(places), _KEYS_PER_QUERY):
            batch = places[start : start + _KEYS_PER_QUERY]
            parameters = [value for no, key in batch for value in (no, key.head, key.tail_hash)]
            statement = _OBJECTS.replace("(?)", ", ".join(["(?, ?, ?)"] * len(batch)))
            for no, head, tail, tail_hash, *known in self._query(statement, parameters, "FOR UPDATE OF o"):
                found[_Place(no, RefKey(bytes(head), bytes(tail), bytes(tail_hash)))] = _Object(*known)
        by_id = {row.id: row for row in found.values()}
        ids = list(by_id)
        for start in range(0, len(ids), _KEYS_PER_QUERY):
            batch = ids[start : start + _KEYS_PER_QUERY]
            for object_id, lines in self._query(_STORIES.replace("(?)", _marks(batch)), batch):
                by_id[object_id].lines = lines
        return found

    def _write(self, touched: dict[_Place, _Object]) -> None:
        new = [row for row in touched.values() if row.id is None]
        for row, object_id in zip(new, self._ids(len(new)), strict=True):
            row.id = object_id
        replaced = [(row.id or 0, row) for row in touched.values() if row.fresh is not None]
        self._many(
            _PUT_OBJECT,
            [
                (row.id, no, *key, row.state, row.version, row.fingerprint, row.fence, row.settled_at_ms, row.documents)
                for (no, key), row in touched.items()
            ],
        )
        gone = [(object_id * PARTS + position,) for object_id, row in replaced for position in range(row.stored)]
        remove_documents(self._database, self._connection, gone)
        fresh = [
            (object_id * PARTS + position, text) for object_id, row in replaced for position, text in enumerate(row.fresh or ())
        ]
        self._many(_ADD_DOCUMENT, [(document_id, *text) for document_id, text in fresh])
        self._index(fresh)
        self._many(_PUT_STORY, [(row.id, row.lines) for row in touched.values()])

    def _index(self, fresh: Sequence[tuple[int, _Text]]) -> None:
        if self._database.is_sqlite:
            rows = [(document_id, text.title, text.text) for document_id, text in fresh]
            self._many("INSERT INTO documents_fts(rowid, title, text) VALUES (?, ?, ?)", rows)
        else:
            rows = [(document_id, words.vector(text.title, text.text)) for document_id, text in fresh]
            self._many("INSERT INTO document_words(document_id, words) VALUES (?, CAST(? AS tsvector))", rows)

    def _ids(self, count: int) -> Iterable[int]:
        if not count:
            return ()
        if self._database.is_sqlite:  # nobody else writes until the commit
            return itertools.islice(itertools.count(self._query("SELECT coalesce(max(id), 0) + 1 FROM objects")[0][0]), count)
        statement = "SELECT nextval(pg_get_serial_sequence('objects', 'id')) FROM generate_series(1, ?)"
        return [row[0] for row in self._query(statement, [count])]

    def _query(self, statement: str, parameters: Sequence[Any] = (), lock: str = "") -> Sequence[Any]:
        """All rows. `lock` is what PostgreSQL adds; on SQLite the transaction is the only writer anyway."""
        text = statement if self._database.is_sqlite else f"{self._database.sql(statement)} {lock}"
        return self._connection.exec_driver_sql(text, tuple(parameters)).all()

    def _many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            self._connection.exec_driver_sql(self._database.sql(statement), rows)


_SOURCES = "SELECT id, no, fence_floor FROM sources WHERE removed_at_ms IS NULL AND id IN (?) ORDER BY no"

_STORIES = "SELECT object_id, lines FROM stories WHERE object_id IN (?)"

_OBJECTS = """
WITH k(source_no, ref, tail_hash) AS (VALUES (?))
SELECT o.source_no, o.ref, o.ref_tail, o.ref_tail_hash,
       o.id, o.state, o.version, o.fingerprint, o.fence, o.settled_at_ms, o.documents
FROM k JOIN objects o ON o.source_no = k.source_no AND o.ref = k.ref AND o.ref_tail_hash = k.tail_hash
ORDER BY o.id
"""

_PUT_OBJECT = """
INSERT INTO objects(id, source_no, ref, ref_tail, ref_tail_hash, state, version, fingerprint, fence, settled_at_ms, documents)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, version = excluded.version, fingerprint = excluded.fingerprint,
    fence = excluded.fence, settled_at_ms = excluded.settled_at_ms, documents = excluded.documents
"""

_ADD_DOCUMENT = "INSERT INTO documents(id, part, media_type, metadata, title, text) VALUES (?, ?, ?, ?, ?, ?)"

_PUT_STORY = """
INSERT INTO stories(object_id, lines) VALUES (?, ?) ON CONFLICT (object_id) DO UPDATE SET lines = excluded.lines
"""


def _apply(entry: _Entry, row: _Object) -> bool:
    """Let `entry` change `row`, unless a newer lease has been there."""
    outcome = entry.outcome
    if outcome.fence < row.fence:
        return False
    row.lines = story.append(row.lines, entry.line)
    if outcome.what == "note":
        if row.state == "noted":
            row.settled_at_ms = outcome.at_ms  # so that a story still being told is not pruned
        return True
    row.fence = outcome.fence
    if outcome.what == "unchanged":
        # Of what is not there nothing can be unchanged: without a fingerprint the next scan looks at it again.
        if row.state in ("indexed", "unreadable"):
            row.fingerprint = outcome.fingerprint or row.fingerprint
        return True
    row.state = outcome.what
    row.version = clean_text(outcome.version or "")
    row.fingerprint = None if outcome.fingerprint is None or outcome.what == "deleted" else clean_text(outcome.fingerprint)
    row.settled_at_ms = outcome.at_ms
    row.fresh = entry.texts
    return True


def remove_documents(database: Database, connection: Connection, ids: list[tuple[int]]) -> None:
    """Delete documents and their index entries by id, in the caller's transaction."""
    if not ids:
        return
    # The index of SQLite reads the old text from `documents` to know what to forget, so it goes first.
    forget = (
        "DELETE FROM documents_fts WHERE rowid = ?"
        if database.is_sqlite
        else "DELETE FROM document_words WHERE document_id = ?"
    )
    for statement in (forget, "DELETE FROM documents WHERE id = ?"):
        connection.exec_driver_sql(database.sql(statement), list[Any](ids))


def _marks(values: Sequence[object]) -> str:
    return f"({', '.join('?' * len(values))})"
