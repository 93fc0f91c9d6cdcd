"""An object's key as senders write it, and which of two events about one object is the later one.

Amazon writes a key form-encoded (``red flower.jpg`` as ``red+flower.jpg``; S3 User Guide, "Event message structure"), as MinIO
does (its issues 7665 and 15200). Others write it as it is, or as they happen to, and a name like ``a+b`` may be either.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

_ENCODED = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")
"""What an encoder can have written: ASCII without space and control characters, and whole percent escapes."""


def keys_of(written: str, *, encoded: bool) -> tuple[str, ...]:
    """The keys that `written` may mean, likeliest first. `encoded`: this sender is known to encode.

    Of other senders both readings are given where they differ: the one that names nothing costs a request, the one left
    out would cost a change.
    """
    if not encoded and not _ENCODED.fullmatch(written):
        return (written,)
    try:
        decoded = unquote_plus(written, errors="strict")
    except UnicodeDecodeError:
        return (written,)
    return (decoded,) if encoded or decoded == written else (decoded, written)


def is_later(one: str, other: str) -> bool:
    """Whether sequencer `one` is later than `other`: hexadecimal, the shorter one padded with zeros on its right, compared as
    texts. It orders the events of one key only (S3 User Guide, "Event message structure")."""
    width = max(len(one), len(other))
    return one.upper().ljust(width, "0") > other.upper().ljust(width, "0")
