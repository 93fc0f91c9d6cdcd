"""The connector suite on a feed whose changes a real WebSub hub announces."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from benchmarks.reach_feed import Hub
from tests.connectors.test_feed import Blog
from tests.connectors.test_feed_websub import hub, pushed, site, until

from sourcebus.connectors.feed import PushedFeedConnector
from sourcebus.model import Subscription
from sourcebus.testing import ConnectorSuite, Hook, SourceUnderTest, not_applicable
from sourcebus.testing.providers.feed import FeedSite

fixtures = (hub, site)


class PublishedBlog(Blog):
    """A site that tells its hub of each change, once somebody listens."""

    def __init__(self, site: FeedSite, hub: Hub) -> None:
        super().__init__(site)
        self.hub, self.listening, self.published = hub, False, 0

    def connect(self) -> PushedFeedConnector:
        return pushed(self.site, self.hub)

    def write(self, name: str, text: str) -> str:
        ref = super().write(name, text)
        self.publish()
        return ref

    def delete(self, ref: str) -> None:
        super().delete(ref)
        self.publish()

    def publish(self) -> None:
        if self.listening:
            self.hub.publish(self.site.feed_url)
            self.published += 1

    def listen(self, hook: Hook) -> None:
        known = len(self.hub.callbacks(self.site.feed_url))
        hook.subscribe()
        until(lambda: len(self.hub.callbacks(self.site.feed_url)) > known)
        self.listening, self.published = True, 0

    def settle(self, hook: Hook) -> None:
        until(lambda: len(hook.deliveries) >= self.published)

    def endings(self) -> Mapping[str, Callable[[Subscription], None]]:
        not_applicable("a hub that forgets says nothing of it: renewing is subscribing anew")


class TestThroughAHub(ConnectorSuite):
    @pytest.fixture
    def source(self, site: FeedSite, hub: Hub) -> SourceUnderTest:
        site.window = 50
        return PublishedBlog(site, hub)
