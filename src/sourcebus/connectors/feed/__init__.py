"""The connector ``feed``: the entries of an RSS or Atom feed, told of by its hub where it has one (WebSub).

The rooms inside: `settings`, `asking` (the feed's server), `entries` (reading a feed), `connector`; `websub` (what a hub is
given and answered) and `pushed` (the connector with it). What it promises is in docs/connectors/feed.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.feed.connector import FeedConnector
from sourcebus.connectors.feed.pushed import PushedFeedConnector
from sourcebus.connectors.feed.settings import SECRETS

__all__ = ["FeedConnector", "PushedFeedConnector", "feed"]


def feed(config: Mapping[str, Any], secret: str | None = None) -> FeedConnector:
    """The connector for a source: one that subscribes at the feed's hub if the source has the secret ``websub``."""
    pushed = Credentials.parse(secret, SECRETS).all("websub")
    return (PushedFeedConnector if pushed else FeedConnector).create(config, secret)
