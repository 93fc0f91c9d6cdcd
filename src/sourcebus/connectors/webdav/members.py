"""What a listing says of one object, and how far it can be believed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from sourcebus.connectors.webdav.multistatus import Response
from sourcebus.model import Change, ChangeKind

YOUNG_S = 2.0
"""Dates are in whole seconds. Until two have passed a second change may leave date, length and a date-made ETag as they are."""


@dataclass(frozen=True, slots=True)
class Member:
    """An object as the server described it at `seen_s` of its own clock (None: it did not say)."""

    ref: str
    etag: str | None
    length: int | None
    modified: str | None
    seen_s: float | None

    @classmethod
    def of(cls, ref: str, response: Response, headers: Mapping[str, str]) -> Member:
        return cls(ref, quoted(response.etag), response.length, response.modified, seconds(headers.get("date")))

    def strong_etag(self) -> str | None:
        """None for a weak one (``W/``): two contents may share it (RFC 9110 §8.8.1)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else None

    def fingerprint(self) -> str | None:
        """Equal for equal contents, as far as dates can tell; None while they cannot."""
        if self.etag is None and (self.modified is None or self.length is None):
            return None
        modified_s = seconds(self.modified)
        if modified_s is not None and (self.seen_s is None or self.seen_s - modified_s < YOUNG_S):
            return None
        return f"{self.etag or ''} {'' if self.length is None else self.length} {self.modified or ''}"

    def version(self, trusts_etags: bool) -> str | None:
        """None where only the content tells."""
        return self.strong_etag() if trusts_etags else None

    def change(self, trusts_etags: bool) -> Change:
        version = self.version(trusts_etags)
        return Change(self.ref, ChangeKind.UPDATED, version, None if version else self.fingerprint())


def quoted(etag: str | None) -> str | None:
    """As RFC 9110 wants it: some servers leave the quotes out of the property and have them in the header."""
    return etag if etag is None or etag.startswith(('"', "W/")) else f'"{etag}"'


def hash_of(data: bytes) -> str:
    """The version of an object whose ETag is not trusted."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def seconds(date: str | None) -> float | None:
    """An HTTP date as seconds since the epoch."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
