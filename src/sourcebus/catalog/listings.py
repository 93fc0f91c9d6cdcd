"""Where each scope's listing goes on, what a complete one that was cut has seen so far, and the deletes that are held.

A scope has one cursor, from which its next delta is asked, and beside it at most one *pass*: a complete listing that was cut
and goes on from a cursor of its own. What the pass has seen is kept by hash, so that its end can tell what is absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import to_bytes
from sourcebus.catalog.sources import LIVE, number
from sourcebus.catalog.tables import cursors, listings, sightings, sources
from sourcebus.errors import UnknownSource
from sourcebus.model import WHOLE_SOURCE, Listing, Pass, Signal

_HASH_BYTES = 16
_KEYS_PER_QUERY = 500
_CHUNK = 5_000

_SIGHT = "INSERT INTO sightings(listing_no, ref_hash) VALUES (?, ?) ON CONFLICT DO NOTHING"


class ListingTable:
    """Reads and writes `Listing`s. What was read before `forget` writes nothing any more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, source_id: str, scope: str) -> Listing:
        """How the listing of a scope stands. UnknownSource."""
        with self._database.read() as connection:
            source = connection.execute(_source(source_id)).one_or_none()
            if source is None:
                raise UnknownSource(source_id)
            where = (cursors.c.source_no == source.no, cursors.c.scope_hash == scope_hash(scope))
            cursor = connection.execute(select(cursors.c.value, cursors.c.version).where(*where)).one_or_none()
            row = connection.execute(_listing(source.no, scope, "pass")).one_or_none()
        return Listing(
            source_id,
            scope,
            (source.no, source.listing_epoch),
            None if cursor is None else json.loads(cursor.value),
            1 if cursor is None else cursor.version,
            None if row is None else _pass(row),
        )

    def keep_cursor(self, listing: Listing, value: str | None, version: int) -> bool:
        """Store from where the next delta of the scope is asked; None forgets it. False: superseded, nothing was stored."""

        def work(connection: Connection) -> bool:
            no = self._current(connection, listing)
            if no is not None:
                self._put_cursor(connection, no, listing.scope, value, version)
            return no is not None

        return self._database.transact(work)

    def keep_pass(self, listing: Listing, under_way: Pass, seen: Iterable[str]) -> Pass | None:
        """Store how far a complete listing has come, and what it saw since it was stored last. None: superseded."""
        values = {
            "cursor": json.dumps(under_way.cursor),
            "version": under_way.version,
            "signal": under_way.signal.value,
            "began_at_ms": under_way.began_at_ms,
            "caught_up_at_ms": under_way.caught_up_at_ms,
            "counts": json.dumps(under_way.counts),
        }

        def work(connection: Connection) -> Pass | None:
            no = self._current(connection, listing)
            if no is None:
                return None
            kept = self._put_listing(connection, no, listing.scope, "pass", values)
            self._sight(connection, kept, seen)
            return replace(under_way, no=kept)

        return self._database.transact(work)

    def end_pass(self, listing: Listing, cursor: str | None, version: int) -> bool:
        """A complete listing has ended: its cursor is the scope's, what it has seen is forgotten. False: superseded."""

        def work(connection: Connection) -> int | None:
            no = self._current(connection, listing)
            if no is None:
                return None
            self._put_cursor(connection, no, listing.scope, cursor, version)
            return self._drop(connection, no, listing.scope, "pass")

        dropped = self._database.transact(work)
        self._purge(dropped)
        return dropped is not None

    def drop_pass(self, listing: Listing) -> None:
        """The complete listing cannot go on: its cursor has expired. The next begins anew."""

        def work(connection: Connection) -> int:
            no = self._current(connection, listing)
            return 0 if no is None else self._drop(connection, no, listing.scope, "pass")

        self._purge(self._database.transact(work))

    def forget(self, source_id: str) -> None:
        """No cursor of the source is good any more: every scope is listed as a whole when it is listed next. UnknownSource."""

        def work(connection: Connection) -> list[int]:
            no = number(connection, source_id)
            connection.execute(update(sources).where(sources.c.no == no).values(listing_epoch=sources.c.listing_epoch + 1))
            connection.execute(delete(cursors).where(cursors.c.source_no == no))
            return self._drop_all(connection, source_id, "pass")

        for no in self._database.transact(work):
            self._purge(no)

    def unsighted(self, no: int, refs: Sequence[str]) -> list[str]:
        """Those of `refs` that the listing of this number has not seen."""
        by_hash = {ref_hash(ref): ref for ref in refs}
        hashes = list(by_hash)
        with self._database.read() as connection:
            for start in range(0, len(hashes), _KEYS_PER_QUERY):
                part = hashes[start : start + _KEYS_PER_QUERY]
                found = select(sightings.c.ref_hash).where(sightings.c.listing_no == no, sightings.c.ref_hash.in_(part))
                for seen in connection.execute(found).scalars():
                    by_hash.pop(bytes(seen), None)
        return list(by_hash.values())

    # --- deletes that wait for a person -----------------------------------------------------------------------------

    def hold(self, source_id: str, scope: str, refs: Sequence[str], *, more: bool = False) -> None:
        """Remember the objects whose delete is held, in place of those that were held before, or besides. UnknownSource."""

        def work(connection: Connection) -> int:
            no = number(connection, source_id, lock=True)
            before = 0 if more else self._drop(connection, no, scope, "held")
            held = self._put_listing(connection, no, scope, "held", _NO_PASS)
            self._sight(connection, held, refs)
            return before

        self._purge(self._database.transact(work))

    def let_go(self, source_id: str) -> None:
        """Nothing of the source is held any more. UnknownSource."""
        for no in self._database.transact(lambda connection: self._drop_all(connection, source_id, "held")):
            self._purge(no)

    def keep_held(self, source_id: str) -> int:
        """What is held is kept for good: no listing without it counts as its delete. How many objects. UnknownSource."""

        def work(connection: Connection) -> tuple[int, list[int]]:
            no = number(connection, source_id, lock=True)
            count, gone = 0, list[int]()
            query = select(listings).where(listings.c.source_no == no, listings.c.purpose == "held")
            for held in connection.execute(query).all():
                kept = self._put_listing(connection, no, WHOLE_SOURCE, "kept", _NO_PASS)
                of_held = select(literal(kept), sightings.c.ref_hash).where(sightings.c.listing_no == held.no)
                count += connection.execute(select(func.count()).where(sightings.c.listing_no == held.no)).scalar_one()
                insert_or = sqlite.insert if self._database.is_sqlite else postgresql.insert
                into = insert_or(sightings).from_select(["listing_no", "ref_hash"], of_held)
                connection.execute(into.on_conflict_do_nothing())
                connection.execute(delete(listings).where(listings.c.no == held.no))
                gone.append(held.no)
            return count, gone

        count, gone = self._database.transact(work)
        for no in gone:
            self._purge(no)
        return count

    def kept(self, source_id: str) -> int | None:
        """The number of the listing of objects that a person wants kept, None where there is none. UnknownSource."""
        with self._database.read() as connection:
            row = connection.execute(_listing(number(connection, source_id), WHOLE_SOURCE, "kept")).one_or_none()
        return None if row is None else row.no

    def sighted_again(self, kept: int, refs: Sequence[str]) -> None:
        """The source lists these again, so they are nothing special any more."""
        hashes = [ref_hash(ref) for ref in refs]

        def work(connection: Connection) -> None:
            for start in range(0, len(hashes), _KEYS_PER_QUERY):
                part = hashes[start : start + _KEYS_PER_QUERY]
                connection.execute(delete(sightings).where(sightings.c.listing_no == kept, sightings.c.ref_hash.in_(part)))

        self._database.transact(work)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _current(self, connection: Connection, listing: Listing) -> int | None:
        """The source's number, kept from removal; None where its listings were forgotten meanwhile. UnknownSource."""
        row = connection.execute(_source(listing.source_id).with_for_update()).one_or_none()
        if row is None:
            raise UnknownSource(listing.source_id)
        return row.no if (row.no, row.listing_epoch) == listing.epoch else None

    def _put_cursor(self, connection: Connection, no: int, scope: str, value: str | None, version: int) -> None:
        key = scope_hash(scope)
        if value is None:
            connection.execute(delete(cursors).where(cursors.c.source_no == no, cursors.c.scope_hash == key))
            return
        insert_or = sqlite.insert if self._database.is_sqlite else postgresql.insert
        fresh = {"value": json.dumps(value), "version": version}
        query = insert_or(cursors).values(source_no=no, scope_hash=key, scope=to_bytes(scope), **fresh)
        connection.execute(query.on_conflict_do_update(index_elements=["source_no", "scope_hash"], set_=fresh))

    @staticmethod
    def _put_listing(connection: Connection, source_no: int, scope: str, purpose: str, values: dict[str, Any]) -> int:
        key = scope_hash(scope)
        found = connection.execute(_listing(source_no, scope, purpose)).one_or_none()
        if found is None:
            query = insert(listings).values(source_no=source_no, scope_hash=key, purpose=purpose, **values)
            return connection.execute(query.returning(listings.c.no)).scalar_one()
        connection.execute(update(listings).where(listings.c.no == found.no).values(values))
        return found.no

    @staticmethod
    def _drop(connection: Connection, source_no: int, scope: str, purpose: str) -> int:
        """The number of the listing that was dropped, 0 where there was none."""
        found = connection.execute(_listing(source_no, scope, purpose)).one_or_none()
        if found is None:
            return 0
        connection.execute(delete(listings).where(listings.c.no == found.no))
        return found.no

    @staticmethod
    def _drop_all(connection: Connection, source_id: str, purpose: str) -> list[int]:
        no = number(connection, source_id)
        gone = select(listings.c.no).where(listings.c.source_no == no, listings.c.purpose == purpose)
        found = list(connection.execute(gone).scalars())
        connection.execute(delete(listings).where(listings.c.no.in_(found)))
        return found

    def _sight(self, connection: Connection, listing_no: int, refs: Iterable[str]) -> None:
        rows: list[Any] = [(listing_no, ref_hash(ref)) for ref in refs]
        if rows:
            connection.exec_driver_sql(self._database.sql(_SIGHT), rows)

    def _purge(self, listing_no: int | None) -> None:
        """Forget what a listing that is gone has seen."""
        while listing_no and self._database.transact(lambda connection: _purge_some(connection, listing_no)):
            pass


