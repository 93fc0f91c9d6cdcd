"""What a filesystem says of a file, and what it is worth: a version, a fingerprint, or nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

STRONG: Mapping[str, tuple[str, ...]] = {
    "s3": ("ETag",),
    "s3a": ("ETag",),
    "gs": ("generation", "md5Hash"),
    "gcs": ("generation", "md5Hash"),
    "abfs": ("etag",),
    "az": ("etag",),
    "github": ("sha",),
    "git": ("hex",),
    "dropbox": ("content_hash",),
    "hf": ("blob_id",),
}
"""By protocol, the fields of `info` that differ for any two contents. No other is believed: many are made of dates."""

_MODIFIED = ("mtime", "modified", "modify", "LastModified", "last_modified", "updated", "date_time")
_YOUNG_S = 5.0
"""Dates may be in whole seconds, and by another clock. A younger one proves nothing yet."""


def version_of(protocol: str, info: Mapping[str, Any]) -> str | None:
    """The strong token, if this protocol gives one; None where only the content tells."""
    for name in STRONG.get(protocol, ()):
        value = info.get(name)
        if value is not None and not str(value).startswith("W/"):
            return f"{name} {value}".replace('"', "")
    return None


def fingerprint_of(info: Mapping[str, Any], now_s: float | None = None) -> str | None:
    """Size, date and inode, where they prove something; None while the date is young, or is none."""
    for name in _MODIFIED:
        modified = info.get(name)
        modified_s = seconds(modified)
        if modified_s is None:
            continue
        if (time.time() if now_s is None else now_s) - modified_s < _YOUNG_S:
            return None
        return f"{info.get('size')} {modified} {info.get('ino', '')}"
    return None


def unread_version(info: Mapping[str, Any]) -> str:
    """Of a file that is too long to be read: only what is said of it."""
    dated = next((info[name] for name in _MODIFIED if name in info), "")
    return f"unread {info.get('size')} {dated}"


def seconds(value: Any) -> float | None:
    """A date of any filesystem as seconds since the epoch: a number, a datetime, ISO 8601, or FTP's ``YYYYMMDDHHMMSS``."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, tuple):
        return _from_fields(*value)
    try:
        at = value if isinstance(value, datetime) else _parsed(str(value))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _parsed(text: str) -> datetime:
    if text[:14].isdecimal() and len(text) >= 14:
        return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return datetime.fromisoformat(text)


def _from_fields(*fields: Any) -> float | None:
    """An archive's date: year, month, day, hour, minute, second, in no time zone that is known."""
    try:
        return datetime(*fields, tzinfo=UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def hash_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
