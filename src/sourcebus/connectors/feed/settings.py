"""A source's settings and credentials, checked."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpx

from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.config import number_at
from sourcebus.connectors.credentials import Credentials
from sourcebus.errors import InvalidInput

KEYS = ("url", "full_text", "max_bytes", "timeout_s", "trusted_hubs")
SECRETS = ("websub", "token", "user", "password")


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """See docs/connectors/feed.md."""

    url: str
    full_text: bool
    max_bytes: int
    timeout_s: float
    trusted_hubs: tuple[str, ...]

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> Self:
        """Raises `InvalidInput` naming the key and the fix."""
        refuse_unknown(config, KEYS)
        full_text = config.get("full_text", False)
        if not isinstance(full_text, bool):
            raise InvalidInput("config.full_text", f"is {full_text!r}", "give true or false")
        hubs = config.get("trusted_hubs", [])
        if not isinstance(hubs, list | tuple):
            raise InvalidInput("config.trusted_hubs", f"is {hubs!r}", "give a list of URLs")
        return cls(
            _address(config.get("url"), "config.url"),
            full_text,
            int(number_at(config, "max_bytes", default=20_000_000)),
            number_at(config, "timeout_s", default=30.0),
            tuple(_address(one, "config.trusted_hubs") for one in cast("Sequence[Any]", hubs)),
        )


def authorization(credentials: Credentials) -> dict[str, str]:
    """The header that proves us to the feed's server, if there are credentials."""
    user, password, token = credentials.one("user"), credentials.one("password"), credentials.one("token")
    if (user is None) != (password is None) or (token is not None and user is not None):
        raise InvalidInput("secret", "names no usable credentials", "give user and password, or token")
    if any(char in value for value in (user, password, token) if value for char in "\r\n\0") or ":" in (user or ""):
        raise InvalidInput("secret", "has a line break, or a colon in the user", "give it as the server shows it")
    if token is not None:
        return {"Authorization": f"Bearer {token}"}
    if user is not None:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {}


def _address(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(where, "is missing" if value is None else f"is {value!r}", "give the feed's URL")
    try:
        parts, url = urlsplit(value), httpx.URL(value)
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidInput(where, f"is no URL ({error})", "give one such as https://host/feed.xml") from error
    if parts.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(where, f"is {value!r}", "give one that begins with https://")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(where, "holds credentials", "put them into the secret: user and password, or token")
    return value
