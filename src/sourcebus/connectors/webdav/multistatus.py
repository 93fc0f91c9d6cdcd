"""The XML of WebDAV: what is asked (PROPFIND, REPORT sync-collection) and the 207 Multi-Status that answers.

Answers come from outside: a document type declaration, and with it every entity trick, is refused unread (defusedxml).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from sourcebus.errors import SourceUnavailable

_DAV = "{DAV:}"
_PROPERTIES = "<D:resourcetype/><D:getetag/><D:getcontentlength/><D:getlastmodified/>"

_HEAD = '<?xml version="1.0" encoding="utf-8"?>'
_PROPFIND = _HEAD + '<D:propfind xmlns:D="DAV:"><D:prop>{}</D:prop></D:propfind>'

PROPFIND_MEMBERS = _PROPFIND.format(_PROPERTIES).encode()
PROPFIND_COLLECTION = _PROPFIND.format(_PROPERTIES + "<D:sync-token/>").encode()


def sync_collection(token: str) -> bytes:
    """What changed since `token` ("": everything), one level deep (RFC 6578 §3.2)."""
    return (
        f'{_HEAD}<D:sync-collection xmlns:D="DAV:">'
        f"<D:sync-token>{escape(token)}</D:sync-token><D:sync-level>1</D:sync-level><D:prop>{_PROPERTIES}</D:prop>"
        "</D:sync-collection>"
    ).encode()


@dataclass(frozen=True, slots=True)
class Response:
    """One href of an answer. `status` is of the resource itself, 200 where its properties were found."""

    href: str
    status: int
    is_collection: bool = False
    etag: str | None = None
    length: int | None = None
    modified: str | None = None
    sync_token: str | None = None


@dataclass(frozen=True, slots=True)
class Multistatus:
    """`sync_token` goes on from here (RFC 6578 §3.6)."""

    responses: Sequence[Response]
    sync_token: str | None = None


def parse_multistatus(body: bytes) -> Multistatus:
    """Raises `SourceUnavailable` for what is no multistatus: a proxy's page, half an answer, an entity bomb."""
    root = _tree(body)
    if root is None or root.tag != f"{_DAV}multistatus":
        raise SourceUnavailable("the answer is no WebDAV multistatus: is config.url a WebDAV collection?")
    responses = [one for element in root.iterfind(f"{_DAV}response") for one in _responses(element)]
    return Multistatus(responses, _text(root.find(f"{_DAV}sync-token")))


def names_precondition(body: bytes, name: str) -> bool:
    """Whether a 403 or 409 says that this precondition failed (RFC 4918 §16)."""
    try:
        root = _tree(body)
    except SourceUnavailable:
        return False
    return root is not None and root.tag == f"{_DAV}error" and root.find(f"{_DAV}{name}") is not None


def _tree(body: bytes) -> Any:
    try:
        return SafeTree.fromstring(body, forbid_dtd=True)
    except (DefusedXmlException, SafeTree.ParseError, ValueError, LookupError) as error:
        raise SourceUnavailable(f"the answer is no XML that can be read ({type(error).__name__}: {error})"[:300]) from error


def _responses(element: Any) -> Iterable[Response]:
    hrefs = [text for href in element.iterfind(f"{_DAV}href") if (text := _text(href))]
    own = _status(element.find(f"{_DAV}status"))
    if own is not None:
        return [Response(href, own) for href in hrefs]
    found: dict[str, Any] = {}
    for propstat in element.iterfind(f"{_DAV}propstat"):
        if (_status(propstat.find(f"{_DAV}status")) or 200) // 100 == 2:
            found |= {prop.tag: prop for prop in propstat.find(f"{_DAV}prop") or ()}
    kind = found.get(f"{_DAV}resourcetype")
    length = _text(found.get(f"{_DAV}getcontentlength")) or ""
    return [
        Response(
            href,
            200,
            is_collection=kind is not None and kind.find(f"{_DAV}collection") is not None,
            etag=_text(found.get(f"{_DAV}getetag")),
            length=int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None,
            modified=_text(found.get(f"{_DAV}getlastmodified")),
            sync_token=_text(found.get(f"{_DAV}sync-token")),
        )
        for href in hrefs
    ]


def _status(element: Any) -> int | None:
    """``HTTP/1.1 404 Not Found`` → 404."""
    words = (_text(element) or "").split()
    return int(words[1]) if len(words) > 1 and words[1].isascii() and words[1].isdecimal() else None


def _text(element: Any) -> str | None:
    text = "" if element is None or element.text is None else str(element.text).strip()
    return text or None
