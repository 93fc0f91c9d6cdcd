"""Connectors that hear, for tests of the hooks: one whose provider signs, one whose provider cannot, one that is deaf."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

from sourcebus.connectors import Connector, register
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.payloads import parse_json_object
from sourcebus.connectors.signing import check_age, check_hmac
from sourcebus.errors import InvalidInput
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, Delivery, Extraction, Heard, Reply, Subscription

SECRET = "a secret of the tests"


class Deaf(Connector):
    """Has nothing and hears nothing."""

    name = "deaf"

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        made = cls()
        made.credentials = Credentials.parse(secret, ("webhook",))
        return made

    credentials: Credentials

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        yield Cursor(None, complete=True)

    def version(self, ref: str) -> str | None:
        return None

    def extract(self, ref: str) -> Extraction:
        return Extraction((), "1")


class Unsigned(Deaf):
    """Its provider sends ``{"objects": [...], "scan": scope, "lost": [...], "keep": id, "note": text}`` and proves nothing."""

    name = "unsigned"
    needs_secret_path = True

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        if delivery.method == "OPTIONS":
            return Heard(reply=Reply(headers={"WebHook-Allowed-Origin": delivery.headers.get("webhook-request-origin", "")}))
        if delivery.method == "GET":
            return Heard(reply=Reply(delivery.query.get("challenge", "").encode()))
        body = parse_json_object(delivery.body)
        objects, lost = _texts(body, "objects"), _texts(body, "lost")
        keep = body.get("keep")
        if not (keep is None or (isinstance(keep, str) and keep)):
            raise InvalidInput("body.keep", "is no text", "send the id of a subscription")
        changes = [Change(one) for one in objects]
        if "scan" in body:
            changes.append(Change(str(body["scan"]), ChangeKind.SCAN))
        return Heard(
            changes,
            delivery_id=delivery.headers.get("x-delivery"),
            lost=lost,
            keep=Subscription(keep, secret="kept safe") if keep else None,
            note=str(body.get("note", "")),
        )


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    found: Any = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in cast("list[object]", found)):
        raise InvalidInput(f"body.{name}", "is no list of texts", "send texts")
    return cast("list[str]", found)


class Signed(Unsigned):
    """The same, signed like GitHub's; where ``X-Sent`` is sent, it is checked too."""

    name = "signed"
    needs_secret_path = False

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        if delivery.method == "POST":
            secrets = [*self.credentials.all("webhook"), *(one.secret for one in subscriptions if one.secret)]
            check_hmac(delivery.body, delivery.headers.get("x-hub-signature-256"), secrets, prefix="sha256=")
            if "x-sent" in delivery.headers:
                check_age(delivery.headers["x-sent"], delivery.received_at_ms)
        return super().parse_webhook(delivery, subscriptions)


class OnlyJson(Signed):
    name = "onlyjson"
    webhook_media_types = ("application/json",)


class Broken(Unsigned):
    name = "broken"
    needs_secret_path = False

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        raise ZeroDivisionError("a bug in a connector")


def register_all() -> None:
    for kind in (Deaf, Unsigned, Signed, OnlyJson, Broken):
        register(kind.name, kind)


def signature(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The header that proves `body`."""
    return {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def signed(payload: object, secret: str = SECRET, **headers: str) -> dict[str, Any]:
    """What `httpx.Client.post` takes to send this payload, proven."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"content": body, "headers": {"content-type": "application/json", **signature(body, secret), **named}}