def purge_orphans(connection: Connection) -> int:
    """Forget some of what listings have seen that are gone (a crash came between); how many sightings."""
    orphan = select(sightings.c.listing_no).where(sightings.c.listing_no.not_in(select(listings.c.no))).limit(1)
    no = connection.execute(orphan).scalar()
    return 0 if no is None else _purge_some(connection, no)


def purge_listings(connection: Connection, source_no: int) -> None:
    """Forget every listing of a source that is being removed; what they have seen follows by `purge_orphans`."""
    connection.execute(delete(listings).where(listings.c.source_no == source_no))


def scope_hash(scope: str) -> bytes:
    return hashlib.sha256(to_bytes(scope)).digest()


def ref_hash(ref: str) -> bytes:
    """128 bits of SHA-256: two references of one listing meet with a chance of 1 in 10^26 at a million objects."""
    return hashlib.sha256(to_bytes(ref)).digest()[:_HASH_BYTES]


def _purge_some(connection: Connection, listing_no: int) -> int:
    some = select(sightings.c.ref_hash).where(sightings.c.listing_no == listing_no).limit(_CHUNK)
    return connection.execute(
        delete(sightings).where(sightings.c.listing_no == listing_no, sightings.c.ref_hash.in_(some))
    ).rowcount


def _source(source_id: str) -> Any:
    return select(sources.c.no, sources.c.listing_epoch).where(sources.c.id == to_bytes(source_id), LIVE)


def _listing(source_no: int, scope: str, purpose: str) -> Any:
    return select(listings).where(
        listings.c.source_no == source_no, listings.c.scope_hash == scope_hash(scope), listings.c.purpose == purpose
    )


def _pass(row: Row[Any]) -> Pass:
    return Pass(
        no=row.no,
        cursor=json.loads(row.cursor),
        version=row.version,
        signal=Signal(row.signal),
        began_at_ms=row.began_at_ms,
        caught_up_at_ms=row.caught_up_at_ms,
        counts=json.loads(row.counts),
    )


_NO_PASS: dict[str, Any] = {
    "cursor": "null",
    "version": 0,
    "signal": Signal.RECONCILE.value,
    "began_at_ms": 0,
    "caught_up_at_ms": 0,
    "counts": "{}",
}
