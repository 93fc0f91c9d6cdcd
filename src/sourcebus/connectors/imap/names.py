"""Names: the reference of a message, the scope that is a mailbox, and which mailboxes a source takes.

A reference is the path of the message's IMAP URL (RFC 5092 §3): ``INBOX;UIDVALIDITY=1717171717/;UID=42``. A mailbox and a UID
under one UIDVALIDITY name the same message for ever (RFC 3501 §2.3.1.1). Letters beyond ASCII stay as they are; ``%``, ``;``
and control characters of a mailbox's name are percent-encoded, so no reference begins like one of another mailbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

_REF = re.compile(r"(?P<scope>[^;]+);UIDVALIDITY=(?P<uidvalidity>[1-9][0-9]{0,9})/;UID=(?P<uid>[1-9][0-9]{0,9})", re.ASCII)
_ENCODED = re.compile(r"[%;\x00-\x1f\x7f]")
_MARK = ";UIDVALIDITY="


@dataclass(frozen=True, slots=True)
class MessageName:
    """One message: its mailbox (decoded from modified UTF-7), and the pair of numbers that never means another one."""

    mailbox: str
    uidvalidity: int
    uid: int

    @property
    def ref(self) -> str:
        return f"{prefix_of(self.mailbox)}{self.uidvalidity}/;UID={self.uid}"

    @property
    def version(self) -> str:
        """A message never changes, so its name is its version. Flags do not count: they are not in the text."""
        return f"{self.uidvalidity}.{self.uid}"


def parse_ref(ref: str) -> MessageName | None:
    """The message of that name; None for what no message is ever called."""
    match = _REF.fullmatch(ref)
    if match is None:
        return None
    name = MessageName(unquote(match["scope"]), int(match["uidvalidity"]), int(match["uid"]))
    return name if name.ref == ref else None


def scope_of(mailbox: str) -> str:
    """The scope that is this mailbox, without those below it."""
    return _ENCODED.sub(lambda found: f"%{ord(found[0]):02X}", mailbox)


def mailbox_of(scope: str) -> str:
    return unquote(scope)


def prefix_of(mailbox: str) -> str:
    """What the references of a mailbox's messages begin with, and no others."""
    return scope_of(mailbox) + _MARK


class Mailboxes:
    """Which mailboxes a source takes: those that an `include` pattern matches and no `exclude` pattern does, without those
    whose special use (RFC 6154) is in `skip`.

    Patterns are those of the IMAP command LIST: ``*`` is anything, ``%`` anything within one level. INBOX may be in any case.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str], skip: Sequence[str]) -> None:
        self._include, self._exclude = tuple(include), tuple(exclude)
        self._skip = frozenset(f"\\{word}".lower() for word in skip)

    def takes(self, mailbox: str, delimiter: str, attributes: Sequence[str]) -> bool:
        held = {attribute.lower() for attribute in attributes}
        if held & {"\\noselect", "\\nonexistent"} or held & self._skip:
            return False
        if any(_matches(pattern, mailbox, delimiter) for pattern in self._exclude):
            return False
        return not self._include or any(_matches(pattern, mailbox, delimiter) for pattern in self._include)


def _matches(pattern: str, mailbox: str, delimiter: str) -> bool:
    if pattern.upper() == "INBOX":
        return mailbox.upper() == "INBOX"
    level = f"[^{re.escape(delimiter)}]*" if delimiter else ".*"
    parts = [{"*": ".*", "%": level}.get(char, re.escape(char)) for char in pattern]
    return re.fullmatch("".join(parts), mailbox, re.DOTALL) is not None


def uids_of(text: str) -> Iterator[range]:
    """The ranges of a ``sequence-set`` without ``*`` (RFC 9051 §9): ``4,7:9`` → 4, 7 to 9."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition(":")
        low, high = sorted((int(first), int(last or first)))
        yield range(low, high + 1)
