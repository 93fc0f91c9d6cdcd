"""The connector itself: its settings, and the calls of `Connector` and `Watches`."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

from sourcebus.connectors.base import Connector, Recommended, refuse_unknown
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.imap.listing import Listing, is_deleted
from sourcebus.connectors.imap.message import documents_of
from sourcebus.connectors.imap.names import Mailboxes, MessageName, parse_ref
from sourcebus.connectors.imap.pool import Pool
from sourcebus.connectors.imap.session import Login, NoMailbox, Server, Session
from sourcebus.connectors.imap.watching import Watch, WatchSettings
from sourcebus.errors import InvalidInput, NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Extraction, Quota

SETTINGS = (
    "host", "port", "tls", "allow_plaintext", "ca_file", "user", "auth", "include", "exclude", "exclude_special_use",
    "max_bytes", "connections", "idle_mailboxes", "idle_s", "poll_s",
)  # fmt: skip
SECRETS = ("password", "access_token")

TLS_PORTS = {"implicit": 993, "starttls": 143, "none": 143}
AUTH = ("password", "xoauth2")
SPECIAL_USES = ("all", "archive", "drafts", "flagged", "important", "junk", "sent", "trash")
"""RFC 6154, and ``\\Important`` of RFC 8457."""

DEFAULT_SKIPPED = ("drafts", "flagged", "important", "junk", "trash")
"""Flagged and important are views of messages that lie elsewhere."""

LONGEST_IDLE_S = 29 * 60
"""RFC 2177: a server may log out who has been idle for half an hour."""


class ImapConnector(Connector):
    """The messages of an account. A reference is its IMAP URL's path (`names`), a scope is a mailbox."""

    name = "imap"
    recommended = Recommended(
        quota=Quota(rate=None, burst=1, concurrency=4), window_ms=5_000, poll_interval_s=300.0, reconcile_interval_s=21_600.0
    )

    def __init__(
        self,
        server: Server,
        login: Login,
        mailboxes: Mailboxes,
        *,
        max_bytes: int = 25_000_000,
        connections: int = 4,
        watch: WatchSettings | None = None,
    ) -> None:
        self._open = lambda: Session(server, login)
        self._pool = Pool(self._open, connections)
        self._listing = Listing(self._pool, mailboxes)
        self._max_bytes, self._watch = max_bytes, watch or WatchSettings()

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        """See docs/connectors/imap.md for the settings."""
        refuse_unknown(config, SETTINGS)
        include, exclude = _texts(config, "include", ()), _texts(config, "exclude", ())
        skip = _texts(config, "exclude_special_use", DEFAULT_SKIPPED, SPECIAL_USES)
        watch = WatchSettings(
            int(_number(config, "idle_mailboxes", 4, 0, 100)),
            _number(config, "idle_s", 540, 1, LONGEST_IDLE_S),
            _number(config, "poll_s", 60, 0.05, 86_400),
        )
        return cls(
            _server(config),
            _login(config, Credentials.parse(secret, SECRETS)),
            Mailboxes(include, exclude, skip),
            max_bytes=int(_number(config, "max_bytes", 25_000_000, 1_000, 1_000_000_000)),
            connections=int(_number(config, "connections", 4, 1, 100)),
            watch=watch,
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


_NOT_IN_HOSTS = re.compile(r"[\s/@\[\]]|^[^:]*:[^:]*$")
"""A port, a URL or brackets beside the name. Two colons or more are an IPv6 address."""


def _server(config: Mapping[str, Any]) -> Server:
    host, tls, ca_file = config.get("host"), config.get("tls", "implicit"), config.get("ca_file")
    if not isinstance(host, str) or not host or _NOT_IN_HOSTS.search(host):
        raise InvalidInput(
            "config.host", "is missing" if host is None else f"is {host!r}", 'give a name, such as "imap.example.org"'
        )
    if tls not in TLS_PORTS:
        raise InvalidInput("config.tls", f"is {tls!r}", "use one of " + ", ".join(TLS_PORTS))
    if not isinstance(config.get("allow_plaintext", False), bool):
        raise InvalidInput("config.allow_plaintext", f"is {config['allow_plaintext']!r}", "give true or false")
    if tls == "none" and not (_is_loopback(host) or config.get("allow_plaintext")):
        raise InvalidInput(
            "config.tls", "is none: the password would cross the network in clear", "use starttls, or set allow_plaintext"
        )
    if ca_file is not None and not isinstance(ca_file, str):
        raise InvalidInput("config.ca_file", f"is {ca_file!r}", "give the path of a PEM file")
    return Server(host, int(_number(config, "port", TLS_PORTS[tls], 1, 65_535)), tls, ca_file)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _login(config: Mapping[str, Any], secrets: Credentials) -> Login:
    user, auth = config.get("user"), config.get("auth", "password")
    if not isinstance(user, str) or not user or any(char in user for char in "\r\n\0"):
        raise InvalidInput("config.user", "is missing" if user is None else f"is {user!r}", "give the name that logs in")
    if auth not in AUTH:
        raise InvalidInput("config.auth", f"is {auth!r}", "use one of " + ", ".join(AUTH))
    password, token = secrets.one("password"), secrets.one("access_token") or secrets.one("password")

    def login(client: Any) -> None:
        if not token or (auth == "password" and not password):
            raise NeedsAuth(
                f"the source has no secret: set the {'password' if auth == 'password' else 'access token'} of {user}"
            )
        if auth == "xoauth2":
            client.oauth2_login(user, token)
        else:
            client.login(user, password)

    return login


def _number(config: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidInput(f"config.{key}", f"is {value!r}", f"give a number from {least:g} to {most:g}")
    return value


def _texts(config: Mapping[str, Any], key: str, default: Sequence[str], allowed: Sequence[str] = ()) -> Sequence[str]:
    value = config.get(key, default)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in cast("list[Any]", value)):
        raise InvalidInput(f"config.{key}", f"is {value!r}", "give a list of texts")
    texts = cast("Sequence[str]", value)
    for text in texts:
        if allowed and text not in allowed:
            raise InvalidInput(f"config.{key}", f"has {text!r}", "use any of " + ", ".join(allowed))
    return texts
