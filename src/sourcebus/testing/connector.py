"""A source in memory whose every failure can be asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, Self

from sourcebus.connectors import Connector, Recommended
from sourcebus.errors import ObjectGone
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Document, Extraction


class FakeConnector(Connector):
    """Holds `objects` (reference → text). `failing[ref]` is raised instead of reading that object; `listing_fails_after`
    changes makes a listing break half-way with `listing_error`; `extracted` counts what was really read."""

    name = "fake"
    recommended = Recommended(window_ms=0, poll_interval_s=0)

    def __init__(self, objects: Mapping[str, str] | None = None) -> None:
        self.objects = dict(objects or {})
        self.failing: dict[str, Exception] = {}
        self.listing_fails_after: int | None = None
        self.listing_error: Exception = ConnectionError("the listing broke")
        self.extracted: Counter[str] = Counter()

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:  # noqa: ARG003  a fake takes any config
        """An empty one; tests register a ready instance instead."""
        return cls()

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:  # noqa: ARG002  it always lists everything
        for at, (ref, text) in enumerate(sorted(self.objects.items())):
            if at == self.listing_fails_after:
                raise self.listing_error
            if ref.startswith(scope):
                yield Change(ref, version=_version(text))
        yield Cursor(None, complete=True)

    def version(self, ref: str) -> str | None:
        self._may_fail(ref)
        return _version(self.objects[ref]) if ref in self.objects else None

    def extract(self, ref: str) -> Extraction:
        self._may_fail(ref)
        if ref not in self.objects:
            raise ObjectGone(ref)
        self.extracted[ref] += 1
        text = self.objects[ref]
        return Extraction([Document(text, title=ref)], _version(text))

    def _may_fail(self, ref: str) -> None:
        if ref in self.failing:
            raise self.failing[ref]


def _version(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
