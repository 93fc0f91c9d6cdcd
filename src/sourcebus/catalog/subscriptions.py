"""The subscriptions of each source: what its provider has promised to send, and until when."""

from __future__ import annotations

import hashlib
import json
from typing import cast

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import from_bytes, to_bytes
from sourcebus.catalog.sources import number
from sourcebus.catalog.tables import subscriptions
from sourcebus.catalog.vault import Vault
from sourcebus.clock import Clock
from sourcebus.model import JsonObject, Subscription


class SubscriptionTable:
    """Reads and writes `Subscription`s. Secrets go through `vault`."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database, self._vault, self._clock = database, vault, clock

    def list(self, source_id: str) -> list[Subscription]:
        with self._database.read() as connection:
            no = number(connection, source_id)
            newest = subscriptions.c.created_at_ms.desc(), subscriptions.c.id
            rows = connection.execute(select(subscriptions).where(subscriptions.c.source_no == no).order_by(*newest)).all()
        return [
            Subscription(
                from_bytes(row.id),
                row.expires_at_ms,
                self._vault.unlock(row.secret, source_id),
                cast("JsonObject", json.loads(row.state)),
            )
            for row in rows
        ]

    def keep(self, source_id: str, subscription: Subscription) -> None:
        insert_or = sqlite.insert if self._database.is_sqlite else postgresql.insert
        changing = {
            "expires_at_ms": subscription.expires_at_ms,
            "secret": self._vault.lock(subscription.secret),
            "state": json.dumps(dict(subscription.state)),
        }

        def work(connection: Connection) -> None:
            row = {
                "source_no": number(connection, source_id, lock=True),
                "id_hash": hashlib.sha256(to_bytes(subscription.id)).digest(),
                "id": to_bytes(subscription.id),
                "created_at_ms": self._clock.now_ms(),
            }
            query = insert_or(subscriptions).values(row | changing)
            connection.execute(query.on_conflict_do_update(index_elements=["source_no", "id_hash"], set_=changing))

        self._database.transact(work)

    def drop(self, source_id: str, subscription_id: str) -> None:
        id_hash = hashlib.sha256(to_bytes(subscription_id)).digest()

        def work(connection: Connection) -> None:
            no = number(connection, source_id)
            connection.execute(delete(subscriptions).where(subscriptions.c.source_no == no, subscriptions.c.id_hash == id_hash))

        self._database.transact(work)
