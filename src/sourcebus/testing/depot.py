"""A depot in memory, for connectors whose objects come in deliveries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sourcebus.model import Content


class MemoryDepot:
    """`connectors.Depot` for tests: what the catalog keeps, by the same rule."""

    def __init__(self) -> None:
        self._contents: dict[str, Content] = {}

    def put(self, contents: Sequence[Content]) -> None:
        """Keep each, unless its object has a state of a higher order."""
        for content in contents:
            known = self._contents.get(content.object_ref)
            if known is None or known.order is None or content.order is None or content.order >= known.order:
                self._contents[content.object_ref] = content

    def get(self, ref: str) -> Content | None:
        return self._contents.get(ref)

    def refs(self) -> Iterator[tuple[str, str]]:
        for content in list(self._contents.values()):
            if content.body is not None:
                yield content.object_ref, content.version
