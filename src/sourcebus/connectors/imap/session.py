"""One IMAP connection, used by one thread at a time: opening it, and the commands that a listing needs.

IMAPClient speaks the protocol (TLS, LIST, IDLE, parsing); added here is what it lacks: FETCH over a range of UIDs with
modifiers, the VANISHED responses of QRESYNC (RFC 7162), and what a server's refusal means for us.
"""

from __future__ import annotations

import imaplib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError
from imapclient.response_parser import parse_fetch_response

from sourcebus.connectors.imap.names import uids_of
from sourcebus.errors import ConnectorError, NeedsAuth, SourceUnavailable, Throttled

TIMEOUT_S = 60.0
"""How long one answer may take. Searching servers are slow; none is this slow."""

FAULTS = (IMAPClientError, OSError, UnicodeError, ValueError)
"""What IMAPClient and imaplib raise for refusals, lost connections and answers that are no IMAP."""

_BYTES = re.compile(r"^b(['\"])(.*)\1$", re.DOTALL)  # imaplib makes words of bytes as Python writes them
_CODE = re.compile(r"\[([A-Z-]+)[\] ]")
_BACKOFF = re.compile(r"Suggested Backoff Time: (\d+) milliseconds")
_NEEDS_AUTH = ("AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "PRIVACYREQUIRED", "CONTACTADMIN", "WEBALERT")
_THROTTLED = ("LIMIT", "THROTTLED")
_THROTTLING = re.compile(
    r"too many (simultaneous |concurrent )?connections|maximum number of connections|throttled|rate limit|bandwidth limits",
    re.IGNORECASE,
)


class NoMailbox(SourceUnavailable):
    """The mailbox cannot be opened. The caller asks LIST whether it exists at all."""


class AnswerTooLong(SourceUnavailable):
    """One line of an answer is longer than imaplib reads (1 MB): more UIDs vanished than it can say."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """What the server says of a mailbox when it is opened. `modseq` is None where it keeps none (RFC 7162 §3.1.2)."""

    uidvalidity: int
    uidnext: int
    exists: int
    modseq: int | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answers of one FETCH: items by UID, and the UIDs that are gone, as ranges."""

    messages: Mapping[int, Mapping[bytes, Any]]
    vanished: Sequence[range]


@dataclass(frozen=True, slots=True)
class Server:
    """Where the mail is. `tls`: ``implicit``, ``starttls`` or ``none``."""

    host: str
    port: int
    tls: str
    ca_file: str | None = None

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)


class _Client(IMAPClient):
    """IMAPClient, with the protocol object below it in reach: FETCH over a range needs that one."""

    @property
    def protocol(self) -> imaplib.IMAP4:
        return self._imap


Login = Callable[[Any], object]
"""Logs an `IMAPClient` in (it has no types), or raises `NeedsAuth`."""


