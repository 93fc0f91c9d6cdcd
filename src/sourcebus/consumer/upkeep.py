"""One lease on a source's subscription: see that there is one and that it lives on.

It is a lease like any other, on a name of its own (`SUBSCRIPTION`): so it pays from the source's bucket, never runs twice at
once, waits while the provider says wait, and is taken up by somebody else after a crash. docs/feeds.md has the whole picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import cast

import structlog

from sourcebus.catalog import Catalog, Subscribed
from sourcebus.clock import Clock
from sourcebus.connectors import Subscribes
from sourcebus.consumer.look import outcome_of
from sourcebus.consumer.ports import Bound
from sourcebus.errors import BusError, CatalogError, InvalidInput, SubscriptionLost, Throttled
from sourcebus.freshness import LOOK_AFTER_MS, Feeding, retry_upkeep_ms
from sourcebus.model import WHOLE_SOURCE, ChangeKind, JsonObject, Lease, Outcome, Signal, SourceChanged, Subscription

_log = structlog.get_logger(__name__)


class SubscriptionUpkeep:
    """Subscribes, renews, subscribes anew. `hook_url` gives a source's public address; None: this installation has none."""

    def __init__(
        self,
        catalog: Catalog,
        emit: Callable[[Sequence[SourceChanged]], None],
        clock: Clock,
        hook_url: Callable[[str], str] | None,
    ) -> None:
        self._catalog, self._emit, self._clock, self._hook_url = catalog, emit, clock, hook_url

    def run(self, lease: Lease, bound: Bound) -> Outcome:
        """What was done, for the story. Raises `Throttled`; every other failure is kept and tried again later."""
        connector, source_id = bound.connector, bound.source.id
        if not isinstance(connector, Subscribes):
            self._catalog.upkeep.resign(source_id)
            return self._note(lease, "not_subscribed", "its connector does not subscribe")
        if self._hook_url is None:  # whoever put it on the bus has one
            return self._failed(
                lease, InvalidInput("public_url", "is not set for this worker", "set SOURCEBUS_PUBLIC_URL everywhere")
            )
        try:
            done = self._look_after(source_id, connector, self._hook_url(source_id))
        except (Throttled, CatalogError, BusError):
            raise
        except Exception as error:  # noqa: BLE001  a connector is other people's code
            return self._failed(lease, error)
        self._catalog.upkeep.done(source_id, self._next_ms(source_id))
        return self._note(lease, "subscription", done)

    def _look_after(self, source_id: str, connector: Subscribes, hook_url: str) -> str:
        known, now_ms = self._catalog.upkeep.all(source_id), self._clock.now_ms()
        living = {one.subscription.id for one in self._catalog.upkeep.living(source_id)}
        ended = [one for one in known if one.subscription.id not in living]
        newest = next((one for one in known if one.subscription.id in living and one.hook_url == hook_url), None)
        if newest is None:
            return self._subscribe(source_id, connector, hook_url, known, gap=bool(ended) and not living)
        for one in ended:
            self._catalog.drop_subscription(source_id, one.subscription.id)
        if newest.renew_at_ms is None or newest.renew_at_ms > now_ms:
            return "lives"
        try:
            made = connector.renew(newest.subscription, hook_url)
        except SubscriptionLost as error:
            _log.warning("subscription_lost", source_id=source_id, subscription_id=newest.subscription.id, error=str(error))
            self._catalog.drop_subscription(source_id, newest.subscription.id)
            rest = [one for one in known if one is not newest]
            return self._subscribe(source_id, connector, hook_url, rest, gap=True)
        self._catalog.keep_subscription(source_id, made, hook_url)
        if made.id != newest.subscription.id:
            self._catalog.drop_subscription(source_id, newest.subscription.id)
        return "renewed"

    def _subscribe(
        self, source_id: str, connector: Subscribes, hook_url: str, known: Sequence[Subscribed], *, gap: bool
    ) -> str:
        made = connector.subscribe(hook_url)
        try:
            self._catalog.keep_subscription(source_id, made, hook_url)
        except BaseException:  # what we cannot remember we could neither renew nor verify
            self._cancel(source_id, connector, made)
            raise
        for one in known:
            if one.subscription.id != made.id:
                self._cancel(source_id, connector, one.subscription)
                self._catalog.drop_subscription(source_id, one.subscription.id)
        if gap or not known:  # until that has been listed, nothing that is found can have been announced
            self._catalog.set_state(source_id, listening_since_ms=None)
        # What changed while nobody told of it, or before anybody did.
        never_listed = "last_whole_at_ms" not in self._catalog.state(source_id)
        signal = Signal.RECONCILE if never_listed else Signal.POLL
        self._emit([SourceChanged(source_id, WHOLE_SOURCE, ChangeKind.SCAN, signal=signal)])
        _log.info("subscribed", source_id=source_id, subscription_id=made.id, after_a_gap=gap)
        return "subscribed after a gap" if gap else "subscribed"

    def _cancel(self, source_id: str, connector: Subscribes, subscription: Subscription) -> None:
        """The new one has taken over. An old one that cannot be cancelled ends by itself."""
        try:
            connector.unsubscribe(subscription)
        except Exception as error:  # noqa: BLE001
            _log.warning("subscription_not_cancelled", source_id=source_id, subscription_id=subscription.id, error=str(error))

    def _failed(self, lease: Lease, error: Exception) -> Outcome:
        known = self._catalog.upkeep.upkeep(lease.source_id)
        failures = (known.failures if known else 0) + 1
        wait_ms = retry_upkeep_ms(failures, random.random())
        text = f"{type(error).__name__}: {error}"
        self._catalog.upkeep.failed(lease.source_id, self._clock.now_ms() + wait_ms, failures, text)
        _log.warning("subscription_failed", source_id=lease.source_id, error=text, failures=failures, retry_s=wait_ms / 1000)
        self._say_if_dead(lease.source_id)
        return self._note(lease, "subscription_failed", text)

    def _say_if_dead(self, source_id: str) -> None:
        """Nothing lives any more: a scan, after which the source is judged anew (`Feed`) and polled as if nobody pushed."""
        feed = cast("JsonObject", self._catalog.state(source_id).get("feed") or {})
        if feed.get("mode") == Feeding.PUSH and not self._catalog.subscriptions(source_id):
            self._emit([SourceChanged(source_id, WHOLE_SOURCE, ChangeKind.SCAN, signal=Signal.POLL)])

    def _next_ms(self, source_id: str) -> int:
        renewals = [one.renew_at_ms for one in self._catalog.upkeep.living(source_id) if one.renew_at_ms is not None]
        return min([*renewals, self._clock.now_ms() + LOOK_AFTER_MS])

    def _note(self, lease: Lease, what: str, detail: str) -> Outcome:
        return outcome_of(lease, "note", self._clock.now_ms(), note=what, detail=detail)
