"""Notification channels: what a delivery says, and the channels that have them sent.

Google: "Notifications for resource changes" (Drive API). A channel is never renewed, only followed by another.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

from sourcebus.connectors.google_drive.bounds import OTHER_UNITS, Bounds
from sourcebus.connectors.google_drive.feed import Feed
from sourcebus.connectors.http import Api
from sourcebus.connectors.signing import check_token
from sourcebus.errors import ConnectorError, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, Subscription

LONGEST_S = 604_800
"""A channel on changes may live for seven days; what Google grants is in its answer."""

_UNSAID_S = 3_600
"""Google's default, for an answer without an end."""

_SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)
_STATES = ("change", "add", "remove", "update", "trash", "untrash", "exists", "not_exists")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def hear(delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
    """See `Hears`. Google signs nothing and sends no body: a message proves itself by its channel's token."""
    token, channel = delivery.headers.get("x-goog-channel-token"), delivery.headers.get("x-goog-channel-id", "")
    check_token(token, [one.secret for one in subscriptions if one.secret])
    ours = next((one for one in subscriptions if one.id == channel), None)
    if ours is None or not _is(token, ours):
        return Heard(note="a message of another channel than its token's: nothing follows from it")
    state, number = delivery.headers.get("x-goog-resource-state", ""), delivery.headers.get("x-goog-message-number", "")
    delivery_id = f"{channel}:{number}" if number.isdecimal() else None
    if state == "sync":
        return Heard(delivery_id=delivery_id, note="the channel is open")
    return Heard([_SCAN], delivery_id=delivery_id, note="" if state in _STATES else f"unknown resource state {state[:60]!r}")


def _is(token: str | None, subscription: Subscription) -> bool:
    # Not a secret any more: the token has just been proven to be one of ours.
    return token == subscription.secret


class Channels:
    """Opens them on the source's feed of changes, and stops them."""

    def __init__(self, api: Api, bounds: Bounds, feed: Feed) -> None:
        self._api, self._bounds, self._feed = api, bounds, feed

    def open(self, hook_url: str) -> Subscription:
        """A new channel under a new id and with a new token; others go on."""
        _check_address(hook_url)
        asked = {
            "id": str(uuid4()),
            "type": "web_hook",
            "address": hook_url,
            "token": secrets.token_urlsafe(32),
            "expiration": str(round((time.time() + LONGEST_S) * 1000)),
        }
        told = self._watch(asked, hook_url)
        ends_ms = told.get("expiration") or round((time.time() + _UNSAID_S) * 1000)
        try:
            return Subscription(asked["id"], int(ends_ms), asked["token"], {"resource": str(told["resourceId"])})
        except (KeyError, ValueError, TypeError) as error:
            raise SourceUnavailable("Google's answer is no channel") from error

    def stop(self, subscription: Subscription) -> None:
        body = {"id": subscription.id, "resourceId": subscription.state.get("resource", "")}
        try:
            self._api.call("POST", "channels/stop", json=body, cost=OTHER_UNITS)
        except ObjectGone:
            pass  # stopped, or at its end, already

    def _watch(self, asked: Mapping[str, Any], hook_url: str) -> Mapping[str, Any]:
        params = {**self._bounds.feed(), "pageToken": self._feed.start(), "includeRemoved": "true"}
        try:
            return cast(
                "Mapping[str, Any]", self._api.json("POST", "changes/watch", params=params, json=asked, cost=OTHER_UNITS)
            )
        except (ObjectGone, ObjectUnreadable) as error:
            self._bounds.check(fresh=True)
            raise ConnectorError(_without(hook_url, f"Google opens no channel on this source: {error}")) from None
        except ConnectorError as error:
            if hook_url not in str(error):
                raise
            raise ConnectorError(_without(hook_url, str(error))) from None


def _check_address(hook_url: str) -> None:
    parts = urlsplit(hook_url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise ConnectorError(
            "Google sends only to https addresses with a valid certificate: set the public address of the gateway"
        )


def _without(hook_url: str, text: str) -> str:
    """The address may be what protects the hook: it does not go into logs."""
    return text.replace(hook_url, "(the hook)")
