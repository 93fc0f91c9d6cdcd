"""Hearing of changes by IDLE (RFC 2177), one connection a mailbox, and by STATUS for the mailboxes beyond the bound."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog

from sourcebus.connectors.imap.listing import Listing, is_deleted
from sourcebus.connectors.imap.names import MessageName, scope_of, uids_of
from sourcebus.connectors.imap.session import Mailbox, Session
from sourcebus.errors import ConnectorError, NeedsAuth, SourceUnavailable, Throttled
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind

_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 60.0
_AUTH_RETRY_S = 300.0
"""A refused password is tried again this much later: servers lock accounts that guess."""

_READY_S = 20.0
"""How long the first batch waits for connections to be made; later ones announce a scan of their own."""

_LOOK_S = 0.1

_ABSENT = Mailbox(0, 0, 0, 0)
"""How a mailbox is that is not there; one that another connection looks after is None."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`idle_mailboxes` get a connection each, IDLE is asked for anew after `idle_s`, the rest is looked at every `poll_s`."""

    idle_mailboxes: int = 4
    idle_s: float = 540.0
    poll_s: float = 60.0


class Watch:
    """The watch of one source. Connections are its own, not the pool's: they are never free."""

    def __init__(
        self,
        open_session: Callable[[], Session],
        listing: Listing,
        settings: WatchSettings,
        stop: threading.Event,
        step_ms: int,
    ) -> None:
        self._open, self._listing, self._settings = open_session, listing, settings
        self._stop, self._step_s = stop, step_ms / 1000
        self._said: queue.Queue[Sequence[Change]] = queue.Queue()
        self._begun, self._ended = threading.Event(), threading.Event()
        self._idlers: dict[str, _Connection] = {}
        self._before: dict[str, Mailbox | None] | None = None

    def batches(self) -> Iterator[Sequence[Change]]:
        """As `Watches.watch`. The whole source is scanned once everything listens; what connects later scans its mailbox."""
        poller = _Connection("status", self._open, self._poll, self._ended)
        poller.start()
        try:
            deadline_s = time.monotonic() + _READY_S
            self._wait_for(poller, deadline_s)
            for idler in list(self._idlers.values()):
                self._wait_for(idler, deadline_s)
            self._begun.set()
            yield [Change(WHOLE_SOURCE, ChangeKind.SCAN)]
            while not self._stop.is_set():
                batch = self._batch()
                if batch:
                    yield batch
        finally:
            self._ended.set()
            poller.end()
            for idler in self._idlers.values():
                idler.end()

    def _wait_for(self, connection: _Connection, deadline_s: float) -> None:
        while not (connection.ready.wait(_LOOK_S) or self._stop.is_set() or time.monotonic() > deadline_s):
            pass

    def _batch(self) -> Sequence[Change]:
        try:
            changes = [*self._said.get(timeout=_LOOK_S)]
        except queue.Empty:
            return ()
        until_s = time.monotonic() + self._step_s
        while True:
            try:
                changes += self._said.get(timeout=max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                return list(dict.fromkeys(changes))

    # which mailboxes there are, and how those are that have no connection of their own

    def _poll(self, session: Session, ready: threading.Event) -> None:
        while not self._ended.is_set():
            names = self._listing.names_by(session)
            if session.idles:
                self._follow(names[: self._settings.idle_mailboxes])
            now = {name: None if name in self._idlers else session.status(name) for name in names}
            if self._before is not None:
                known = self._before
                different = {name for name in now.keys() | known.keys() if now.get(name, _ABSENT) != known.get(name, _ABSENT)}
                self._said.put([Change(scope_of(name), ChangeKind.SCAN) for name in sorted(different)])
            self._before = now
            ready.set()
            self._ended.wait(self._settings.poll_s)

    def _follow(self, names: Sequence[str]) -> None:
        for name in self._idlers.keys() - set(names):
            self._idlers.pop(name).end()
        for name in [name for name in names if name not in self._idlers]:
            idler = _Idler(name, self._said.put, self._settings.idle_s, self._begun, self._ended)
            self._idlers[name] = _Connection(name, self._open, idler.run, self._ended)
            self._idlers[name].start()


class _Connection:
    """A thread that keeps one connection, and works on it until it is lost; then it makes another."""

    def __init__(
        self,
        name: str,
        open_session: Callable[[], Session],
        work: Callable[[Session, threading.Event], None],
        ended: threading.Event,
    ) -> None:
        self.ready = threading.Event()
        """It works, or has failed to for the first time."""
        self._name, self._open, self._work, self._all_ended = name, open_session, work, ended
        self._ended = threading.Event()
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._run, name=f"imap-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        session = self._session
        if session is not None:
            session.interrupt()
        self._thread.join(5.0)

    def _over(self) -> bool:
        return self._ended.is_set() or self._all_ended.is_set()

    def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not self._over():
            began_s = time.monotonic()
            try:
                self._connected()
            except ConnectorError as error:
                if self._over():
                    return
                if time.monotonic() - began_s > _LAST_RETRY_S:
                    retry_s = _FIRST_RETRY_S
                wait_s = _wait_s(error, retry_s)
                _log.warning("connectors.mailbox_watch_lost", mailbox=self._name, error=str(error), retry_s=round(wait_s, 1))
                self.ready.set()
                self._ended.wait(wait_s) if not self._all_ended.is_set() else None
                retry_s = min(_LAST_RETRY_S, retry_s * 2)

    def _connected(self) -> None:
        session = self._session = self._open()
        try:
            if not self._over():
                self._work(session, self.ready)
        finally:
            self._session = None
            session.cut()


def _wait_s(error: ConnectorError, retry_s: float) -> float:
    if isinstance(error, NeedsAuth):
        return _AUTH_RETRY_S
    asked_s = (error.retry_after_ms or 0) / 1000 if isinstance(error, Throttled) else 0.0
    return max(asked_s, retry_s * random.uniform(0.75, 1.25))  # spread, so that a server's return is no stampede


class _Idler:
    """Hears one mailbox: new messages and expunged ones by their names, flags only where they mean deleted or not any more."""

    def __init__(
        self,
        name: str,
        put: Callable[[Sequence[Change]], None],
        idle_s: float,
        begun: threading.Event,
        ended: threading.Event,
    ) -> None:
        self._name, self._put, self._idle_s, self._begun, self._ended = name, put, idle_s, begun, ended
        self._box = Mailbox(0, 0, 0, None)
        self._next_uid = 0
        self._deleted: set[int] = set()

    def run(self, session: Session, ready: threading.Event) -> None:
        """Returns never but by an error: the connection is lost, or was interrupted."""
        self._box = session.examine(self._name)
        self._next_uid, self._deleted = self._box.uidnext, session.deleted_uids()
        if self._begun.is_set():
            self._scan()
        ready.set()
        while not self._ended.is_set():
            arrived = False
            for said in session.idle_once(self._idle_s):
                arrived |= self._hear(said)
            while arrived:
                arrived = self._arrivals(session)

    def _hear(self, said: Sequence[Any]) -> bool:
        """Tell what one line means. True: messages have arrived, and their names are to be asked for."""
        match said:
            case (int(), b"EXISTS"):
                return True
            case (b"VANISHED", uids):
                text = uids.decode() if isinstance(uids, bytes) else str(uids)
                self._gone(uids_of(text))
            case (int(), b"EXPUNGE"):
                self._scan()  # a place in the mailbox is no name
            case (int(), b"FETCH", items):
                pairs = cast("Sequence[Any]", items)
                self._flagged(dict(zip(pairs[::2], pairs[1::2], strict=False)))
            case (b"BYE", *words):
                raise SourceUnavailable(f"{self._name}: the server says BYE {words!r}")
            case _:
                pass  # "still here", RECENT
        return False

    def _arrivals(self, session: Session) -> bool:
        fetched = session.fetch_range(f"{self._next_uid}:*", "FLAGS")
        new: list[Change] = []
        for uid, items in sorted(fetched.messages.items()):
            if uid < self._next_uid:
                self._flagged({b"UID": uid, **items})
            elif is_deleted(items):
                self._deleted.add(uid)
            else:
                message = self._message(uid)
                new.append(Change(message.ref, ChangeKind.CREATED, message.version))
        self._next_uid = max([self._next_uid, *(uid + 1 for uid in fetched.messages)])
        self._put(new)
        self._gone(fetched.vanished)
        beside = session.unsolicited()
        if "EXPUNGE" in beside:
            self._scan()
        return "EXISTS" in beside

    def _gone(self, ranges: Iterable[range]) -> None:
        uids = [uid for uids in ranges for uid in uids]
        self._deleted.difference_update(uids)
        self._put([Change(self._message(uid).ref, ChangeKind.DELETED) for uid in uids])

    def _flagged(self, items: Mapping[bytes, Any]) -> None:
        r"""Only \Deleted matters, and its end. Without a UID (no CONDSTORE) the mailbox is looked at where it may matter."""
        if b"FLAGS" not in items:
            return
        uid, deleted = items.get(b"UID"), is_deleted(items)
        if uid is None:
            if deleted or self._deleted:
                self._scan()
        elif deleted and uid not in self._deleted:
            self._deleted.add(uid)
            self._put([Change(self._message(uid).ref, ChangeKind.DELETED)])
        elif not deleted and uid in self._deleted:
            self._deleted.discard(uid)
            self._put([Change(self._message(uid).ref, ChangeKind.UPDATED, self._message(uid).version)])

    def _message(self, uid: int) -> MessageName:
        return MessageName(self._name, self._box.uidvalidity, uid)

    def _scan(self) -> None:
        self._put([Change(scope_of(self._name), ChangeKind.SCAN)])
