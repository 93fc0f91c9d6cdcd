"""A feed whose hub tells of new entries (WebSub): subscribing, and hearing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import httpx

from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.feed import websub
from sourcebus.connectors.feed.connector import FeedConnector
from sourcebus.connectors.feed.entries import parse
from sourcebus.connectors.feed.settings import FeedSettings
from sourcebus.connectors.http import Api
from sourcebus.errors import NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable, SubscriptionLost
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, Subscription

MOST_NAMED = 10
"""A delivery with more entries is a scan: its listing knows which of them are new."""

_MOST_PARSED_BYTES = 200_000
"""Parsing takes at worst 20 µs a byte, and a hub waits."""

_SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)


class PushedFeedConnector(FeedConnector):
    """A feed whose hub tells of new entries (WebSub)."""

    def __init__(self, settings: FeedSettings, credentials: Credentials) -> None:
        super().__init__(settings, credentials)
        self._url, self._keys, self._trusted = settings.url, credentials.all("websub"), settings.trusted_hubs
        self._hubs = Api(settings.url, timeout_s=settings.timeout_s, trusted=settings.trusted_hubs)  # without credentials

    def take_cost(self) -> float:
        return super().take_cost() + self._hubs.take_cost()

    def close(self) -> None:
        super().close()
        self._hubs.close()

    def subscribe(self, hook_url: str) -> Subscription:
        """Ask the feed's hub. It confirms by calling `hook_url`: until then the subscription counts for a day."""
        hub, topic = self._discover()
        return self._request("subscribe", websub.Pass.new(topic, self._keys[0], time.time()), hub, topic, hook_url)

    def renew(self, subscription: Subscription, hook_url: str) -> Subscription:
        """The same one, asked for again; a new one where the feed has moved to another hub or address."""
        hub, topic = self._discover()
        known = subscription.state.get("hub"), subscription.state.get("topic"), subscription.state.get("hook_url")
        if known != (hub, topic, hook_url):
            return self.subscribe(hook_url)
        try:
            given = websub.Pass.of(subscription.id, topic, self._keys[0])
        except ValueError:
            raise SubscriptionLost("this is no subscription of ours") from None
        return self._request("subscribe", given, hub, topic, hook_url)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Ask the hub to end it. One that cannot be asked for ends with its lease."""
        state = subscription.state
        hub, topic, hook_url = (str(state.get(name) or "") for name in ("hub", "topic", "hook_url"))
        if hub and topic and hook_url:
            self._request("unsubscribe", websub.Pass.of(subscription.id, topic, self._keys[0]), hub, topic, hook_url)

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        """A hub's question whether we asked, or what it distributes."""
        if delivery.method == "GET":
            return websub.answer(delivery, self._keys, subscriptions)
        websub.check_content(delivery, self._keys)
        return Heard(_named(delivery.body))

    def _request(self, mode: str, given: websub.Pass, hub: str, topic: str, hook_url: str) -> Subscription:
        secret = websub.delivery_secret(given.id, self._keys[0])
        fields = {"hub.callback": websub.callback(hook_url, given), "hub.mode": mode, "hub.topic": topic}
        if mode == "subscribe":
            fields |= {"hub.lease_seconds": str(websub.LEASE_S), "hub.secret": secret}
        body = str(httpx.QueryParams(fields)).encode()
        try:
            self._hubs.call("POST", hub, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        except (ObjectGone, ObjectUnreadable, NeedsAuth) as error:
            raise SourceUnavailable(f"the hub refuses: {error}") from error
        expires_at_ms = round((time.time() + websub.UNCONFIRMED_S) * 1000)
        return Subscription(given.id, expires_at_ms, secret, {"hub": hub, "topic": topic, "hook_url": hook_url})

    def _discover(self) -> tuple[str, str]:
        """The feed's hub and the address it has there: from ``Link`` headers first, else from the feed (WebSub, 4)."""
        look = self.look()
        headers = [(rel, urljoin(self._url, target)) for rel, target in look.links]
        hubs = [target for rel, target in headers if rel == "hub"] or [urljoin(self._url, one) for one in look.feed.hubs]
        topic = next((target for rel, target in headers if rel == "self"), look.feed.topic) or self._url
        usable = [hub for hub in hubs if self._may_be_asked(hub)]
        if not usable:
            found = f"only {hubs[0]}, which is not HTTPS: add it to config.trusted_hubs" if hubs else "none"
            raise SourceUnavailable(f"the feed names no hub to subscribe at ({found}); it is polled")
        return usable[0], urljoin(self._url, topic)

    def _may_be_asked(self, hub: str) -> bool:
        """A secret goes to the hub, so over HTTPS, or to one that the source's owner names."""
        parts = urlsplit(hub)
        trusted = {(one.scheme, one.netloc) for one in map(urlsplit, self._trusted)}
        return parts.scheme == "https" or (parts.scheme, parts.netloc) in trusted


def _named(body: bytes) -> Sequence[Change]:
    """The entries in a delivery, if they are few; else, or if it holds none that we can read, a scan."""
    if len(body) > _MOST_PARSED_BYTES:
        return [_SCAN]
    try:
        feed = parse(body)
    except SourceUnavailable:
        return [_SCAN]  # a topic may be anything, and a hub may send less than the feed
    changes = [Change(ref, version=entry.version) for ref, entry in feed.entries.items()]
    changes += [Change(ref, ChangeKind.DELETED) for ref in sorted(feed.deleted)]
    return changes if 0 < len(changes) <= MOST_NAMED else [_SCAN]
