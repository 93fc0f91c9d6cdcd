"""How names from outside become database keys, and back without a loss.

An object reference is a Python `str` that may hold anything: newlines, NUL, and the lone surrogates that `os.fsdecode`
makes of bytes that are not UTF-8. It is stored as UTF-8 with those surrogates kept (``surrogatepass``), as bytes. That
is reversible, no two references meet, and bytes sort in the order of the strings' code points, on every database.

PostgreSQL indexes at most 2,704 bytes a row and a reference may have 4,096, so the bytes beyond `HEAD_BYTES` live in a
second column that is indexed by its hash only. Nearly every reference is all head.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

HEAD_BYTES = 1_000
"""Bytes of a reference that are indexed as they are."""


class RefKey(NamedTuple):
    """A reference as its three columns. `tail` and `tail_hash` are empty unless it is longer than `HEAD_BYTES`."""

    head: bytes
    tail: bytes
    tail_hash: bytes


def to_bytes(text: str) -> bytes:
    """Any `str` as bytes that sort like its code points; `from_bytes` is the way back."""
    return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    """The `str` that `to_bytes` was given."""
    return data.decode("utf-8", "surrogatepass")


def ref_key(ref: str) -> RefKey:
    """The columns of a reference of any length."""
    data = to_bytes(ref)
    if len(data) <= HEAD_BYTES:
        return RefKey(data, b"", b"")
    tail = data[HEAD_BYTES:]
    return RefKey(data[:HEAD_BYTES], tail, hashlib.sha256(tail).digest())


def ref_of(head: bytes, tail: bytes) -> str:
    """The reference that `ref_key` took apart."""
    return from_bytes(bytes(head) + bytes(tail))


def after_prefix(prefix: bytes) -> bytes | None:
    """The smallest bytes that sort after everything that starts with `prefix`; None if there is no such value."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def clean_text(text: str) -> str:
    """`text` as every database and index takes it: without NUL, lone surrogates shown as ``?``."""
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
