"""The connector itself: its settings, and the calls of `Connector` and `Watches`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from sourcebus.connectors.base import Connector, Recommended, refuse_unknown
from sourcebus.connectors.imap.listing import Listing, is_deleted
from sourcebus.connectors.imap.message import documents_of
from sourcebus.connectors.imap.names import Mailboxes, MessageName, parse_ref
from sourcebus.connectors.imap.pool import Pool
from sourcebus.connectors.imap.session import NoMailbox, Server, Session
from sourcebus.connectors.imap.settings import SETTINGS, Account, account_of, mailboxes_of, number, server_of, watch_of
from sourcebus.connectors.imap.watching import Watch, WatchSettings
from sourcebus.errors import ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Extraction, Quota


class ImapConnector(Connector):
    """The messages of an account. A reference is its IMAP URL's path (`names`), a scope is a mailbox."""

    name = "imap"
    recommended = Recommended(
        quota=Quota(rate=None, burst=1, concurrency=4), window_ms=5_000, poll_interval_s=300.0, reconcile_interval_s=21_600.0
    )

    def __init__(
        self,
        server: Server,
        account: Account,
        mailboxes: Mailboxes,
        *,
        max_bytes: int = 25_000_000,
        connections: int = 4,
        watch: WatchSettings | None = None,
    ) -> None:
        self._account = account
        self._open = lambda: Session(server, account.login)
        self._pool = Pool(self._open, connections)
        self._listing = Listing(self._pool, mailboxes)
        self._max_bytes, self._watch = max_bytes, watch or WatchSettings()

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        """See docs/connectors/imap.md for the settings."""
        refuse_unknown(config, SETTINGS)
        return cls(
            server_of(config),
            account_of(config, secret),
            mailboxes_of(config),
            max_bytes=int(number(config, "max_bytes", 25_000_000, 1_000, 1_000_000_000)),
            connections=int(number(config, "connections", 4, 1, 100)),
            watch=watch_of(config),
        )

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        return self._listing.changes(cursor, scope)

    def version(self, ref: str) -> str | None:
        try:
            message, _ = self._look(ref, "FLAGS")
        except ObjectGone:
            return None
        return message.version

    def extract(self, ref: str) -> Extraction:
        message, items = self._look(ref, f"FLAGS BODY.PEEK[]<0.{self._max_bytes}>")
        data = items.get(b"BODY[]<0>")
        if not isinstance(data, bytes):
            raise SourceUnavailable(f"{ref}: the server does not give the message's text")
        try:
            documents = documents_of(data, truncated=len(data) >= self._max_bytes)
        except ObjectUnreadable as unreadable:
            raise ObjectUnreadable(unreadable.reason, unreadable.detail, version=message.version) from unreadable
        return Extraction(documents, message.version)

    def scope_prefix(self, scope: str) -> str:
        return scope if scope == WHOLE_SOURCE else f"{scope};UIDVALIDITY="

    def watch(self, stop: threading.Event, *, step_ms: int) -> Iterator[Sequence[Change]]:
        """As `Watches.watch`. The scope of a scan is a mailbox."""
        return Watch(self._open, self._listing, self._watch, stop, step_ms).batches()

    def take_cost(self) -> float:
        """IMAP commands. See `Costly`."""
        return self._pool.take_cost()

    def close(self) -> None:
        self._pool.close()
        self._account.close()

    def _look(self, ref: str, wanted: str) -> tuple[MessageName, Mapping[bytes, Any]]:
        """The message as it is now. ObjectGone only where the server says that there is no such message."""
        message = parse_ref(ref)
        if message is None:
            raise ObjectGone(f"{ref!r} is no name of a message")
        with self._pool.session() as session:
            if not self._listing.holds(session, message.mailbox):
                raise ObjectGone(f"the source has no mailbox {message.mailbox!r}")
            try:
                box = session.examine(message.mailbox)
            except NoMailbox:
                if message.mailbox in self._listing.names_by(session):
                    raise
                raise ObjectGone(f"there is no mailbox {message.mailbox!r} any more") from None
            if box.uidvalidity != message.uidvalidity:
                raise ObjectGone(f"{message.mailbox} has another UIDVALIDITY now")
            items = session.fetch_range(str(message.uid), wanted).messages.get(message.uid)
        if items is None or is_deleted(items):
            raise ObjectGone(f"{ref} is not there any more")
        return message, items
