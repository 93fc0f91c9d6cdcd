"""The contents that came in deliveries, for sources that cannot be asked: the newest state of each object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, delete, insert, select

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import from_bytes, to_bytes
from sourcebus.catalog.sources import number
from sourcebus.catalog.tables import contents
from sourcebus.model import Content

_PAGE = 1_000


class SourceDepot:
    """One source's contents. Every method may raise UnknownSource and CatalogUnavailable, `put` also StorageFull."""

    def __init__(self, database: Database, source_id: str) -> None:
        self._database, self._source_id = database, source_id

    def put(self, states: Sequence[Content]) -> None:
        """Keep each, unless its object has a state of a higher order. All or none."""

        def work(connection: Connection) -> None:
            no = number(connection, self._source_id, lock=True)
            for state in states:
                _replace(connection, no, state)

        self._database.transact(work)

    def get(self, ref: str) -> Content | None:
        """The newest state of an object; None if none ever came."""
        with self._database.read() as connection:
            no = number(connection, self._source_id)
            query = select(contents).where(contents.c.source_no == no, contents.c.ref_hash == _hash(ref))
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        body = None if row.body is None else bytes(row.body)
        return Content(ref, row.version, body, row.title, row.media_type, row.sequence)

    def refs(self) -> Iterator[tuple[str, str]]:
        """Reference and version of every object that is there, read in pages."""
        after = b""
        while page := self._page(after):
            for key, ref, version in page:
                yield ref, version
                after = key

    def _page(self, after: bytes) -> list[tuple[bytes, str, str]]:
        query = (
            select(contents.c.ref_hash, contents.c.ref, contents.c.version)
            .where(contents.c.ref_hash > after, contents.c.body.is_not(None))
            .order_by(contents.c.ref_hash)
            .limit(_PAGE)
        )
        with self._database.read() as connection:
            rows = connection.execute(query.where(contents.c.source_no == number(connection, self._source_id))).all()
        return [(bytes(row.ref_hash), from_bytes(bytes(row.ref)), row.version) for row in rows]


def _replace(connection: Connection, no: int, state: Content) -> None:
    key = _hash(state.object_ref)
    mine = (contents.c.source_no == no, contents.c.ref_hash == key)
    stored = connection.execute(select(contents.c.sequence).where(*mine).with_for_update()).one_or_none()
    if stored is not None:
        if state.order is not None and stored.sequence is not None and state.order < stored.sequence:
            return
        connection.execute(delete(contents).where(*mine))
    row = {
        "source_no": no,
        "ref_hash": key,
        "ref": to_bytes(state.object_ref),
        "version": state.version,
        "body": state.body,
        "title": state.title.replace("\0", ""),
        "media_type": state.media_type,
        "sequence": state.order,
    }
    connection.execute(insert(contents).values(row))


def _hash(ref: str) -> bytes:
    return hashlib.sha256(to_bytes(ref)).digest()
