"""A shelf in memory, for connectors whose objects come in deliveries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sourcebus.model import Parcel


class MemoryShelf:
    """`connectors.Shelf` for tests: what the catalog keeps, by the same rule."""

    def __init__(self) -> None:
        self._parcels: dict[str, Parcel] = {}

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Keep each, unless its object has a state of a higher order."""
        for parcel in parcels:
            known = self._parcels.get(parcel.object_ref)
            if known is None or known.order is None or parcel.order is None or parcel.order >= known.order:
                self._parcels[parcel.object_ref] = parcel

    def get(self, ref: str) -> Parcel | None:
        return self._parcels.get(ref)

    def refs(self) -> Iterator[tuple[str, str]]:
        for parcel in list(self._parcels.values()):
            if parcel.body is not None:
                yield parcel.object_ref, parcel.version
