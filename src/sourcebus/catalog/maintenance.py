"""Housekeeping: removing sources, forgetting old tombstones, keeping SQLite's files in shape. All in small slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, and_, delete, func, or_, select, text, update

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import to_bytes
from sourcebus.catalog.listings import purge_listings, purge_orphans
from sourcebus.catalog.objects import LIVE_STATES
from sourcebus.catalog.settle import remove_documents
from sourcebus.catalog.tables import PARTS, contents, cursors, deliveries, objects, sources, stories, subscriptions, upkeeps
from sourcebus.clock import Clock
from sourcebus.errors import UnknownSource

_DAY_MS = 86_400_000
TOMBSTONE_MS = 7 * _DAY_MS
"""How long a tombstone outlives its object; no lease lives that long."""

_NOTED_MS = 30 * _DAY_MS  # the story of something that was never settled: an object that always failed
_PERISHABLE = text("state IN ('deleted', 'noted')")  # word by word the condition of the index
_CHUNK = 200
_SLICES = 20
_MERGE_PAGES = 500
_LONG_LOG_BYTES = 16 << 20


class Maintenance:
    """Work that nobody waits for, except `remove_source`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def remove_source(self, source_id: str) -> int:
        """Remove a source with all that is known of it; how many live objects that were. UnknownSource.

        The source is gone at once; a crash while its rows are being deleted leaves the rest to `run`.
        """

        def work(connection: Connection) -> tuple[int, int]:
            query = select(sources.c.no, sources.c.fence_floor).where(
                sources.c.id == to_bytes(source_id), sources.c.removed_at_ms.is_(None)
            )
            source = connection.execute(query.with_for_update()).one_or_none()
            if source is None:
                raise UnknownSource(source_id)
            live = func.count().filter(objects.c.state.in_(LIVE_STATES))
            count, fence = connection.execute(
                select(live, func.max(objects.c.fence)).where(objects.c.source_no == source.no)
            ).one()
            floor = source.fence_floor if fence is None else max(fence, source.fence_floor)
            emptied = {"secret": None, "hook_token": None, "config": "{}", "state": "{}"}
            removed = emptied | {"removed_at_ms": self._clock.now_ms(), "fence_floor": floor}
            connection.execute(update(sources).where(sources.c.no == source.no).values(removed))
            return source.no, count

        no, count = self._database.transact(work)
        while self._purge(no):
            pass
        while self._database.transact(purge_orphans):
            pass
        return count

    def run(self) -> None:
        """One slice of everything that is due; meant to be called about once a minute."""
        self._finish_removals()
        self._forget()
        for _ in range(_SLICES):
            if not self._database.transact(purge_orphans):
                break
        if self._database.is_sqlite:
            self._database.transact(_merge)
            self._checkpoint()

    def _purge(self, no: int) -> int:
        """Delete the rows of one chunk of a removed source's objects; how many those were. 0: nothing is left."""

        def work(connection: Connection) -> int:
            for table in (cursors, subscriptions, upkeeps, deliveries, contents):
                connection.execute(delete(table).where(table.c.source_no == no))
            purge_listings(connection, no)
            query = select(objects.c.id, objects.c.documents).where(objects.c.source_no == no).limit(_CHUNK)
            return self._delete(connection, [tuple(row) for row in connection.execute(query)])

        return self._database.transact(work)

    def _finish_removals(self) -> None:
        with self._database.read() as connection:
            query = select(sources.c.no, sources.c.removed_at_ms).where(sources.c.removed_at_ms.is_not(None))
            removed = connection.execute(query).all()
        for no, removed_at_ms in removed:
            empty = any(not self._purge(no) for _ in range(_SLICES))
            if empty and removed_at_ms < self._clock.now_ms() - TOMBSTONE_MS:
                self._database.transact(lambda connection, no=no: connection.execute(delete(sources).where(sources.c.no == no)))

    def _forget(self) -> None:
        """Delete old tombstones, and the stories of what was never settled and is not heard of any more."""
        now = self._clock.now_ms()
        old = or_(
            and_(objects.c.state == "deleted", objects.c.settled_at_ms < now - TOMBSTONE_MS),
            objects.c.settled_at_ms < now - _NOTED_MS,
        )
        query = select(objects.c.id, objects.c.documents).where(_PERISHABLE, old).limit(_CHUNK)
        locked = query.with_for_update(skip_locked=True)

        def work(connection: Connection) -> int:
            return self._delete(connection, [tuple(row) for row in connection.execute(locked)])

        for _ in range(_SLICES):
            if self._database.transact(work) < _CHUNK:
                break

    def _delete(self, connection: Connection, found: Sequence[tuple[int, int]]) -> int:
        ids = [object_id for object_id, _ in found]
        texts = [(object_id * PARTS + position,) for object_id, documents in found for position in range(documents)]
        remove_documents(self._database, connection, texts)
        connection.execute(delete(stories).where(stories.c.object_id.in_(ids)))
        connection.execute(delete(objects).where(objects.c.id.in_(ids)))
        return len(ids)

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the database; shorten the file where it has grown long."""
        file = self._database.file
        log = Path(f"{file}-wal")
        long = log.exists() and log.stat().st_size > _LONG_LOG_BYTES
        self._database.outside_transaction(f"PRAGMA wal_checkpoint({'TRUNCATE' if long else 'PASSIVE'})")


def _merge(connection: Connection) -> None:
    """A slice of the index merge that `settle` left for later: fewer segments, faster searches."""
    connection.exec_driver_sql("INSERT INTO documents_fts(documents_fts, rank) VALUES ('merge', ?)", (_MERGE_PAGES,))
