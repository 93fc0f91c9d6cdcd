"""Subscriptions: what a delivery says of the one that it came by."""

from __future__ import annotations

from sourcebus.catalog import Catalog
from sourcebus.model import Heard


class Subscriptions:
    """Keeps the catalog in step with what providers say of their subscriptions."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def heard(self, source_id: str, heard: Heard) -> None:
        """A verified delivery confirmed a subscription, or said that some have ended."""
        if heard.keep is not None:
            self._catalog.keep_subscription(source_id, heard.keep)
        for subscription_id in heard.lost:
            self._catalog.drop_subscription(source_id, subscription_id)
