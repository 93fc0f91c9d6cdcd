"""From the bytes of a message (RFC 5322, MIME) to documents: its text, and one for each attachment that has any.

Mail comes from strangers: a broken header, an unknown charset or a part that is not what it says costs that part only.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any, cast

from sourcebus.connectors.cards import CARD_TYPES, card
from sourcebus.connectors.documents import decode, document
from sourcebus.errors import ObjectUnreadable
from sourcebus.model import Document

MAX_PARTS = 500
"""Parts of a message that are looked at, those of forwarded messages among them."""

MAX_DEPTH = 20
"""How deep messages within messages are followed."""

MAX_HEADER_CHARS = 10_000
"""Of one header; a list of ten thousand addresses says nothing to a reader."""

_SHOWN = ("From", "To", "Cc", "Date")
_KEPT = {
    "from": "From",
    "to": "To",
    "cc": "Cc",
    "reply_to": "Reply-To",
    "message_id": "Message-ID",
    "in_reply_to": "In-Reply-To",
    "references": "References",
    "list_id": "List-Id",
}


@dataclass
class _Reading:
    """What has been read so far."""

    documents: list[Document] = field(default_factory=list[Document])
    attachments: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    names: set[str] = field(default_factory=lambda: {""})
    parts: int = 0

    def name(self, wanted: str) -> str:
        """`wanted`, or the next free ``wanted (2)``."""
        name, number = wanted, 1
        while name in self.names:
            number += 1
            name = f"{wanted} ({number})"
        self.names.add(name)
        return name


def documents_of(data: bytes, *, truncated: bool = False) -> list[Document]:
    """The documents of a message, its own text first (`part` ""). Raises `ObjectUnreadable` (``broken``).

    An attachment is a part with a name, a disposition of its own, or no text of the body. One without text (an image) is only
    named in the first document's metadata. `truncated` is told there too.
    """
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        reading = _Reading()
        text = _read(message, reading, "", 0)
    except RecursionError as error:
        raise ObjectUnreadable("broken", "its parts are nested too deep") from error
    metadata = _metadata(message)
    if reading.attachments:
        metadata["attachments"] = reading.attachments
    if truncated:
        metadata["truncated"] = True
    title = _header(message, "Subject") or "(no subject)"
    return [Document(text, title, media_type="message/rfc822", metadata=metadata), *reading.documents]


def _read(message: EmailMessage, reading: _Reading, path: str, depth: int) -> str:
    """The message's head and body as text; its attachments go to `reading`, their names below `path`."""
    plain: list[str] = []
    html: list[str] = []
    for part, alternative in _leaves(message):
        reading.parts += 1
        if reading.parts > MAX_PARTS:
            break
        kind = part.get_content_type()
        if kind == "message/rfc822":
            _forwarded(part, reading, path, depth)
        elif kind in ("text/plain", "text/html") and not _is_attachment(part):
            (plain if kind == "text/plain" else html).append(_text(part))
        elif not (alternative and kind.startswith("text/") and kind not in CARD_TYPES):
            _attachment(part, reading, path)
    body = "\n\n".join(filter(str.strip, plain)) or "\n\n".join(filter(str.strip, map(_from_html, html)))
    head = [f"{name}: {value}" for name in _SHOWN if (value := _header(message, name))]
    return "\n".join(head) + ("\n\n" if head and body else "") + body


def _leaves(message: EmailMessage, alternative: bool = False) -> Iterator[tuple[EmailMessage, bool]]:
    """The parts that hold something, forwarded messages whole; and whether others beside them say the same."""
    if not message.is_multipart() or message.get_content_type() == "message/rfc822":
        yield message, alternative
        return
    for part in cast("list[EmailMessage]", message.get_payload()):
        yield from _leaves(part, alternative or message.get_content_type() == "multipart/alternative")


def _is_attachment(part: EmailMessage) -> bool:
    return _quietly(part.get_content_disposition) == "attachment" or bool(_filename(part))


