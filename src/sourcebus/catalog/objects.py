"""What is known of objects: versions, listings, counts, stories. Reading only; `settle` writes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, func, or_, select

from sourcebus.catalog import story
from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import HEAD_BYTES, after_prefix, from_bytes, ref_key, ref_of, to_bytes
from sourcebus.catalog.sources import number
from sourcebus.catalog.tables import objects, sources, stories
from sourcebus.model import StoryLine, Version

LIVE_STATES = ("indexed", "unreadable")
_KEYS_PER_QUERY = 500


class ObjectTable:
    """Answers about the objects of live sources."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def versions(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Version]:
        """The version of each (source id, reference) that was ever settled, tombstones included; others are absent."""
        found: dict[tuple[str, str], Version] = {}
        unique = list(dict.fromkeys(keys))
        with self._database.read() as connection:
            for start in range(0, len(unique), _KEYS_PER_QUERY):
                batch = unique[start : start + _KEYS_PER_QUERY]
                parameters: list[bytes] = []
                for source_id, ref in batch:
                    key = ref_key(ref)
                    parameters += (to_bytes(source_id), key.head, key.tail_hash)
                statement = self._database.sql(_VERSIONS.replace("(?)", ", ".join(["(?, ?, ?)"] * len(batch))))
                for row in connection.exec_driver_sql(statement, tuple(parameters)):
                    source, head, tail, *version = row
                    found[from_bytes(bytes(source)), ref_of(head, tail)] = Version(*version)
        return found

    def list(self, source_id: str, prefix: str, after: str | None, limit: int) -> list[tuple[str, Version]]:
        """At most `limit` live objects whose reference starts with `prefix` and sorts behind `after`, in order."""
        o = objects.c
        query = (
            select(o.ref, o.ref_tail, o.version, o.fingerprint, o.fence, o.settled_at_ms, o.state)
            .where(o.state.in_(LIVE_STATES), *_starts_with(prefix), *([] if after is None else _behind(after)))
            .order_by(o.ref, o.ref_tail)
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(query.where(o.source_no == number(connection, source_id))).all()
        return [(ref_of(row.ref, row.ref_tail), Version(*row[2:])) for row in rows]

    def counts(self, source_ids: Sequence[str] | None) -> dict[str, dict[str, int]]:
        """For each live source (of those asked for): objects indexed, unreadable and deleted, and documents."""
        o = objects.c
        live = sources.c.removed_at_ms.is_(None)
        if source_ids is not None:
            live &= sources.c.id.in_([to_bytes(source_id) for source_id in source_ids])
        query = (
            select(sources.c.id, o.state, func.count(o.source_no), func.coalesce(func.sum(o.documents), 0))
            .select_from(sources.outerjoin(objects, o.source_no == sources.c.no))
            .where(live)
            .group_by(sources.c.id, o.state)
        )
        answer: dict[str, dict[str, int]] = {}
        with self._database.read() as connection:
            for source_id, state, count, documents in connection.execute(query):
                of_source = answer.setdefault(
                    from_bytes(bytes(source_id)), {"indexed": 0, "unreadable": 0, "deleted": 0, "documents": 0}
                )
                of_source["documents"] += int(documents)
                if state in of_source:
                    of_source[state] = count
        return answer

    def story(self, source_id: str, ref: str, limit: int) -> list[StoryLine]:
        """The newest `limit` lines of an object's story, newest first; [] for one never heard of. UnknownSource."""
        key = ref_key(ref)
        with self._database.read() as connection:
            query = (
                select(stories.c.lines)
                .join(objects, objects.c.id == stories.c.object_id)
                .where(
                    objects.c.source_no == number(connection, source_id),
                    objects.c.ref == key.head,
                    objects.c.ref_tail_hash == key.tail_hash,
                )
            )
            text = connection.execute(query).scalar()
        return list(story.read(text))[:limit] if text else []


_VERSIONS = """
WITH k(source_id, ref, tail_hash) AS (VALUES (?))
SELECT k.source_id, o.ref, o.ref_tail, o.version, o.fingerprint, o.fence, o.settled_at_ms, o.state
FROM k
JOIN sources s ON s.id = k.source_id AND s.removed_at_ms IS NULL
JOIN objects o ON o.source_no = s.no AND o.ref = k.ref AND o.ref_tail_hash = k.tail_hash
WHERE o.state <> 'noted'
"""


def _starts_with(prefix: str) -> list[ColumnElement[bool]]:
    """Conditions for `prefix`, taken literally, on the two columns of a reference."""
    data = to_bytes(prefix)
    if len(data) > HEAD_BYTES:
        return [objects.c.ref == data[:HEAD_BYTES], *_between(objects.c.ref_tail, data[HEAD_BYTES:])]
    return _between(objects.c.ref, data) if data else []


def _between(column: ColumnElement[bytes], prefix: bytes) -> list[ColumnElement[bool]]:
    end = after_prefix(prefix)
    return [column >= prefix] if end is None else [column >= prefix, column < end]


def _behind(after: str) -> list[ColumnElement[bool]]:
    head, tail, _ = ref_key(after)
    o = objects.c
    return [o.ref >= head, or_(o.ref > head, and_(o.ref == head, o.ref_tail > tail))]
