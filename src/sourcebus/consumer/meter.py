"""What one lease costs at its provider."""

from __future__ import annotations

from sourcebus.connectors import Connector, Costly


class Meter:
    """Counts in the units of the source's quota, for one lease, on the thread that works on it.

    A connector that knows its costs is asked; any other is charged what it recommends, for an object once, for a listing once
    per page.
    """

    def __init__(self, connector: Connector) -> None:
        self._costly = connector if isinstance(connector, Costly) else None
        self._per_call = connector.recommended.cost
        self._spent, self._pages = 0.0, 0

    def page(self) -> None:
        """A page of a listing has been read."""
        self._pages += 1

    def spent(self) -> float:
        """Units so far. May be asked again."""
        if self._costly is None:
            return self._per_call * max(1, self._pages)
        self._spent += self._costly.take_cost()
        return self._spent
