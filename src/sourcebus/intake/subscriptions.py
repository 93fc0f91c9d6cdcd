"""The one place where subscriptions are begun, minded and ended. Providers are called by the consumer (`SubscriptionUpkeep`).

What is due is put on the bus as an event on the source's subscription, so that nothing here waits for a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

import structlog

from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.connectors import Connector, Subscribes
from sourcebus.errors import SourcebusError, UnknownSource
from sourcebus.model import SUBSCRIPTION, WHOLE_SOURCE, ChangeKind, Heard, Signal, Source, SourceChanged, Subscription

_log = structlog.get_logger(__name__)

_LOOK_MS = 2_000


def hook_url(public_url: str, source_id: str, token: str | None = None) -> str:
    """Where providers deliver to a source: ``<public_url>/hooks/<percent-encoded id>``, and its `token` where it has one."""
    address = f"{public_url.rstrip('/')}/hooks/{quote(source_id, safe='')}"
    return f"{address}/{token}" if token else address


class Subscriptions:
    """`public_url` None: providers cannot reach this installation, so nothing is subscribed."""

    def __init__(
        self,
        catalog: Catalog,
        accept: Callable[[Sequence[SourceChanged]], object],
        clock: Clock,
        connect: Callable[[Source], Connector],
        public_url: str | None,
    ) -> None:
        self._catalog, self._accept, self._clock, self._connect = catalog, accept, clock, connect
        self.public_url = public_url
        self._looked_ms = float("-inf")

    def begin(self, source_id: str, connector: Connector, *, anew: bool = False) -> None:
        """The source was added or changed: has it subscribed if its provider offers that. `anew`: what is there is no good."""
        if self.public_url is None or not isinstance(connector, Subscribes):
            return
        if anew:
            self._catalog.upkeep.replace_all(source_id)
        self._catalog.upkeep.wish(source_id)
        self.call_for(source_id)

    def heard(self, source_id: str, heard: Heard) -> None:
        """Takes what a proven delivery says of subscriptions. What was lost is made anew, and the gap is looked through."""
        if heard.keep is not None:
            self._catalog.keep_subscription(source_id, heard.keep)
        lost = [one for one in heard.lost if self._catalog.drop_subscription(source_id, one)]
        if lost:
            _log.warning("subscription_lost", source_id=source_id, subscription_id=lost[0], error="the provider says so")
            self._accept([SourceChanged(source_id, WHOLE_SOURCE, ChangeKind.SCAN, signal=Signal.POLL)])
        if heard.renew:
            self._catalog.upkeep.renew_now(source_id, heard.renew)
        if (lost or heard.renew) and self.public_url is not None:
            self._catalog.upkeep.wish(source_id)
            self.call_for(source_id)

    def look(self) -> None:
        """Calls for a worker for whatever is due. Cheap to call too often; never talks to a provider."""
        now_ms = self._clock.monotonic_ms()
        if self.public_url is None or now_ms - self._looked_ms < _LOOK_MS:
            return
        self._looked_ms = now_ms
        for source_id in self._catalog.upkeep.due():
            try:
                self.call_for(source_id)
            except UnknownSource:  # removed meanwhile
                continue

    def look_again(self) -> None:
        """The next `look` really looks."""
        self._looked_ms = float("-inf")

    def end(self, source: Source) -> None:
        """The source is being removed: cancels its subscriptions as far as the provider answers."""
        living = self._catalog.subscriptions(source.id)
        if not living:
            return
        try:
            connector = self._connect(source)
        except SourcebusError as error:
            _log.warning("subscription_not_cancelled", source_id=source.id, subscription_id=living[0].id, error=str(error))
            return
        try:
            for one in living:
                _cancel(source.id, connector, one)
        finally:
            connector.close()

    def call_for(self, source_id: str) -> None:
        """Has a worker look after the source's subscription now. UnknownSource."""
        self._accept([SourceChanged(source_id, SUBSCRIPTION, ChangeKind.SCAN, signal=Signal.POLL)])


def _cancel(source_id: str, connector: Connector, subscription: Subscription) -> None:
    if not isinstance(connector, Subscribes):
        return
    try:
        connector.unsubscribe(subscription)
    except Exception as error:  # noqa: BLE001  a connector is other people's code; the source goes all the same
        _log.warning("subscription_not_cancelled", source_id=source_id, subscription_id=subscription.id, error=str(error))
