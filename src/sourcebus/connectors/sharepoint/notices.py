"""Change notifications: what a delivery says, and the subscriptions that have them sent.

Microsoft: "Receive change notifications through webhooks", "Reduce missing change notifications" (lifecycle), "subscription".
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, cast
from urllib.parse import quote

from sourcebus.connectors.http import Api
from sourcebus.connectors.signing import check_token
from sourcebus.errors import ConnectorError, InvalidInput, ObjectGone, SubscriptionLost, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, Reply, Subscription

LONGEST = timedelta(minutes=42_300)
"""Of a subscription on a driveItem (Microsoft: "subscription", lifetime per resource)."""

_SKEW = timedelta(minutes=10)
_MOST_ENTRIES = 10_000
_LONGEST_TOKEN = 4_096
_SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)


def hear(delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
    """See `Hears`. Graph signs nothing: a notification proves itself by the ``clientState`` of its subscription, so the
    body has to be parsed for its proof. Nothing else of it is believed before."""
    token = delivery.query.get("validationToken")
    if token is not None:
        return _handshake(token)
    entries = _entries(delivery.body)
    by_id = {graph_id: one for one in subscriptions for graph_id in _graph_ids(one)}
    ours = [(entry, by_id[graph_id]) for entry in entries if (graph_id := _text(entry, "subscriptionId")) in by_id]
    for entry, subscription in ours:
        check_token(_text(entry, "clientState"), [subscription.secret] if subscription.secret else [])
    if not ours:
        raise Unverified("names no subscription of this source")
    return _meaning(ours, strangers=len(entries) - len(ours))


def _handshake(token: str) -> Heard:
    if not 0 < len(token) <= _LONGEST_TOKEN:
        raise InvalidInput("validationToken", "is empty or too long", "send the token that the subscription began with")
    reply = Reply(token.encode("utf-8", "replace"), headers={"X-Content-Type-Options": "nosniff"})
    return Heard(reply=reply, note="the handshake of a new subscription")


def _entries(body: bytes) -> list[Mapping[str, Any]]:
    try:
        value = json.loads(body)["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unverified("is no collection of notifications, so it proves nothing") from None
    if not isinstance(value, list) or len(cast("list[Any]", value)) > _MOST_ENTRIES:
        raise Unverified("its value is no list of notifications")
    return [cast("Mapping[str, Any]", entry) for entry in cast("list[Any]", value) if isinstance(entry, dict)]


def _meaning(ours: Sequence[tuple[Mapping[str, Any], Subscription]], *, strangers: int) -> Heard:
    events = [(_text(entry, "lifecycleEvent"), subscription.id) for entry, subscription in ours]
    lost = [of for event, of in events if event == "subscriptionRemoved"]
    renew = [of for event, of in events if event == "reauthorizationRequired" and of not in lost]
    # A removed subscription and a "missed" one both mean that changes may have gone by unannounced.
    scan = any(event in ("", "missed", "subscriptionRemoved") for event, _of in events)
    unknown = sorted({event for event, _of in events} - {"", "missed", "subscriptionRemoved", "reauthorizationRequired"})
    notes = [f"{strangers} of {strangers + len(ours)} notifications are of other subscriptions"] if strangers else []
    notes += [f"unknown lifecycle event {event[:60]!r}" for event in unknown[:3]]
    return Heard(
        changes=[_SCAN] if scan or unknown else [],
        lost=list(dict.fromkeys(lost)),
        renew=list(dict.fromkeys(renew)),
        note="; ".join(notes),
    )


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _graph_ids(subscription: Subscription) -> Sequence[str]:
    """Graph's ids, one per drive: a source with several drives has one subscription for us and several for Graph."""
    return list(cast("Mapping[str, str]", subscription.state.get("drives", {})).values()) or [subscription.id]


class Subscriptions:
    """Makes, renews and cancels them, one per drive, all with one random ``clientState`` and one end."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(self, drives: Sequence[str], hook_url: str) -> Subscription:
        """All drives or none. Graph asks the hook for its handshake meanwhile."""
        proof, made, ends = secrets.token_urlsafe(32), dict[str, str](), list[datetime]()
        try:
            for drive_id in drives:
                told = self._create(drive_id, hook_url, proof)
                made[drive_id] = told["id"]
                ends.append(_time(told["expirationDateTime"]))
        except BaseException:
            self._cancel(made.values())
            raise
        state = {"drives": made, "hook": _mark(hook_url)}
        return Subscription(next(iter(made.values())), _ms(min(ends)), proof, state)

    def renew(self, subscription: Subscription, drives: Sequence[str], hook_url: str) -> Subscription:
        """The same one with a later end; a successor where the hook's address or the set of drives has changed."""
        have = cast("Mapping[str, str]", subscription.state.get("drives", {}))
        if set(have) != set(drives) or subscription.state.get("hook") != _mark(hook_url):
            successor = self.create(drives, hook_url)
            self.cancel(subscription)
            return successor
        body = {"expirationDateTime": _iso(datetime.now(UTC) + LONGEST - _SKEW)}
        ends: list[datetime] = []
        for graph_id in have.values():
            try:
                told = self._api.json("PATCH", _path(graph_id), json=body)
            except ObjectGone as error:
                self.cancel(subscription)  # those of its other drives
                raise SubscriptionLost(f"Graph does not know the subscription {graph_id} any more") from error
            ends.append(_time(told["expirationDateTime"]))
        return Subscription(subscription.id, _ms(min(ends)), subscription.secret, subscription.state)

    def cancel(self, subscription: Subscription) -> None:
        self._cancel(_graph_ids(subscription))

    def _create(self, drive_id: str, hook_url: str, proof: str) -> Mapping[str, Any]:
        asked = {
            "changeType": "updated",  # the only one there is for the root of a drive
            "notificationUrl": hook_url,
            "lifecycleNotificationUrl": hook_url,
            "resource": f"drives/{drive_id}/root",
            "expirationDateTime": _iso(datetime.now(UTC) + LONGEST - _SKEW),
            "clientState": proof,
        }
        try:
            return self._api.json("POST", "subscriptions", json=asked)
        except ConnectorError as error:
            if hook_url not in str(error):
                raise
            # The address may be what protects the hook: it does not go into logs.
            raise ConnectorError(str(error).replace(hook_url, "(the hook)")) from None

    def _cancel(self, graph_ids: Any) -> None:
        for graph_id in graph_ids:
            try:
                self._api.call("DELETE", _path(graph_id))
            except ObjectGone:
                pass  # cancelled, or at its end, already


def _path(graph_id: str) -> str:
    return f"subscriptions/{quote(graph_id, safe='')}"


def _mark(hook_url: str) -> str:
    """Tells one address from another without showing it."""
    return sha256(hook_url.encode()).hexdigest()[:16]


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
