"""Asking a feed's server: conditionally, and knowing what its answers mean for the whole source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx

from sourcebus.connectors.feed.entries import Feed
from sourcebus.connectors.http import meaning
from sourcebus.errors import ConnectorError, NeedsAuth, SourceUnavailable, Throttled

_CONDITIONS = ("If-None-Match", "If-Modified-Since")
_PARAMETER = r"\s*;\s*([\w!#$&+.^`|~-]+)(?:\s*=\s*(\"[^\"]*\"|[^\s\",;]+))?"
_LINK = re.compile(rf"<([^<>]*)>((?:{_PARAMETER})*)")
_PARAMETERS = re.compile(_PARAMETER)


@dataclass(frozen=True, slots=True)
class Look:
    """What the server said when it was last asked, and what to ask it with next."""

    feed: Feed
    validators: Mapping[str, str] = field(default_factory=dict[str, str])
    links: tuple[tuple[str, str], ...] = ()
    """Relation and address of each ``Link`` header."""


def refusal(response: httpx.Response) -> ConnectorError | None:
    """What the feed's own server means: whatever it says is about the whole source, never about one entry."""
    said = f"{response.request.method} {response.request.url.copy_with(query=None)}: HTTP {response.status_code}"
    if response.status_code in (401, 403):
        return NeedsAuth(f"{said}. Check the credentials")
    if response.status_code == 410:
        return SourceUnavailable(f"{said}: the feed has ended. Nothing is deleted from the index; remove the source to do that")
    by_http = meaning(response)
    return by_http if isinstance(by_http, Throttled) else SourceUnavailable(said)


def validators_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What makes the next request conditional (RFC 9110, 13.1): the ETag, or a modification time that can be trusted.

    A feed may change twice within the second that Last-Modified tells, so it proves something only once that second was
    over when the answer was made (RFC 9110, 8.8.2.2).
    """
    if etag := headers.get("etag"):
        return {"If-None-Match": etag}
    try:
        modified = parsedate_to_datetime(headers["last-modified"])
        if (parsedate_to_datetime(headers["date"]) - modified).total_seconds() > 1:
            return {"If-Modified-Since": headers["last-modified"]}
    except (KeyError, ValueError, TypeError):
        pass  # none, or none that can be read
    return {}


def cursor_of(look: Look, full_text: bool) -> str:
    """What `validators_in` reads again."""
    return json.dumps({**look.validators, "full_text": full_text}, sort_keys=True)


def validators_in(cursor: str, full_text: bool) -> dict[str, str]:
    """Those of a cursor; none, which lists everything, where it is none of ours or other settings made it."""
    try:
        found = json.loads(cursor)
    except (ValueError, RecursionError):
        return {}
    known = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if known.get("full_text") is not full_text:
        return {}
    return {name: str(known[name]) for name in _CONDITIONS if isinstance(known.get(name), str)}


def links(response: httpx.Response) -> Iterator[tuple[str, str]]:
    """Relation and target of every ``Link`` header (RFC 8288)."""
    for target, parameters, *_ in _LINK.findall(response.headers.get("link", "")):
        named = [value.strip('"') for name, value in _PARAMETERS.findall(parameters) if name.lower() == "rel"]
        yield from ((one.lower(), target) for one in (named[0] if named else "").split())
