"""The deliveries log: the last requests that came to each source's hook. Pruned as it is written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import from_bytes, to_bytes
from sourcebus.catalog.sources import number
from sourcebus.catalog.tables import deliveries, sources
from sourcebus.catalog.vault import Vault
from sourcebus.model import Delivery, DeliveryLine, JsonObject

_LIVE: Final = sources.c.removed_at_ms.is_(None)
_SHOWN: Final = ("at_ms", "method", "result", "headers", "query", "body_bytes", "duration_ms", "detail")


class DeliveryTable:
    """Reads and writes `DeliveryLine`s. The requests themselves go through `vault`; without a key they are not kept."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    def add(self, lines: Sequence[tuple[DeliveryLine, bool]], *, keep: int, keep_refused: int) -> None:
        """Store lines, each with whether it was refused, in one transaction; of each source and kind only the newest stay.

        Lines of sources that are not there any more are left out.
        """
        rows = [(to_bytes(line.source_id), refused, _dump(line), self._sealed(line)) for line, refused in lines]

        def work(connection: Connection) -> None:
            ids = {row[0] for row in rows}
            found = connection.execute(select(sources.c.id, sources.c.no).where(sources.c.id.in_(ids), _LIVE))
            numbers = {bytes(source_id): no for source_id, no in found}
            values: list[dict[str, Any]] = [
                {"source_no": numbers[source_id], "refused": refused, "line": line, "sealed": sealed}
                for source_id, refused, line, sealed in rows
                if source_id in numbers
            ]
            if values:
                connection.execute(insert(deliveries), values)
            for no, refused in {(value["source_no"], value["refused"]) for value in values}:
                _prune(connection, no, refused, keep_refused if refused else keep)

        self._database.transact(work)

    def list(self, source_id: str, after: int | None, limit: int) -> list[DeliveryLine]:
        """At most `limit` lines of a source, newest first, older than the line `after`; without the requests. UnknownSource."""
        with self._database.read() as connection:
            no = number(connection, source_id)
            columns = deliveries.c.id, deliveries.c.line
            query = select(*columns).where(deliveries.c.source_no == no).order_by(deliveries.c.id.desc()).limit(limit)
            if after is not None:
                query = query.where(deliveries.c.id < after)
            rows = connection.execute(query).all()
        return [_line(source_id, row.id, row.line, None) for row in rows]

    def get(self, line_id: int) -> DeliveryLine | None:
        """One line with its request, None where there is none (any more)."""
        columns = sources.c.id.label("source_id"), deliveries.c.id, deliveries.c.line, deliveries.c.sealed
        query = select(*columns).join(sources, sources.c.no == deliveries.c.source_no).where(deliveries.c.id == line_id, _LIVE)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return _line(from_bytes(row.source_id), row.id, row.line, self._vault.unseal(row.sealed))

    def _sealed(self, line: DeliveryLine) -> bytes | None:
        if line.delivery is None:
            return None
        one = line.delivery
        head = {"headers": dict(one.headers), "query": dict(one.query), "received_at_ms": one.received_at_ms, "url": one.url}
        return self._vault.seal(zlib.compress(json.dumps(head).encode() + b"\n" + one.body, 1))


def _prune(connection: Connection, no: int, refused: bool, keep: int) -> None:
    of_kind = deliveries.c.source_no == no, deliveries.c.refused == refused
    newest = select(deliveries.c.id).where(*of_kind).order_by(deliveries.c.id.desc())
    first_gone = connection.execute(newest.offset(keep).limit(1)).scalar()
    if first_gone is not None:
        connection.execute(delete(deliveries).where(*of_kind, deliveries.c.id <= first_gone))


def _dump(line: DeliveryLine) -> str:
    return json.dumps({name: getattr(line, name) for name in _SHOWN}, default=dict)


def _line(source_id: str, line_id: int, line: str, sealed: bytes | None) -> DeliveryLine:
    shown: JsonObject = json.loads(line)
    delivery = None
    if sealed is not None:
        head, _, body = zlib.decompress(sealed).partition(b"\n")
        delivery = Delivery(method=shown["method"], body=body, **json.loads(head))
    return DeliveryLine(source_id=source_id, id=line_id, delivery=delivery, **shown)
