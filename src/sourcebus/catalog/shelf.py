"""The contents that came in deliveries, for sources that cannot be asked: the newest state of each object."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import from_bytes, to_bytes
from sourcebus.catalog.sources import number
from sourcebus.catalog.tables import shelf
from sourcebus.model import Parcel


class ShelfTable:
    """Reads and writes `Parcel`s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, source_id: str, parcels: Sequence[Parcel]) -> None:
        """Keep each, unless its object has a state of a higher order. All or none. UnknownSource."""

        def work(connection: Connection) -> None:
            no = number(connection, source_id, lock=True)
            for parcel in parcels:
                _replace(connection, no, parcel)

        self._database.transact(work)

    def get(self, source_id: str, ref: str) -> Parcel | None:
        """The newest state of an object; None if none ever came. UnknownSource."""
        with self._database.read() as connection:
            no = number(connection, source_id)
            row = connection.execute(select(shelf).where(shelf.c.source_no == no, shelf.c.ref_hash == _hash(ref))).one_or_none()
        if row is None:
            return None
        body = None if row.body is None else bytes(row.body)
        return Parcel(ref, row.version, body, row.title, row.media_type, row.order)

    def page(self, source_id: str, after: bytes, limit: int) -> list[tuple[bytes, str, str]]:
        """Key, reference and version of at most `limit` objects that are there, behind the key `after` (b"": all)."""
        query = (
            select(shelf.c.ref_hash, shelf.c.ref, shelf.c.version)
            .where(shelf.c.ref_hash > after, shelf.c.body.is_not(None))
            .order_by(shelf.c.ref_hash)
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(query.where(shelf.c.source_no == number(connection, source_id))).all()
        return [(bytes(row.ref_hash), from_bytes(bytes(row.ref)), row.version) for row in rows]


def _replace(connection: Connection, no: int, parcel: Parcel) -> None:
    key = _hash(parcel.object_ref)
    mine = (shelf.c.source_no == no, shelf.c.ref_hash == key)
    stored = connection.execute(select(shelf.c.order).where(*mine).with_for_update()).one_or_none()
    if stored is not None:
        if parcel.order is not None and stored.order is not None and parcel.order < stored.order:
            return
        connection.execute(delete(shelf).where(*mine))
    row = {
        "source_no": no,
        "ref_hash": key,
        "ref": to_bytes(parcel.object_ref),
        "version": parcel.version,
        "body": parcel.body,
        "title": parcel.title.replace("\0", ""),
        "media_type": parcel.media_type,
        "order": parcel.order,
    }
    connection.execute(insert(shelf).values(row))


def _hash(ref: str) -> bytes:
    return hashlib.sha256(to_bytes(ref)).digest()
