"""The sources: their settings, and their small facts of the day (`state`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Connection, Row, insert, select, update

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import from_bytes, to_bytes
from sourcebus.catalog.tables import sources
from sourcebus.catalog.vault import Vault
from sourcebus.clock import Clock
from sourcebus.errors import Conflict, InvalidInput, UnknownSource
from sourcebus.model import MAX_ID_BYTES, JsonObject, Mode, Quota, Source, from_ms

_IDS_PER_QUERY = 500

LIVE = sources.c.removed_at_ms.is_(None)


class SourceTable:
    """Reads and writes `Source`s. Secrets go through `vault`."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database, self._vault, self._clock = database, vault, clock

    def add(self, source: Source) -> Source:
        """`source` with its times, stored. Conflict where the id is taken."""
        now = self._clock.now_ms()
        row = self._row(source) | {"created_at_ms": now, "updated_at_ms": now, "state": "{}"}

        def work(connection: Connection) -> None:
            earlier = connection.execute(
                select(sources.c.fence_floor, sources.c.removed_at_ms).where(sources.c.id == row["id"])
            ).all()
            if any(found.removed_at_ms is None for found in earlier):
                raise Conflict(f"there is a source {source.id!r} already; change it, or remove it first")
            floor = max((found.fence_floor for found in earlier), default=-1)
            connection.execute(insert(sources).values(row | {"fence_floor": floor}))

        self._database.transact(work)
        return dataclasses.replace(source, created_at=from_ms(now), updated_at=from_ms(now))

    def get(self, source_id: str) -> Source:
        """The live source of this id, or UnknownSource."""
        with self._database.read() as connection:
            row = connection.execute(select(sources).where(sources.c.id == to_bytes(source_id), LIVE)).one_or_none()
        if row is None:
            raise UnknownSource(source_id)
        return self._source(row)

    def list(self, workspace: str | None, after: str | None, limit: int) -> list[Source]:
        """At most `limit` live sources ordered by id, those behind `after`."""
        query = select(sources).where(LIVE).order_by(sources.c.id).limit(limit)
        if workspace is not None:
            query = query.where(sources.c.workspace == to_bytes(workspace))
        if after is not None:
            query = query.where(sources.c.id > to_bytes(after))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [self._source(row) for row in rows]

    def update(self, source: Source) -> Source:
        """Every settable field of the stored source replaced. UnknownSource."""
        row = self._row(source) | {"updated_at_ms": self._clock.now_ms()}

        def work(connection: Connection) -> Row[Any] | None:
            query = update(sources).where(sources.c.id == row["id"], LIVE).values(row)
            if connection.execute(query).rowcount == 0:
                return None
            return connection.execute(select(sources).where(sources.c.id == row["id"], LIVE)).one()

        stored = self._database.transact(work)
        if stored is None:
            raise UnknownSource(source.id)
        return self._source(stored)

    def state(self, source_id: str) -> JsonObject:
        """The facts that `set_state` stored. UnknownSource."""
        with self._database.read() as connection:
            text = connection.execute(select(sources.c.state).where(sources.c.id == to_bytes(source_id), LIVE)).scalar()
        if text is None:
            raise UnknownSource(source_id)
        return json.loads(text)

    def states(self, source_ids: Sequence[str]) -> dict[str, JsonObject]:
        """The facts of each of these sources that is there."""
        found: dict[str, JsonObject] = {}
        with self._database.read() as connection:
            for start in range(0, len(source_ids), _IDS_PER_QUERY):
                part = [to_bytes(source_id) for source_id in source_ids[start : start + _IDS_PER_QUERY]]
                query = select(sources.c.id, sources.c.state).where(sources.c.id.in_(part), LIVE)
                found |= {from_bytes(row.id): json.loads(row.state) for row in connection.execute(query)}
        return found

    def set_state(self, source_id: str, values: JsonObject) -> None:
        """`values` merged into the facts in one transaction; None deletes a key. UnknownSource."""

        def work(connection: Connection) -> None:
            query = select(sources.c.no, sources.c.state).where(sources.c.id == to_bytes(source_id), LIVE).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                raise UnknownSource(source_id)
            merged = {key: value for key, value in (json.loads(row.state) | values).items() if value is not None}
            connection.execute(update(sources).where(sources.c.no == row.no).values(state=_dump(merged, "state")))

        self._database.transact(work)

    def _row(self, source: Source) -> dict[str, Any]:
        if not source.id or len(to_bytes(source.id)) > MAX_ID_BYTES:
            raise InvalidInput("id", f"must have 1 to {MAX_ID_BYTES} bytes")
        return {
            "id": to_bytes(source.id),
            "workspace": to_bytes(source.workspace),
            "connector": source.connector,
            "config": _dump(dict(source.config), "config"),
            "quota": _dump(dataclasses.asdict(source.quota), "quota") if source.quota else None,
            "window_ms": source.window_ms,
            "poll_interval_s": source.poll_interval_s,
            "reconcile_interval_s": source.reconcile_interval_s,
            "mode": source.mode.value,
            "paused": source.paused,
            "weight": source.weight,
            "secret": self._vault.lock(source.secret),
            "hook_token": self._vault.lock(source.hook_token, "hook_token"),
        }

    def _source(self, row: Row[Any]) -> Source:
        source_id = from_bytes(row.id)
        return Source(
            id=source_id,
            connector=row.connector,
            config=cast("JsonObject", json.loads(row.config)),
            workspace=from_bytes(row.workspace),
            quota=Quota(**json.loads(row.quota)) if row.quota else None,
            window_ms=row.window_ms,
            poll_interval_s=row.poll_interval_s,
            reconcile_interval_s=row.reconcile_interval_s,
            mode=Mode(row.mode),
            paused=row.paused,
            weight=row.weight,
            secret=self._vault.unlock(row.secret, source_id),
            hook_token=self._vault.unlock(row.hook_token, source_id),
            created_at=from_ms(row.created_at_ms),
            updated_at=from_ms(row.updated_at_ms),
        )


def number(connection: Connection, source_id: str, *, lock: bool = False) -> int:
    """The number of a live source, or UnknownSource. `lock` keeps it from being removed in this transaction."""
    query = select(sources.c.no).where(sources.c.id == to_bytes(source_id), LIVE)
    no = connection.execute(query.with_for_update(read=True) if lock else query).scalar()
    if no is None:
        raise UnknownSource(source_id)
    return no


def _dump(value: JsonObject, field: str) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(field, f"cannot be written as JSON ({error})") from None