def _forwarded(part: EmailMessage, reading: _Reading, path: str, depth: int) -> None:
    inner = part.get_payload()
    message = cast("list[EmailMessage]", inner)[0] if isinstance(inner, list) and inner else None
    if message is None or depth >= MAX_DEPTH:
        return
    title = _header(message, "Subject") or "(no subject)"
    name = reading.name(path + (_filename(part) or f"{title[:120]}.eml"))
    text = _read(message, reading, f"{name}/", depth + 1)
    reading.documents.append(Document(text, title, part=name, media_type="message/rfc822", metadata=_metadata(message)))


def _attachment(part: EmailMessage, reading: _Reading, path: str) -> None:
    kind = part.get_content_type()
    name = reading.name(path + (_filename(part) or f"part {reading.parts}{_SUFFIXES.get(kind, '')}"))
    data = _payload(part)
    told: dict[str, Any] = {"name": name, "media_type": kind, "bytes": len(data)}
    try:
        found = card(name, data) if kind in CARD_TYPES else document(_with_suffix(name, kind), data)
    except ObjectUnreadable as unreadable:
        told["unreadable"] = unreadable.reason
    else:
        metadata = dict(found.metadata) | {"media_type": kind}
        reading.documents.append(Document(found.text, found.title or name, name, found.media_type, metadata))
    reading.attachments.append(told)


_SUFFIXES = {"text/html": ".html", "text/plain": ".txt", "text/calendar": ".ics", "text/vcard": ".vcf", "text/csv": ".csv"}


def _with_suffix(name: str, kind: str) -> str:
    """What a part without a telling name is, its declared type says."""
    suffix = _SUFFIXES.get(kind, "")
    return name if not suffix or "." in name.rpartition("/")[2] else name + suffix


def _payload(part: EmailMessage) -> bytes:
    """The part's bytes, decoded as far as they can be."""
    try:
        data = part.get_payload(decode=True)
    except (ValueError, LookupError, AssertionError):
        data = part.get_payload()
    return data if isinstance(data, bytes) else str(data or "").encode("utf-8", "surrogateescape")


def _text(part: EmailMessage) -> str:
    """In the charset that the part declares; where that is wrong or unknown, in what it looks like."""
    data = _payload(part)
    charset = _quietly(part.get_content_charset)
    if charset and charset not in ("unknown-8bit", "us-ascii"):
        try:
            return data.decode(charset).replace("\0", "").replace("\r\n", "\n")
        except (LookupError, UnicodeError, ValueError):
            pass  # guessed below
    try:
        return decode(data)[0].replace("\r\n", "\n")
    except ObjectUnreadable:
        return ""


def _from_html(text: str) -> str:
    try:
        return document("body.html", text.encode("utf-8", "replace")).text
    except ObjectUnreadable:
        return ""


def _filename(part: EmailMessage) -> str:
    """Its last component, without control characters: a name is shown, never used as a path."""
    name = str(_quietly(part.get_filename) or "").replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in _clean(name) if char.isprintable())[:255].strip()


def _metadata(message: EmailMessage) -> dict[str, Any]:
    found: dict[str, Any] = {key: value for key, name in _KEPT.items() if (value := _header(message, name))}
    if (sent := _header(message, "Date")) and (at := _date(sent)):
        found["date"] = at
    return found


def _date(text: str) -> str | None:
    try:
        return parsedate_to_datetime(text).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _header(message: EmailMessage, name: str) -> str:
    """A header as text, "" where there is none. The parser of the standard library fails on some broken ones."""
    value = _quietly(lambda: message[name])
    if value is None:
        raw = next((text for key, text in message.raw_items() if key.lower() == name.lower()), "")
        value = str(raw)
    return " ".join(_clean(str(value)).split())[:MAX_HEADER_CHARS]


def _quietly(ask: Any) -> Any:
    try:
        return ask()
    except Exception:  # noqa: BLE001  what the header parser raises for broken headers is its own affair, and varies by version
        return None


def _clean(text: str) -> str:
    """Text that every database stores: bytes that were no text, kept as surrogates, become replacement characters."""
    return text.encode("utf-8", "replace").decode("utf-8", "replace").replace("\0", "")
