"""Subscriptions: what providers have promised to send, until when, and when each is to be looked after next.

A source that is to be subscribed has one row of upkeep; its subscriptions come and go. Secrets go through the vault.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sourcebus.catalog.engine import Database
from sourcebus.catalog.keys import from_bytes, to_bytes
from sourcebus.catalog.sources import LIVE, number
from sourcebus.catalog.tables import sources, subscriptions, upkeeps
from sourcebus.catalog.vault import Vault
from sourcebus.clock import Clock
from sourcebus.freshness import renew_at_ms
from sourcebus.model import Subscription

_HANDED_OUT_MS = 300_000
"""An upkeep that is due is handed out once, and again after this long if nobody says what became of it."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A stored subscription: made for `hook_url`, to be renewed at `renew_at_ms` (None: never)."""

    subscription: Subscription
    hook_url: str
    made_at_ms: int
    renew_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How the looking after a source's subscription goes: next at `due_at_ms`; `failures` in a row, the newest with `error`."""

    source_id: str
    due_at_ms: int
    failures: int
    error: str | None


class SubscriptionTable:
    """Reads and writes subscriptions and their upkeep. Methods that name a source raise UnknownSource."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database, self._vault, self._clock = database, vault, clock

    def living(self, source_id: str) -> list[Subscribed]:
        """Those that have not ended, newest first."""
        return [one for one in self.all(source_id) if self._lives(one.subscription)]

    def all(self, source_id: str) -> list[Subscribed]:
        """Also those whose time is over and that nobody has dropped yet, newest first."""
        with self._database.read() as connection:
            no = number(connection, source_id)
            query = select(subscriptions).where(subscriptions.c.source_no == no).order_by(subscriptions.c.no.desc())
            return [self._subscribed(row, source_id) for row in connection.execute(query)]

    def keep(self, source_id: str, subscription: Subscription, hook_url: str | None = None) -> None:
        """Store a new one, or what is new of a known one; it is to be renewed in good time before it ends.

        None for `hook_url` or its secret leaves what is known.
        """
        now_ms = self._clock.now_ms()
        key = _hash(subscription.id)
        fresh: dict[str, Any] = {
            "state": json.dumps(dict(subscription.state)),
            "expires_at_ms": subscription.expires_at_ms,
            "renew_at_ms": renew_at_ms(now_ms, subscription.expires_at_ms, random.random()),
        }
        if hook_url is not None:
            fresh["hook_url"] = hook_url
        if subscription.secret is not None:
            fresh["secret"] = self._vault.lock(subscription.secret)

        def work(connection: Connection) -> None:
            no = number(connection, source_id, lock=True)
            where = (subscriptions.c.source_no == no, subscriptions.c.id_hash == key)
            if connection.execute(update(subscriptions).where(*where).values(fresh)).rowcount == 0:
                made = {"hook_url": "", **fresh, "source_no": no, "id_hash": key, "id": to_bytes(subscription.id)}
                connection.execute(insert(subscriptions).values(**made, made_at_ms=now_ms))
            if fresh["renew_at_ms"] is not None:
                due = update(upkeeps).where(upkeeps.c.source_no == no, upkeeps.c.due_at_ms > fresh["renew_at_ms"])
                connection.execute(due.values(due_at_ms=fresh["renew_at_ms"]))

        self._database.transact(work)

    def drop(self, source_id: str, subscription_id: str) -> bool:
        """Forget one. False: it was not known."""

        def work(connection: Connection) -> bool:
            no = number(connection, source_id)
            where = (subscriptions.c.source_no == no, subscriptions.c.id_hash == _hash(subscription_id))
            return connection.execute(delete(subscriptions).where(*where)).rowcount > 0

        return self._database.transact(work)

    def renew_now(self, source_id: str, subscription_ids: Sequence[str]) -> None:
        """These are to be renewed before their time."""
        hashes = [_hash(one) for one in subscription_ids]

        def work(connection: Connection) -> None:
            no = number(connection, source_id)
            where = (subscriptions.c.source_no == no, subscriptions.c.id_hash.in_(hashes))
            connection.execute(update(subscriptions).where(*where).values(renew_at_ms=self._clock.now_ms()))

        self._database.transact(work)

    def replace_all(self, source_id: str) -> None:
        """What they were made from has changed (a secret, an address): the next upkeep subscribes anew."""

        def work(connection: Connection) -> None:
            no = number(connection, source_id)
            connection.execute(update(subscriptions).where(subscriptions.c.source_no == no).values(hook_url=""))

        self._database.transact(work)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    def upkeep(self, source_id: str) -> Upkeep | None:
        """None: the source is not to be subscribed."""
        with self._database.read() as connection:
            no = number(connection, source_id)
            row = connection.execute(select(upkeeps).where(upkeeps.c.source_no == no)).one_or_none()
        return None if row is None else Upkeep(source_id, row.due_at_ms, row.failures, row.error)

    def wish(self, source_id: str) -> None:
        """The source is to be subscribed, and looked after now."""
        now_ms = self._clock.now_ms()
        self._put_upkeep(source_id, {"due_at_ms": now_ms}, {"due_at_ms": now_ms, "failures": 0})

    def enlist(self, source_id: str) -> bool:
        """The source is to be subscribed. True: nobody knew that yet, and it is due now."""
        if self.upkeep(source_id) is not None:
            return False
        self.wish(source_id)
        return True

    def done(self, source_id: str, due_at_ms: int) -> None:
        """All is well with it; look after it again then."""
        values = {"due_at_ms": due_at_ms, "failures": 0, "error": None}
        self._put_upkeep(source_id, values, values)

    def failed(self, source_id: str, due_at_ms: int, failures: int, error: str) -> None:
        """It could not be looked after; try again then."""
        values = {"due_at_ms": due_at_ms, "failures": failures, "error": error}
        self._put_upkeep(source_id, values, values)

    def resign(self, source_id: str) -> None:
        """The source is not to be subscribed any more; those that live end by themselves."""

        def work(connection: Connection) -> None:
            connection.execute(delete(upkeeps).where(upkeeps.c.source_no == number(connection, source_id)))

        self._database.transact(work)

    def due(self, limit: int = 500) -> list[str]:
        """The sources to look after now. Each is handed out once, and again later if nobody reports on it."""
        now_ms = self._clock.now_ms()
        query = (
            select(sources.c.id, sources.c.no)
            .join(upkeeps, upkeeps.c.source_no == sources.c.no)
            .where(upkeeps.c.due_at_ms <= now_ms, LIVE)
            .limit(limit)
        )
        with self._database.read() as connection:
            found = connection.execute(query).all()
        if not found:
            return []

        def work(connection: Connection) -> set[int]:
            mine = update(upkeeps).where(upkeeps.c.source_no.in_([row.no for row in found]), upkeeps.c.due_at_ms <= now_ms)
            mine = mine.values(due_at_ms=now_ms + _HANDED_OUT_MS).returning(upkeeps.c.source_no)
            return set(connection.execute(mine).scalars())

        handed_out = self._database.transact(work)
        return [from_bytes(row.id) for row in found if row.no in handed_out]

    def listed(self, workspace: str | None, after: str | None, limit: int) -> list[tuple[Upkeep, Sequence[Subscribed]]]:
        """The sources that have a subscription or are to have one, at most `limit` by id behind `after`; with all of them.

        Secrets are left out.
        """
        has = sources.c.no.in_(select(subscriptions.c.source_no))
        query = select(sources.c.id, sources.c.no, upkeeps.c.due_at_ms, upkeeps.c.failures, upkeeps.c.error)
        query = query.outerjoin(upkeeps, upkeeps.c.source_no == sources.c.no).order_by(sources.c.id).limit(limit)
        query = query.where(LIVE, or_(has, upkeeps.c.source_no.is_not(None)))
        if workspace is not None:
            query = query.where(sources.c.workspace == to_bytes(workspace))
        if after is not None:
            query = query.where(sources.c.id > to_bytes(after))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            of = select(subscriptions).where(subscriptions.c.source_no.in_([row.no for row in rows]))
            found: dict[int, list[Subscribed]] = {}
            for row in connection.execute(of.order_by(subscriptions.c.no.desc())):
                found.setdefault(row.source_no, []).append(self._subscribed(row, None))
        return [
            (Upkeep(from_bytes(row.id), row.due_at_ms or 0, row.failures or 0, row.error), found.get(row.no, []))
            for row in rows
        ]

    def _put_upkeep(self, source_id: str, new: dict[str, Any], known: dict[str, Any]) -> None:
        insert_or = sqlite.insert if self._database.is_sqlite else postgresql.insert

        def work(connection: Connection) -> None:
            no = number(connection, source_id, lock=True)
            query = insert_or(upkeeps).values({"source_no": no, "failures": 0, **new})
            connection.execute(query.on_conflict_do_update(index_elements=["source_no"], set_=known))

        self._database.transact(work)

    def _lives(self, subscription: Subscription) -> bool:
        return subscription.expires_at_ms is None or subscription.expires_at_ms > self._clock.now_ms()

    def _subscribed(self, row: Row[Any], unlock_for: str | None) -> Subscribed:
        secret = None if unlock_for is None else self._vault.unlock(row.secret, unlock_for)
        made = Subscription(from_bytes(row.id), row.expires_at_ms, secret, json.loads(row.state))
        return Subscribed(made, row.hook_url, row.made_at_ms, row.renew_at_ms)


def _hash(subscription_id: str) -> bytes:
    return hashlib.sha256(to_bytes(subscription_id)).digest()
