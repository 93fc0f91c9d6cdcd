"""References and hrefs: an object's reference is its path below the configured collection, percent-decoded.

Bytes that are no UTF-8 are kept reversibly, as lone surrogates (`os.fsdecode` does the same for files).
"""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from sourcebus.connectors.refs import is_ref

_KEPT = "!$&'()*+,;=:@~"
"""What RFC 3986 allows in a path beside letters and digits: servers differ in what they encode, and decode all of it."""


class Paths:
    """From references to URLs and back, below the collection at `base_url`, which ends with a slash."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._base = decoded(urlsplit(base_url).path)

    def url(self, ref: str) -> str:
        """The URL of an object, or of a collection where `ref` ends with a slash or is empty."""
        return self.base_url + "/".join(quote(name.encode("utf-8", "surrogateescape"), safe=_KEPT) for name in ref.split("/"))

    def ref(self, href: str) -> str | None:
        """What an href in an answer means, absolute or not, however it is encoded. None: nothing below the base.

        Host and scheme are not looked at: behind a proxy servers often give those that they know themselves by.
        """
        try:
            raw = urlsplit(href.strip()).path
        except ValueError:
            return None
        path = decoded(raw)
        if raw.lower().count("%2f"):
            return None  # a slash within a name: no path can say it
        if path.rstrip("/") == self._base.rstrip("/"):
            return ""
        if not path.startswith(self._base):
            return None
        ref = path[len(self._base) :]
        return ref if is_ref(ref.removesuffix("/")) else None


def decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")
