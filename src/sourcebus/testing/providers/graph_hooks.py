"""Change notifications as Microsoft Graph sends them: thin, in batches, to receivers that must be quick."""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx

from sourcebus.testing.providers.courier import Courier, Sent
from sourcebus.testing.providers.graph_meter import GraphFacts

_JSON = {"Content-Type": "application/json; charset=utf-8"}


@dataclass(slots=True)
class SimSubscription:
    """One subscription on the root of a drive."""

    id: str
    drive_id: str
    notification_url: str
    lifecycle_url: str | None
    client_state: str
    expires: datetime
    announced: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "resource": f"drives/{self.drive_id}/root",
            "changeType": "updated",
            "notificationUrl": self.notification_url,
            "lifecycleNotificationUrl": self.lifecycle_url,
            "expirationDateTime": _iso(self.expires),
            "clientState": None,  # never told again
        }


@dataclass(slots=True)
class _Receiver:
    """How quick one endpoint has been in the present window: the rule against slow ones goes by it."""

    began_s: float
    under_way: deque[Sent]
    answered: int = 0
    slow: int = 0


class Hooks:
    """The subscriptions of a tenant and what is sent for them. Not locked: the server's lock guards it.

    `dropped` and `delayed` count notifications that met the rule against slow receivers. `pace` divides its waits.
    """

    def __init__(self, courier: Courier, facts: GraphFacts, tenant: str, *, pace: float = 1.0) -> None:
        self.subscriptions: dict[str, SimSubscription] = {}
        self.dropped = self.delayed = 0
        self._courier, self._facts, self._tenant, self._pace = courier, facts, tenant, pace
        self._receivers: dict[str, _Receiver] = {}

    def create(self, drive_id: str, asked: Mapping[str, Any], expires: datetime) -> SimSubscription | str:
        """The subscription once its receivers have passed the handshake, else what went wrong."""
        urls = [asked["notificationUrl"], *filter(None, [asked.get("lifecycleNotificationUrl")])]
        for url in dict.fromkeys(urls):
            if problem := self._handshake(url):
                return problem
        made = SimSubscription(
            str(uuid4()), drive_id, urls[0], asked.get("lifecycleNotificationUrl"), asked.get("clientState") or "", expires
        )
        self.subscriptions[made.id] = made
        return made

    def living(self, subscription_id: str) -> SimSubscription | None:
        found = self.subscriptions.get(subscription_id)
        if found is not None and found.expires <= datetime.now(UTC):
            del self.subscriptions[subscription_id]  # "If you don't renew in time, Microsoft Graph deletes the subscription"
            return None
        return found

    def changed(self, drive_id: str) -> None:
        """Something in the drive changed: one POST per receiver, with an entry per subscription."""
        by_url: dict[str, list[SimSubscription]] = {}
        for one in list(self.subscriptions.values()):
            if one.drive_id == drive_id and self.living(one.id):
                by_url.setdefault(one.notification_url, []).append(one)
        for url, group in by_url.items():
            for one in group:
                one.announced += 1
            self._notify(url, [self._entry(one) for one in group])

    def lifecycle(self, subscription_id: str, event: str) -> Sent:
        """``reauthorizationRequired``, ``subscriptionRemoved`` (which ends it) or ``missed``."""
        one = self.subscriptions[subscription_id]
        if event == "subscriptionRemoved":
            del self.subscriptions[subscription_id]
        entry = self._common(one) | {"lifecycleEvent": event}
        return self._courier.post(one.lifecycle_url or one.notification_url, _body([entry]), _JSON)

    def entry(self, subscription_id: str, **other: Any) -> dict[str, Any]:
        """A change notification as it would be sent now, with some fields otherwise: for tests that forge."""
        return self._entry(self.subscriptions[subscription_id]) | other

    def _common(self, one: SimSubscription) -> dict[str, Any]:
        return {
            "subscriptionId": one.id,
            "subscriptionExpirationDateTime": _iso(one.expires),
            "clientState": one.client_state,
            "tenantId": self._tenant,
        }

    def _entry(self, one: SimSubscription) -> dict[str, Any]:
        return self._common(one) | {
            "changeType": "updated",
            "resource": f"drives/{one.drive_id}/root",
            "resourceData": {"@odata.type": "#Microsoft.Graph.DriveItem"},
        }

    def _notify(self, url: str, entries: Sequence[Mapping[str, Any]]) -> None:
        receiver = self._receiver(url)
        share = receiver.slow / receiver.answered if receiver.answered >= self._facts.slow_sample else 0.0
        if share >= self._facts.dropped_share:
            self.dropped += 1
            return
        wait_s = 0.0
        if share >= self._facts.delayed_share:
            self.delayed += 1
            wait_s = self._facts.slow_delay_s / self._pace
        receiver.under_way.append(self._courier.post(url, _body(entries), _JSON, after_s=wait_s))

    def _receiver(self, url: str) -> _Receiver:
        """The endpoint's record, brought up to date; the window is flushed every ten minutes."""
        host, now_s = urlsplit(url).netloc, time.monotonic()
        found = self._receivers.get(host)
        if found is None or now_s - found.began_s > self._facts.slow_window_s / self._pace:
            found = self._receivers[host] = _Receiver(now_s, deque())
        for _ in range(len(found.under_way)):
            sent = found.under_way.popleft()
            if sent.took_ms:
                found.answered += 1
                found.slow += sent.took_ms[0] > self._facts.slow_ms
            elif not sent.lost:
                found.under_way.append(sent)
        return found

    def _handshake(self, url: str) -> str | None:
        """What is wrong with a receiver; None: it answered 200, in plain text, with the decoded token, in time."""
        token = f"Validation: {secrets.token_urlsafe(24)} ü+&%"
        began_s = time.monotonic()
        try:
            answer = self._courier.now(f"{url}{'&' if '?' in url else '?'}validationToken={quote(token, safe='')}", b"", {})
        except httpx.HTTPError as error:
            return f"The request to '{url}' failed: {type(error).__name__}"
        if time.monotonic() - began_s > self._facts.handshake_s:
            return "Subscription validation request timed out."
        if answer.status_code != 200 or not answer.headers.get("content-type", "").startswith("text/plain"):
            return f"Subscription validation request failed. HTTP status code is '{answer.status_code}'."
        if answer.text != token:
            return "Subscription validation request failed. Response must exactly match validationToken query parameter."
        return None


def _body(entries: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps({"value": list(entries)}).encode()


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "0Z")
