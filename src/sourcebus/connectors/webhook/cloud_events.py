"""The connector ``cloudevents``: deliveries that are CloudEvents 1.0, over HTTP in all three modes.

Binary, structured and batched content (github.com/cloudevents/spec, HTTP Protocol Binding §3), and the check by OPTIONS that
the specification "HTTP 1.1 Web Hooks for Event Delivery" asks of senders (§4).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from urllib.parse import unquote

from sourcebus.connectors.payloads import parse_json_body
from sourcebus.connectors.webhook import proof
from sourcebus.connectors.webhook.connector import WebhookConnector
from sourcebus.connectors.webhook.payload import understand
from sourcebus.connectors.webhook.settings import CloudEventsSettings
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import Delivery, Heard, Reply, Subscription

_STRUCTURED, _BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
_REQUIRED = ("id", "source", "type")


class CloudEventsConnector(WebhookConnector):
    """A system that posts CloudEvents. What an event names, and how that is read, is configured as for ``webhook``."""

    name = "cloudevents"

    _configuration = CloudEventsSettings

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        del subscriptions
        if delivery.method == "OPTIONS":
            return self._permission(delivery)
        proof.check(self._settings.proof, delivery, self._credentials.all("webhook"))
        events = _events(delivery)
        heard = understand(self._settings, delivery, events)
        # source and id together name an event (CloudEvents §3.1.1); a batch has no name of its own.
        return replace(heard, delivery_id=f"{events[0]['source']} {events[0]['id']}") if len(events) == 1 else heard

    def _permission(self, delivery: Delivery) -> Heard:
        origin = delivery.headers.get("webhook-request-origin", "")
        if not origin:
            raise InvalidInput("WebHook-Request-Origin", "is missing", "name the origin that wants to deliver")
        settings = cast("CloudEventsSettings", self._settings)
        if origin not in settings.allowed_origins and "*" not in settings.allowed_origins:
            raise Unverified(f"{origin[:200]!r} may not deliver here: see config.allowed_origins")
        granted = {"Allow": "POST", "WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": str(settings.allowed_rate)}
        return Heard(reply=Reply(headers=granted), note=f"{origin[:200]} may deliver")


def _events(delivery: Delivery) -> list[dict[str, Any]]:
    media_type = delivery.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == _BATCH:
        batch = parse_json_body(delivery.body)
        if not isinstance(batch, list):
            raise InvalidInput("body", f"is no list, as {_BATCH} is", f"send one event as {_STRUCTURED}")
        return [_checked(event, f"body[{at}].") for at, event in enumerate(cast("list[object]", batch))]
    if media_type == _STRUCTURED:
        return [_checked(parse_json_body(delivery.body), "")]
    if "ce-specversion" not in delivery.headers:
        raise InvalidInput(
            "Content-Type", f"is {media_type!r}, and there is no ce-specversion", f"send {_STRUCTURED} or ce- headers"
        )
    return [_checked(_binary(delivery, media_type), "")]


def _binary(delivery: Delivery, media_type: str) -> dict[str, Any]:
    event: dict[str, Any] = {
        name[3:]: unquote(value.strip('"')) for name, value in delivery.headers.items() if name.startswith("ce-")
    }
    if not delivery.body:
        return event
    if media_type.endswith("json") or not media_type:
        return event | {"data": parse_json_body(delivery.body)}
    return event | {"datacontenttype": media_type, "data": delivery.body.decode("utf-8", "replace")}


def _checked(event: object, field: str) -> dict[str, Any]:
    if not isinstance(event, dict):
        raise InvalidInput(field.rstrip(".") or "body", "is no object", "send a CloudEvent")
    known = cast("dict[str, Any]", event)
    if known.get("specversion") != "1.0":
        raise InvalidInput(f"{field}specversion", f"is {known.get('specversion')!r:.40}", 'send "1.0"')
    for name in _REQUIRED:
        if not isinstance(known.get(name), str) or not known[name]:
            raise InvalidInput(f"{field}{name}", "is no text, or empty", "CloudEvents require it")
    if "data_base64" in known:
        return known | {"data": _text_of(known["data_base64"], field)}
    return known


def _text_of(encoded: object, field: str) -> str:
    try:
        return base64.b64decode(str(encoded), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{field}data_base64", "is no base64", "encode the data as RFC 4648 says") from None
