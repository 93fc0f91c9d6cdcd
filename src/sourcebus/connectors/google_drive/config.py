"""A Google Drive source's config and secret, checked without asking anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sourcebus.connectors.base import refuse_unknown
from sourcebus.errors import InvalidInput

DRIVE_URL = "https://www.googleapis.com/drive/v3"
TOKEN_URL = "https://oauth2.googleapis.com/token"

_KEYS = ("drive", "folders", "subject", "drive_url", "token_url", "max_bytes")
_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")
_IN_ADDRESS = re.compile(r"https://drive\.google\.com/(?:\S*/)?folders/([A-Za-z0-9_-]+)(?:[?#]\S*)?")
_MAIL = re.compile(r"[^\s@<>]+@[^\s@<>]+\.[^\s@<>]+")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOST_FOLDERS = 50
_KEY_FIX = "send the JSON key file of a service account as Google made it"


@dataclass(frozen=True, slots=True)
class Key:
    """One private key of a service account."""

    email: str
    id: str
    project: str
    private: RSAPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """Who signs in: a service account, by any of its living keys, for itself or for `subject` (domain-wide delegation)."""

    keys: tuple[Key, ...]
    subject: str | None
    token_url: str

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for sources that may share a token."""
        return (self.token_url, self.subject or "", *(f"{key.email} {key.id}" for key in self.keys))

    @property
    def bucket(self) -> str:
        """Google counts per user of a project; a service account is a user too."""
        return f"google_drive:{self.keys[0].project}:{self.subject or self.keys[0].email}".lower()


@dataclass(frozen=True, slots=True)
class Place:
    """What the source is: a shared drive (`drive`) or My Drive (None), whole or only below `folders`."""

    drive: str | None
    folders: frozenset[str]


@dataclass(frozen=True, slots=True)
class Settings:
    account: Account
    place: Place
    drive_url: str
    max_bytes: int


def parse(config: Mapping[str, Any], secret: str | None) -> Settings:
    """InvalidInput naming the key that is wrong; nothing of the secret is ever repeated."""
    refuse_unknown(config, _KEYS)
    keys = _keys(secret)
    subject = config.get("subject")
    if subject is not None and not (isinstance(subject, str) and _MAIL.fullmatch(subject)):
        raise InvalidInput("config.subject", "is no user's address", 'send one such as "ada@example.com"')
    account = Account(keys, subject, _url(config, "token_url", TOKEN_URL))
    drive = _id("config.drive", config["drive"]) if config.get("drive") is not None else None
    return Settings(account, Place(drive, _folders(config)), _url(config, "drive_url", DRIVE_URL), _max_bytes(config))


def is_file_id(text: str) -> bool:
    """Whether it may be an id of Drive's at all; nothing else ever gets into a path or a query."""
    return _ID.fullmatch(text) is not None


def _keys(secret: str | None) -> tuple[Key, ...]:
    if not secret:
        raise InvalidInput("secret", "is missing", _KEY_FIX)
    given = _json(secret)
    if "service_account" in given and "private_key" not in given:
        if len(given) > 1:
            raise InvalidInput("secret", "names more than service_account", 'send {"service_account": [new key, old key]}')
        living = given["service_account"]
        living = cast("list[Any]", living) if isinstance(living, list) else [living]
    else:
        living = [given]
    keys = tuple(_key(one) for one in living)
    if not keys or len({key.email for key in keys}) != 1:
        raise InvalidInput("secret", "has no key, or keys of several accounts", "send the living keys of one service account")
    return keys


def _key(given: Any) -> Key:
    file = _json(given) if isinstance(given, str) else cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    email, pem = file.get("client_email"), file.get("private_key")
    if not (isinstance(email, str) and email and isinstance(pem, str) and pem):
        raise InvalidInput("secret", "has no client_email and private_key", _KEY_FIX)
    private = _private(pem)
    if private is None:
        raise InvalidInput("secret", "has a private_key that is no RSA key in PEM form", _KEY_FIX)
    project = file.get("project_id") or email.partition("@")[2].partition(".")[0]
    return Key(email, str(file.get("private_key_id") or ""), str(project), private)


@lru_cache(maxsize=64)
def _private(pem: str) -> RSAPrivateKey | None:
    """Kept, because to check a key takes 50 ms and hundreds of sources may share one."""
    try:
        private = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        return None
    return private if isinstance(private, RSAPrivateKey) else None


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput("secret", "is no JSON object", _KEY_FIX)
    return cast("dict[str, Any]", value)


def _folders(config: Mapping[str, Any]) -> frozenset[str]:
    given = config.get("folders", [])
    listed = cast("list[Any]", given) if isinstance(given, list) else [given]
    if len(listed) > _MOST_FOLDERS:
        raise InvalidInput("config.folders", f"are more than {_MOST_FOLDERS}", "make several sources of them")
    return frozenset(_id(f"config.folders[{at}]", one) for at, one in enumerate(listed))


def _id(field_name: str, value: Any) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if found := _IN_ADDRESS.fullmatch(text):
        text = found[1]
    if not is_file_id(text):
        raise InvalidInput(field_name, "is no id", "send the id, or the address that the browser shows when it is open")
    return text


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
