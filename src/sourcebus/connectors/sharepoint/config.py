"""A SharePoint source's config, checked without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.credentials import Credentials
from sourcebus.errors import InvalidInput

GRAPH_URL = "https://graph.microsoft.com/v1.0"
AUTHORITY = "https://login.microsoftonline.com"

_KEYS = ("tenant", "client_id", "drive", "site", "library", "user", "graph_url", "authority", "user_agent", "max_bytes")
_PLACES = ("drive", "site", "user")
_ID = re.compile(r"[A-Za-z0-9!_.~-]{1,256}")
_AGENT = re.compile(r"(NON)?ISV\|[^|\s/][^|/]*\|[^|/]+/[\w.+-]+")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Place:
    """What the source is: one drive by id, a user's OneDrive, or a site's libraries (`library`: only that one)."""

    drive: str | None
    user: str | None
    site: str | None
    library: str | None


@dataclass(frozen=True, slots=True)
class App:
    """Who signs in, and where. Sources of one tenant and app share a quota and a token."""

    tenant: str
    client_id: str
    secrets: tuple[str, ...]
    authority: str
    graph_url: str

    @property
    def bucket(self) -> str:
        return f"graph:{self.tenant}:{self.client_id}".lower()

    def __repr__(self) -> str:
        return f"App({self.tenant}, {self.client_id})"


@dataclass(frozen=True, slots=True)
class Settings:
    app: App
    place: Place
    user_agent: str
    max_bytes: int


def parse(config: Mapping[str, Any], secret: str | None) -> Settings:
    """InvalidInput naming the key that is wrong."""
    refuse_unknown(config, _KEYS)
    secrets = Credentials.parse(secret, ("client_secret",)).all("client_secret")
    if not secrets:
        raise InvalidInput("secret", "is missing", "send the app's client secret (its value, not its id)")
    app = App(
        _text(config, "tenant", "the directory (tenant) id, or a domain of it"),
        _text(config, "client_id", "the application (client) id"),
        secrets,
        _url(config, "authority", AUTHORITY),
        _url(config, "graph_url", GRAPH_URL),
    )
    agent = config.get("user_agent", f"NONISV|sourcebus|sourcebus/{version('sourcebus')}")
    if not isinstance(agent, str) or not _AGENT.fullmatch(agent):
        raise InvalidInput(
            "config.user_agent", "is not what SharePoint asks for", 'send "ISV|Company|App/1.0" or "NONISV|Company|App/1.0"'
        )
    return Settings(app, _place(config), agent, _max_bytes(config))


def is_graph_id(text: str) -> bool:
    """Whether it may be the id of a drive or an item at all; nothing else ever gets into a path."""
    return _ID.fullmatch(text) is not None and text.strip(".") != ""


def _place(config: Mapping[str, Any]) -> Place:
    given = [key for key in _PLACES if key in config]
    if len(given) != 1:
        problem = "is missing" if not given else "does not go with " + " and ".join(given[1:])
        raise InvalidInput(f"config.{given[0] if given else 'site'}", problem, "name one of drive, site, user")
    if "library" in config and given != ["site"]:
        raise InvalidInput("config.library", "needs a site", 'name the site: "site": "contoso.sharepoint.com/sites/team"')
    drive = _text(config, "drive", "a drive's id") if "drive" in config else None
    if drive is not None and not is_graph_id(drive):
        raise InvalidInput("config.drive", "is no drive id", "send an id as Graph gives it, such as b!-RIj2DuyvEyV1T4NlOaMHk8")
    site = _site(_text(config, "site", "a site's address")) if "site" in config else None
    user = _text(config, "user", "a user principal name or id") if "user" in config else None
    return Place(drive, user, site, _text(config, "library", "a library's name") if "library" in config else None)


def _site(given: str) -> str:
    """How Graph addresses the site: ``host:/path``, ``host`` for the root site, or an id of three parts."""
    if given.count(",") == 2:
        return given
    host, _, path = re.sub(r"^https?://", "", given).strip("/").partition("/")
    if not re.fullmatch(r"[A-Za-z0-9.-]+\.[A-Za-z0-9-]+", host) or "?" in path or "#" in path:
        raise InvalidInput("config.site", "is no site's address", 'send "contoso.sharepoint.com/sites/team"')
    return f"{host}:/{path}" if path else host


def _text(config: Mapping[str, Any], key: str, what: str) -> str:
    value = config.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"config.{key}", "is missing" if value is None else "is no text", f"send {what}")
    return value.strip()


def _url(config: Mapping[str, Any], key: str, default: str) -> str:
    url = str(config.get(key, default)).rstrip("/")
    parts = urlsplit(url)
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise InvalidInput(f"config.{key}", "is no https address", f"send one such as {default}")
    return url


def _max_bytes(config: Mapping[str, Any]) -> int:
    value = config.get("max_bytes", 64_000_000)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1_000_000_000:
        raise InvalidInput("config.max_bytes", "is no number of bytes", "send a whole number from 1 to 1000000000")
    return value
