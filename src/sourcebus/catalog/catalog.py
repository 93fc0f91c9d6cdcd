"""`Catalog`: the one door to the database. Each method is a promise; how it is kept stands in the file of its subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy import text

from sourcebus.catalog.deliveries import DeliveryTable
from sourcebus.catalog.depot import SourceDepot
from sourcebus.catalog.engine import Database
from sourcebus.catalog.listings import ListingTable
from sourcebus.catalog.maintenance import Maintenance
from sourcebus.catalog.objects import ObjectTable
from sourcebus.catalog.schema import bring_up
from sourcebus.catalog.search import search
from sourcebus.catalog.settle import settle
from sourcebus.catalog.sources import SourceTable
from sourcebus.catalog.subscriptions import SubscriptionTable
from sourcebus.catalog.vault import Vault
from sourcebus.clock import Clock, SystemClock
from sourcebus.errors import CatalogUnavailable
from sourcebus.model import DeliveryLine, Hit, JsonObject, Outcome, Source, StoryLine, Subscription, Version


class Catalog:
    """Sources, object versions, documents and their search index, stories and listings of one installation.

    Any thread may use it; after a fork the child may too. Every method may raise CatalogUnavailable, every one that
    writes StorageFull; then nothing was written. Those that name a source raise UnknownSource where it is not there.
    """

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._sources = SourceTable(database, vault, clock)
        self._objects = ObjectTable(database)
        self._listings = ListingTable(database)
        self._subscriptions = SubscriptionTable(database, vault, clock)
        self._deliveries = DeliveryTable(database, vault)
        self._maintenance = Maintenance(database, clock)

    @classmethod
    def open(
        cls, database_url: str, *, secret_key: str | None = None, migrate: bool = True, clock: Clock | None = None
    ) -> Self:
        """The catalog in this database, its schema brought up to date first where `migrate` allows.

        `database_url` is ``sqlite:///FILE`` or ``postgresql+psycopg://…``; `secret_key` one Fernet key or several with
        commas between (the first encrypts). CatalogError: no full-text search, or a schema that is newer than this code.
        """
        vault = Vault(secret_key)
        database = Database(database_url)
        try:
            bring_up(database, migrate=migrate)
        except BaseException:
            database.close()
            raise
        return cls(database, vault, clock or SystemClock())

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ping(self) -> None:
        """CatalogUnavailable if the database does not answer now."""
        file = self._database.file
        if file is not None and not file.exists():
            raise CatalogUnavailable(f"{self._database.name}: the file is gone")
        with self._database.read() as connection:
            connection.execute(text("SELECT 1 FROM sources LIMIT 1"))

    def add_source(self, source: Source) -> Source:
        """Store a new source; returns it with its times. Conflict where the id is taken."""
        return self._sources.add(source)

    def source(self, source_id: str) -> Source:
        """The source of this id."""
        return self._sources.get(source_id)

    def sources(self, *, workspace: str | None = None, after: str | None = None, limit: int = 1000) -> list[Source]:
        """At most `limit` sources ordered by id (by code point), those behind the id `after`."""
        return self._sources.list(workspace, after, limit)

    def update_source(self, source: Source) -> Source:
        """Replace every settable field of the source of this id, the secret too; returns what is stored now."""
        return self._sources.update(source)

    def remove_source(self, source_id: str) -> int:
        """Remove a source with its objects, documents, cursors and stories; returns how many live objects it had.

        It is gone from every answer at once; its rows follow in bounded transactions before the call returns.
        """
        return self._maintenance.remove_source(source_id)

    def depot(self, source_id: str) -> SourceDepot:
        """The contents that came in the deliveries of a source that cannot be asked."""
        return SourceDepot(self._database, source_id)

    def log_deliveries(self, lines: Sequence[tuple[DeliveryLine, bool]], *, keep: int, keep_refused: int) -> None:
        """Store lines of the deliveries log, each with whether it was refused, in one transaction.

        Of each source the newest `keep` stay, and of those refused the newest `keep_refused`. Requests are encrypted; without
        a key only the lines are kept. Lines of sources that are not there any more are left out.
        """
        self._deliveries.add(lines, keep=keep, keep_refused=keep_refused)

    def deliveries(self, source_id: str, *, after: int | None = None, limit: int = 100) -> list[DeliveryLine]:
        """At most `limit` lines of a source's deliveries log, newest first, older than the line `after`; without requests."""
        return self._deliveries.list(source_id, after, limit)

    def delivery(self, line_id: int) -> DeliveryLine | None:
        """One line of the deliveries log with its request, None where there is none (any more)."""
        return self._deliveries.get(line_id)

    def state(self, source_id: str) -> JsonObject:
        """The small facts of a source's day, as `set_state` left them."""
        return self._sources.state(source_id)

    def states(self, source_ids: Sequence[str]) -> dict[str, JsonObject]:
        """`state` of each of these; those that are not there are absent. One query for each 500."""
        return self._sources.states(source_ids)

    def set_state(self, source_id: str, **values: Any) -> None:
        """Merge `values` into the facts, atomically; None deletes a key."""
        self._sources.set_state(source_id, values)

    def versions(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Version]:
        """The stored version of each (source id, object reference); absent where the object was never settled.

        Tombstones are included, with state ``deleted``. One query for each 500 keys.
        """
        return self._objects.versions(keys)

    def objects(
        self, source_id: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[tuple[str, Version]]:
        """At most `limit` live objects (indexed or unreadable) ordered by reference (by code point).

        Only those whose reference starts with `prefix`, taken literally, and sorts behind `after`.
        """
        return self._objects.list(source_id, prefix, after, limit)

    def counts(self, source_ids: Sequence[str] | None = None) -> dict[str, dict[str, int]]:
        """For each source (None: all): how many objects are ``indexed``, ``unreadable``, ``deleted``, and ``documents``."""
        return self._objects.counts(source_ids)

    def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Apply outcomes in one transaction, in order; for each, whether it was applied.

        False: a newer lease (a higher fence) settled the object already, or the source is not there any more, or it was
        removed and added again since. A note leaves only a line in the story.
        """
        return settle(self._database, outcomes)

    def story(self, source_id: str, object_ref: str, *, limit: int = 50) -> list[StoryLine]:
        """The object's story, newest first: its last 20 lines and its last 20 failures. [] if never heard of."""
        return self._objects.story(source_id, object_ref, limit)

    @property
    def listings(self) -> ListingTable:
        """Where each scope's listing goes on, what a complete one has seen so far, and the deletes that are held."""
        return self._listings

    def subscriptions(self, source_id: str) -> list[Subscription]:
        """The source's living subscriptions, newest first, with their secrets."""
        return [one.subscription for one in self._subscriptions.living(source_id)]

    def keep_subscription(self, source_id: str, subscription: Subscription, hook_url: str | None = None) -> None:
        """Store a new subscription, or what is new of a known one. None for `hook_url` or its secret leaves what is known."""
        self._subscriptions.keep(source_id, subscription, hook_url)

    def drop_subscription(self, source_id: str, subscription_id: str) -> bool:
        """Forget a subscription. False: it was not known."""
        return self._subscriptions.drop(source_id, subscription_id)

    @property
    def upkeep(self) -> SubscriptionTable:
        """Which sources are to be subscribed, and when each subscription is looked after next."""
        return self._subscriptions

    def search(
        self, q: str, *, source_id: str | None = None, workspace: str | None = None, limit: int = 20, offset: int = 0
    ) -> list[Hit]:
        """The documents that hold all words of `q`, best first; the last word may be the beginning of one.

        Any text is a valid query; InvalidInput only where it is empty. An unknown source or workspace has no hits.
        """
        return search(self._database, q, source_id=source_id, workspace=workspace, limit=limit, offset=offset)

    def maintain(self) -> None:
        """A small slice of housekeeping, to be called about once a minute by one process.

        Finishes removals that a crash cut short, forgets tombstones after 7 days, merges the index, checkpoints the log.
        """
        self._maintenance.run()
