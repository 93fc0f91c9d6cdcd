"""A Notion page: which one it is, what its properties say, and how its states are told apart.

Version and fingerprint: docs/decisions/0010-notion-versions.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

JsonPage = Mapping[str, Any]

_SETTLED = timedelta(minutes=2)
"""After this long no edit can get the same ``last_edited_time`` any more: Notion rounds it down to the minute."""

_SIGNED = re.compile(r"(https?://[^\s()\[\]<>\"'?]+)\?[^\s()\[\]<>\"']*(?:X-Amz-|Signature=)[^\s()\[\]<>\"']*")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LISTED = ("multi_select", "people", "files")
_PLAIN = ("number", "url", "email", "phone_number", "checkbox")


def is_ref(text: str) -> bool:
    """Whether it may be a page's reference: its id in the one form that is used here."""
    return _UUID.fullmatch(text) is not None


def ref_of(given: Any) -> str | None:
    """The reference for an id as Notion may write it, with dashes or without; None if it is no id."""
    try:
        return str(UUID(given)) if isinstance(given, str) and len(given) <= 36 else None
    except ValueError:
        return None


def is_page(item: JsonPage) -> bool:
    return item.get("object") == "page" and ref_of(item.get("id")) is not None


def is_trashed(item: JsonPage) -> bool:
    return bool(item.get("in_trash") or item.get("archived"))


def fingerprint_of(page: JsonPage, now: datetime) -> str | None:
    """When it was last edited, once that minute is over by Notion's clock, so that it stands for one content only."""
    edited = page.get("last_edited_time")
    at = time_of(edited)
    return str(edited) if at is not None and now - at >= _SETTLED else None


def time_of(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def version_of(title: str, text: str) -> str:
    return "sha256:" + sha256(f"{title}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def without_signatures(markdown: str) -> str:
    """Addresses of uploaded files are signed anew for each answer, for an hour: without that they last, and compare."""
    return _SIGNED.sub(r"\1", markdown)


def title_of(page: JsonPage) -> str:
    for value in _properties(page).values():
        if value.get("type") == "title":
            return _text(value.get("title"))[:300]
    return ""


def properties_of(page: JsonPage) -> str:
    """What the page's properties say, a line each: for a row of a database that is most of it. Who edited it last and when,
    relations and roll-ups are left out: the first change with every edit, the others are other pages' contents."""
    lines = [f"{name}: {said}" for name, value in _properties(page).items() if (said := _said(value))]
    return "\n".join(lines)


def _properties(page: JsonPage) -> Mapping[str, Mapping[str, Any]]:
    found = page.get("properties")
    if not isinstance(found, dict):
        return {}
    named = cast("dict[str, Any]", found).items()
    return {name: cast("Mapping[str, Any]", value) for name, value in named if isinstance(value, dict)}


def _said(value: Mapping[str, Any]) -> str:
    kind = str(value.get("type", ""))
    inner: Any = value.get(kind)
    if kind == "formula" and isinstance(inner, dict):
        return _said(cast("Mapping[str, Any]", inner))
    if kind in ("string", "boolean", *_PLAIN):
        return "" if inner is None else str(inner)
    if kind == "rich_text":
        return _text(inner)
    if kind in ("select", "status"):
        return _name(inner)
    if kind in _LISTED:
        return ", ".join(filter(None, map(_name, cast("list[Any]", inner) if isinstance(inner, list) else [])))
    if kind in ("date", "unique_id") and isinstance(inner, dict):
        first, second, mark = ("start", "end", " – ") if kind == "date" else ("prefix", "number", "-")
        parts = [cast("Mapping[str, Any]", inner).get(name) for name in (first, second)]
        return mark.join(str(part) for part in parts if part is not None)
    return ""


def _text(rich: Any) -> str:
    spans: Sequence[Any] = cast("list[Any]", rich) if isinstance(rich, list) else []
    return "".join(str(cast("dict[str, Any]", span).get("plain_text", "")) for span in spans if isinstance(span, dict))


def _name(value: Any) -> str:
    return str(cast("dict[str, Any]", value).get("name") or "") if isinstance(value, dict) else ""
