"""What is in the mailboxes, and what changed in them since a cursor.

A cursor keeps four numbers per mailbox: UIDVALIDITY, HIGHESTMODSEQ, UIDNEXT and the number of messages. With QRESYNC
(RFC 7162) the server names what is new and what is gone. With CONDSTORE alone, or without, it names what is new; that
something is gone shows in the number of messages, and then the mailbox is listed as a whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import structlog

from sourcebus.connectors.imap.names import Mailboxes, MessageName, mailbox_of, scope_of
from sourcebus.connectors.imap.pool import Pool
from sourcebus.connectors.imap.session import AnswerTooLong, Fetched, Mailbox, NoMailbox, Session
from sourcebus.errors import CursorExpired, SourceUnavailable
from sourcebus.model import MAX_REF_BYTES, WHOLE_SOURCE, Change, ChangeKind, Cursor

PAGE = 5_000
"""Messages of a mailbox asked for at a time, in a whole listing. About 300 kB of answers."""

_DELTA_PAGE = 100_000
"""In a delta only what changed is answered, so more may be asked for at a time."""

_LISTED_S = 60.0

_CURSOR_VERSION = 1

_log = structlog.get_logger(__name__)


@dataclass
class Progress:
    """What a cursor says: the mailboxes as they were when last listed, and how far a whole listing has come.

    `whole` until a listing of everything has ended; then `part`, if any, is a mailbox listed up to the UID `upto`.
    """

    boxes: dict[str, Mailbox] = field(default_factory=dict[str, Mailbox])
    whole: bool = True
    part: tuple[str, Mailbox] | None = None
    upto: int = 0

    def dump(self) -> str:
        said: dict[str, Any] = {"v": _CURSOR_VERSION, "boxes": {name: _numbers(box) for name, box in self.boxes.items()}}
        if self.whole:
            said["whole"] = [self.part[0], _numbers(self.part[1]), self.upto] if self.part else True
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, cursor: str | None) -> Progress:
        if cursor is None:
            return cls()
        try:
            said = cast("dict[str, Any]", json.loads(cursor))
            if said["v"] != _CURSOR_VERSION:
                raise ValueError(f"is of version {said['v']}")
            boxes = {str(name): Mailbox(*numbers) for name, numbers in said["boxes"].items()}
            whole = said.get("whole", False)
            if isinstance(whole, list):
                name, numbers, upto = cast("list[Any]", whole)
                return cls(boxes, True, (str(name), Mailbox(*numbers)), int(upto))
            return cls(boxes, bool(whole))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CursorExpired(f"the cursor cannot be read ({type(error).__name__}: {error})") from error


def _numbers(box: Mailbox) -> list[int | None]:
    return [box.uidvalidity, box.uidnext, box.exists, box.modseq]


class Listing:
    """Lists through the pool, page by page; between two pages it holds no connection."""

    def __init__(self, pool: Pool, mailboxes: Mailboxes, page: int = PAGE) -> None:
        self._pool, self._mailboxes, self._page = pool, mailboxes, page
        self._held: tuple[float, frozenset[str]] = (0.0, frozenset())

    def changes(self, cursor: str | None, scope: str) -> Iterator[Change | Cursor]:
        progress = Progress.parse(cursor)
        if scope != WHOLE_SOURCE:
            return self._mailbox(mailbox_of(scope), progress)
        return self._everything(progress) if progress.whole else self._delta(progress)

    def names(self) -> list[str]:
        """The mailboxes that the source takes, INBOX first."""
        with self._pool.session() as session:
            return self.names_by(session)

    def names_by(self, session: Session) -> list[str]:
        listed = session.list_mailboxes()
        taken = {name for name, delimiter, attributes in listed if self._mailboxes.takes(name, delimiter, attributes)}
        taken = {"INBOX" if name.upper() == "INBOX" else name for name in taken}
        return sorted((name for name in taken if _fits(name)), key=lambda name: (name != "INBOX", name))

    def holds(self, session: Session, mailbox: str) -> bool:
        """Whether the mailbox exists and the source takes it. Yes may be a minute old, no is what LIST says now."""
        asked_s, held = self._held
        if mailbox not in held or time.monotonic() - asked_s > _LISTED_S:
            held = frozenset(self.names_by(session))
            self._held = (time.monotonic(), held)
        return mailbox in held

    # everything

    def _everything(self, progress: Progress) -> Iterator[Change | Cursor]:
        if progress.part is not None:
            self._check_part(progress.part)
        complete = True
        for name in self.names():
            if name in progress.boxes:
                continue
            try:
                yield from self._whole(name, progress)
            except NoMailbox as error:
                if name in self.names():
                    complete = False
                    _log.warning("connectors.mailbox_unreadable", mailbox=name, error=str(error))
        progress.whole, progress.part = False, None
        yield Cursor(progress.dump(), complete=complete)

    def _check_part(self, part: tuple[str, Mailbox]) -> None:
        name, box = part
        with self._pool.session() as session:
            try:
                now = session.examine(name)
            except NoMailbox as error:
                raise CursorExpired(f"{name} cannot be opened any more, and was listed in part") from error
        if now.uidvalidity != box.uidvalidity:
            raise CursorExpired(f"{name} was listed in part, and is another mailbox of that name now")

    def _whole(self, name: str, progress: Progress) -> Iterator[Change | Cursor]:
        """Every message of a mailbox. What changes meanwhile is newer than the numbers taken at its beginning."""
        with self._pool.session() as session:
            box = session.examine(name)
            bounds = _bounds(session, box, self._page)
        begun = progress.part is not None and progress.part[0] == name
        if begun and progress.part is not None:
            box = progress.part[1]
        upto, progress.part = (progress.upto if begun else 0), (name, box)
        for low, high in _windows(bounds, box.uidnext - 1):
            if high <= upto:
                continue
            page = self._fetch(name, box, max(low, upto + 1), high)
            yield from (_change(name, box, uid, items) for uid, items in page.items() if not is_deleted(items))
            progress.upto = high
            if high < box.uidnext - 1:
                yield Cursor(progress.dump())
        progress.boxes[name], progress.part, progress.upto = box, None, 0
        yield Cursor(progress.dump())

    def _fetch(self, name: str, box: Mailbox, low: int, high: int) -> Mapping[int, Mapping[bytes, Any]]:
        with self._pool.session() as session:
            if session.examine(name).uidvalidity != box.uidvalidity:
                raise SourceUnavailable(f"{name} was replaced by another mailbox of that name while it was listed")
            return _asked_for(session.fetch_range(f"{low}:{high}", "FLAGS"), low, high)

    # one mailbox

    def _mailbox(self, name: str, progress: Progress) -> Iterator[Change | Cursor]:
        if name not in self.names():
            yield Cursor(None, complete=True)
            return
        if not progress.whole and name in progress.boxes:
            delta = self._delta_of(name, progress.boxes[name])
            if delta.replaced:
                raise CursorExpired(f"{name} has another UIDVALIDITY: none of its messages is known any more")
            if delta.told:
                yield from delta.changes
                yield Cursor(Progress({name: delta.box}, whole=False).dump())
                return
            progress = Progress()
        if progress.part is not None:
            self._check_part(progress.part)
        if name not in progress.boxes:
            yield from self._whole(name, progress)
        yield Cursor(Progress({name: progress.boxes[name]}, whole=False).dump(), complete=True)

    # what changed

    def _delta(self, progress: Progress) -> Iterator[Change | Cursor]:
        """Of every mailbox. One that is new, gone, replaced, or whose deletes cannot be told, gets a scan of its own."""
        names = self.names()
        for name in sorted(progress.boxes.keys() - set(names)):
            yield Change(scope_of(name), ChangeKind.SCAN)
            del progress.boxes[name]
        for name in names:
            known = progress.boxes.get(name)
            try:
                delta = self._delta_of(name, known)
            except NoMailbox as error:
                _log.warning("connectors.mailbox_unreadable", mailbox=name, error=str(error))
                continue
            if delta.replaced or not delta.told:
                yield Change(scope_of(name), ChangeKind.SCAN)
            elif delta.box == known:
                continue
            yield from delta.changes
            progress.boxes[name] = delta.box
            yield Cursor(progress.dump())
        yield Cursor(progress.dump())

    def _delta_of(self, name: str, known: Mailbox | None) -> _Delta:
        box: Mailbox | None = None
        try:
            with self._pool.session() as session:
                box = session.examine(name)
                if known is None or box.uidvalidity != known.uidvalidity:
                    return _Delta(box, (), replaced=True)
                return _Delta(box, ()) if box == known else _changed(session, name, known, box)
        except AnswerTooLong:
            if box is None:
                raise
            return _Delta(box, (), told=False)


@dataclass(frozen=True, slots=True)
class _Delta:
    """What changed in a mailbox until it was as `box` says. `told` is False where something is gone that nobody can name."""

    box: Mailbox
    changes: Sequence[Change]
    told: bool = True
    replaced: bool = False


def _changed(session: Session, name: str, known: Mailbox, box: Mailbox) -> _Delta:
    by_modseq = known.modseq is not None and box.modseq is not None
    vanishing = by_modseq and session.qresync
    modifiers = f"CHANGEDSINCE {known.modseq}{' VANISHED' if vanishing else ''}" if by_modseq else ""
    lowest = 1 if by_modseq else known.uidnext
    changes: list[Change] = []
    vanished: list[range] = []
    arrived = 0
    for low, high in _windows(_bounds(session, box, _DELTA_PAGE), box.uidnext - 1):
        if high < lowest:
            continue
        fetched = session.fetch_range(f"{max(low, lowest)}:{high}", "FLAGS", modifiers)
        messages = _asked_for(fetched, max(low, lowest), high)
        arrived += sum(uid >= known.uidnext for uid in messages)
        changes += [_change(name, box, uid, items, known.uidnext) for uid, items in messages.items()]
        vanished += fetched.vanished
    if vanishing:
        # A server that has forgotten what was expunged names every UID that is free (RFC 7162 §3.2.5.2).
        told = sum(map(len, vanished)) <= known.exists + box.uidnext - known.uidnext
        gone = [uid for uids in vanished for uid in uids] if told else []
        changes += [Change(MessageName(name, box.uidvalidity, uid).ref, ChangeKind.DELETED) for uid in gone]
    else:
        told = known.exists + arrived == box.exists
    return _Delta(box, changes, told)


def _bounds(session: Session, box: Mailbox, page: int) -> list[int]:
    """The UID of every `page`-th message, so that a page holds that many, however sparse the UIDs are."""
    if box.exists <= page:
        return []
    wanted = range(page + 1, box.exists + 1, page)
    return sorted(session.uids_at(wanted))


def _windows(bounds: Sequence[int], last: int) -> Iterator[tuple[int, int]]:
    """The UIDs from 1 to `last`, cut before each of `bounds`."""
    for low, high in zip([1, *bounds], [*(bound - 1 for bound in bounds), last], strict=True):
        if low <= high:
            yield low, high


def _asked_for(fetched: Fetched, low: int, high: int) -> Mapping[int, Mapping[bytes, Any]]:
    """Without what the server said of other messages meanwhile, and of none by its UID."""
    return {uid: items for uid, items in fetched.messages.items() if low <= uid <= high and b"FLAGS" in items}


def _change(name: str, box: Mailbox, uid: int, items: Mapping[bytes, Any], next_known: int = 0) -> Change:
    message = MessageName(name, box.uidvalidity, uid)
    if is_deleted(items):
        return Change(message.ref, ChangeKind.DELETED)
    kind = ChangeKind.CREATED if next_known and uid >= next_known else ChangeKind.UPDATED
    return Change(message.ref, kind, message.version)


def is_deleted(items: Mapping[bytes, Any]) -> bool:
    r"""Marked \Deleted (RFC 3501 §2.3.2): gone for its reader, though not expunged yet."""
    return any(flag.lower() == b"\\deleted" for flag in cast("Sequence[bytes]", items.get(b"FLAGS", ())))


def _fits(mailbox: str) -> bool:
    """Whether references of its messages are short enough. Such a mailbox cannot be made on most servers."""
    return len(MessageName(mailbox, 2**32 - 1, 2**32 - 1).ref.encode("utf-8", "surrogatepass")) <= MAX_REF_BYTES
