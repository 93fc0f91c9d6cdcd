"""References that are paths: names parted by slashes, below a root that they cannot leave."""

from __future__ import annotations


def is_ref(ref: str) -> bool:
    """Whether this can name an object or a collection: names parted by single slashes, none of them `.` or `..`."""
    return bool(ref) and "\0" not in ref and not any(name in ("", ".", "..") for name in ref.split("/"))


def parent_of(ref: str) -> str:
    """The collection above: ``a/b/c`` and ``a/b/c/`` → ``a/b/``; "" for the base."""
    head = ref.removesuffix("/").rpartition("/")[0]
    return head + "/" if head else ""