class Session:
    """A connection that is logged in. `calls` counts its commands, `qresync` and `condstore` say what it may ask."""

    def __init__(self, server: Server, login: Login) -> None:
        """Raises `NeedsAuth`, `Throttled`, `SourceUnavailable`."""
        self.calls = 0
        try:
            self._client: Any = _Client(
                server.host,
                server.port,
                ssl=server.tls == "implicit",
                ssl_context=server.context() if server.tls == "implicit" else None,
                timeout=TIMEOUT_S,
            )
        except FAULTS as error:
            raise meaning(error, f"connecting to {server.host}:{server.port}") from error
        try:
            self._begin(server, login)
        except FAULTS as error:
            self.cut()
            raise meaning(error, f"logging in at {server.host}") from error
        except ConnectorError:
            self.cut()
            raise

    def _begin(self, server: Server, login: Login) -> None:
        if server.tls == "starttls":
            self._client.starttls(server.context())
        self._client.normalise_times = False
        login(self._client)
        can = {capability.upper() for capability in cast("Sequence[bytes]", self._client.capabilities())}
        self.idles = b"IDLE" in can
        self.qresync = b"QRESYNC" in can and b"QRESYNC" in self._enabled("QRESYNC")
        self.condstore = self.qresync or b"CONDSTORE" in can
        if self.condstore and not self.qresync:  # Dovecot counts no HIGHESTMODSEQ for who has not asked (RFC 7162 §3.1)
            self._enabled("CONDSTORE") if b"ENABLE" in can else self._client.folder_status("INBOX", ["HIGHESTMODSEQ"])

    def _enabled(self, extension: str) -> set[bytes]:
        return {word.upper() for word in cast("Sequence[bytes]", self._client.enable(extension))}

    def examine(self, mailbox: str) -> Mailbox:
        """Open the mailbox for reading, and see it as it is now. Raises `NoMailbox`."""
        said = self._asked_of(mailbox, "EXAMINE", lambda: self._client.select_folder(mailbox, readonly=True))
        try:
            modseq = said.get(b"HIGHESTMODSEQ") if self.condstore else None
            return Mailbox(said[b"UIDVALIDITY"], said[b"UIDNEXT"], said[b"EXISTS"], modseq)
        except KeyError as error:
            raise SourceUnavailable(f"{mailbox}: the server gives no {error}, without which messages have no names") from error

    def status(self, mailbox: str) -> Mailbox | None:
        """The same without opening it (STATUS). None where that is refused."""
        items = ["MESSAGES", "UIDNEXT", "UIDVALIDITY", *(["HIGHESTMODSEQ"] if self.condstore else [])]
        try:
            said = self._asked_of(mailbox, "STATUS", lambda: self._client.folder_status(mailbox, items))
            return Mailbox(said[b"UIDVALIDITY"], said[b"UIDNEXT"], said[b"MESSAGES"], said.get(b"HIGHESTMODSEQ"))
        except (NoMailbox, KeyError):
            return None

    def _asked_of(self, mailbox: str, what: str, ask: Callable[[], Any]) -> dict[bytes, Any]:
        try:
            return cast("dict[bytes, Any]", self._call(f"{what} {mailbox}", ask))
        except SourceUnavailable as error:
            if isinstance(error.__cause__, IMAPClientError) and " failed: " in str(error.__cause__):
                raise NoMailbox(str(error)) from error  # a plain NO
            raise

    def list_mailboxes(self, pattern: str = "*") -> list[tuple[str, str, list[str]]]:
        """Name, hierarchy delimiter ("": none) and attributes of each."""
        listed = cast("list[tuple[Any, Any, Any]]", self._call("LIST", lambda: self._client.list_folders("", pattern)))
        return [(str(name), _text(delimiter or b""), [_text(flag) for flag in flags]) for flags, delimiter, name in listed]

    def fetch_range(self, uids: str, items: str, modifiers: str = "") -> Fetched:
        """UID FETCH of a sequence set, `items` and `modifiers` as they go over the wire. Unsolicited answers are among them."""
        imap = self._client.protocol
        for word in ("FETCH", "VANISHED"):
            imap.untagged_responses.pop(word, None)
        args = [uids, f"({items})", *([f"({modifiers})"] if modifiers else [])]
        messages = self._fetched(lambda: imap.uid("FETCH", *args), by_uid=True)
        vanished = cast("list[bytes]", imap.untagged_responses.pop("VANISHED", []))
        ranges = [uids for line in vanished if line for uids in uids_of(line.decode().removeprefix("(EARLIER) "))]
        return Fetched(messages, ranges)

    def uids_at(self, sequence_numbers: Iterable[int]) -> list[int]:
        """The UIDs of the messages at these places of the open mailbox. No expunge shifts them (RFC 3501 §7.4.1)."""
        wanted = ",".join(map(str, sequence_numbers))
        messages = self._fetched(lambda: self._client.protocol.fetch(wanted, "(UID)"), by_uid=False)
        return [items[b"UID"] for items in messages.values() if b"UID" in items]

    def _fetched(self, ask: Callable[[], Any], *, by_uid: bool) -> Mapping[int, Mapping[bytes, Any]]:
        def read() -> Any:
            status, data = ask()
            if status != "OK":
                raise IMAPClientError(_text(data[0]))
            return parse_fetch_response(data, False, by_uid) if data and data != [None] else {}

        return cast("Mapping[int, Mapping[bytes, Any]]", self._call("FETCH", read))

    def deleted_uids(self) -> set[int]:
        r"""The messages that are marked \Deleted."""
        return set(cast("list[int]", self._call("SEARCH", lambda: self._client.search(["DELETED"]))))

    def idle_once(self, longest_s: float) -> list[tuple[Any, ...]]:
        """What the server says of the open mailbox while it is idle: at once when it says something, else after `longest_s`."""
        began_s = time.monotonic()

        def wait() -> list[tuple[Any, ...]]:
            self._client.idle()
            said = cast("list[tuple[Any, ...]]", self._client.idle_check(longest_s))
            if not said and time.monotonic() - began_s < longest_s - 1:
                raise IMAPClientAbortError("the connection was closed")
            _, more = cast("tuple[bytes, list[tuple[Any, ...]]]", self._client.idle_done())
            return said + more

        said = self._call("IDLE", wait)
        self.unsolicited()  # what came with the end of IDLE is among `said`
        return said

    def ping(self) -> None:
        self._call("NOOP", self._client.noop)

    def unsolicited(self) -> dict[str, list[bytes]]:
        """What the server has said beside its answers since this was last called."""
        said = cast("dict[str, list[bytes]]", self._client.protocol.untagged_responses)
        return {word: said.pop(word) for word in ("EXISTS", "EXPUNGE", "VANISHED") if word in said}

    def interrupt(self) -> None:
        """From another thread: who waits for an answer on this connection gets an error."""
        try:
            self._client.socket().shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass  # it was not open, or is closed already

    def cut(self) -> None:
        """End the connection, without a word more."""
        self.interrupt()
        try:
            self._client.shutdown()
        except FAULTS:
            pass

    def _call(self, what: str, ask: Callable[[], Any]) -> Any:
        self.calls += 1
        try:
            return ask()
        except FAULTS as error:
            raise meaning(error, what) from error


def lost(error: ConnectorError) -> bool:
    """Whether the connection is of no more use after this error. What is not a plain refusal may have left half an answer."""
    return error.__cause__ is not None and not isinstance(error, NoMailbox)


def meaning(error: BaseException, doing: str) -> ConnectorError:
    """What a refusal or a fault means: response codes of RFC 5530, and the words of providers that send none."""
    text = _BYTES.sub(r"\2", str(error))
    shown = f"{doing}: {text}"[:500]
    code = found[1] if (found := _CODE.search(text)) else ""
    if isinstance(error, IMAPClientError):
        if code in _THROTTLED or _THROTTLING.search(text):
            wait = _BACKOFF.search(text)
            return Throttled(shown, int(wait[1]) if wait else None)
        if code in _NEEDS_AUTH or (doing.startswith("logging in") and code not in ("UNAVAILABLE", "INUSE", "SERVERBUG")):
            return SourceUnavailable(shown) if isinstance(error, IMAPClientAbortError) else NeedsAuth(shown)
    if "got more than" in text:
        return AnswerTooLong(shown)
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceUnavailable(
            f"{shown}: the certificate is not trusted; config.ca_file can name the authority that signed it"
        )
    return SourceUnavailable(shown if text else f"{doing}: {type(error).__name__}")


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
