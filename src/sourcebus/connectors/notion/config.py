"""A Notion source's config and secret, checked without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.credentials import Credentials
from sourcebus.errors import InvalidInput

NOTION_URL = "https://api.notion.com/v1"

_KEYS = ("webhook", "notion_url", "max_bytes")
_WEBHOOK = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Settings:
    """`tokens`: the integration's, newest first. `verification`: what deliveries are signed with, where it is configured.
    `webhook`: the name under which the one that a handshake brings is kept."""

    tokens: tuple[str, ...] = field(repr=False)
    verification: tuple[str, ...] = field(repr=False)
    webhook: str
    notion_url: str
    max_bytes: int

    @property
    def bucket(self) -> str:
        """Notion counts per connection, which is known here by its token only: by a part of the token's hash."""
        return f"notion:{sha256(self.tokens[0].encode()).hexdigest()[:12]}"


def parse(config: Mapping[str, Any], secret: str | None) -> Settings:
    """InvalidInput naming the key that is wrong."""
    refuse_unknown(config, _KEYS)
    credentials = Credentials.parse(secret, ("token", "verification_token"))
    tokens = credentials.all("token")
    if not tokens or not all(token.isascii() and token.isprintable() for token in tokens):
        raise InvalidInput("secret", "has no token", "send the integration's secret; it begins with ntn_ or secret_")
    webhook = config.get("webhook", "webhook")
    if not isinstance(webhook, str) or not _WEBHOOK.fullmatch(webhook):
        raise InvalidInput("config.webhook", "is no name", "send up to 40 letters, digits, - and _")
    return Settings(tokens, credentials.all("verification_token"), webhook, _url(config), _max_bytes(config))


def _url(config: Mapping[str, Any]) -> str:
    url = str(config.get("notion_url", NOTION_URL)).rstrip("/")
    parts = urlsplit(url)
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise InvalidInput("config.notion_url", "is no https address", f"leave it out, or send one such as {NOTION_URL}")
    return url


def _max_bytes(config: Mapping[str, Any]) -> int:
    value = config.get("max_bytes", 16_000_000)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1_000_000_000:
        raise InvalidInput("config.max_bytes", "is no number of bytes", "send a whole number from 1 to 1000000000")
    return value
