"""Webhooks: the handshake that brings the key, and what the events that are signed with it say.

Notion: "Webhooks", "Event types and delivery"; payloads as in `@notionhq/client` 5.26 (webhooks.d.ts).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sourcebus.connectors.notion.feed import ROWS
from sourcebus.connectors.notion.pages import ref_of
from sourcebus.connectors.signing import check_hmac, check_token
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, Reply, Subscription

SUBSCRIPTION = "webhook"
"""The id under which the one subscription of a source is kept: Notion tells its own only with the first event."""

_SIGNATURE = "x-notion-signature"
_TOKEN_CHARS = range(16, 513)
_MAX_BLOCKS = 1_000
_SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)
_KINDS = {
    "page.created": ChangeKind.CREATED,
    "page.undeleted": ChangeKind.CREATED,
    "page.deleted": ChangeKind.DELETED,
}
_IGNORED = ("comment", "view", "file_upload")


def hear(delivery: Delivery, configured: Sequence[str], subscriptions: Sequence[Subscription]) -> Heard:
    """See `Hears`. `configured`: the verification tokens in the source's secret."""
    living = [*configured, *(one.secret for one in subscriptions if one.secret)]
    signature = delivery.headers.get(_SIGNATURE)
    if not living or signature is None:
        return _handshake(delivery, signature, living)
    check_hmac(delivery.body, signature, living, prefix="sha256=")
    event = _object(delivery.body)
    if "verification_token" in event and "type" not in event:
        return Heard(reply=Reply(), note="the handshake again: its token is the one that is known")
    return _meaning(event, _confirmed(event, subscriptions))


def _handshake(delivery: Delivery, signature: str | None, living: Sequence[str]) -> Heard:
    """The one message that nothing proves. It is taken while no token is known, and never again."""
    token = _offered(delivery.body)
    if token is None:
        check_hmac(delivery.body, signature, living, prefix="sha256=")
        raise Unverified("the signature is missing")
    if signature is not None:
        check_hmac(delivery.body, signature, [token], prefix="sha256=")
    if living:
        check_token(token, living)
        return Heard(reply=Reply(), note="the handshake again: its token is the one that is known")
    state = {"verification_token": token, "confirmed": False}
    return Heard(
        reply=Reply(),
        keep=Subscription(SUBSCRIPTION, None, token, state),
        note="the handshake of a new subscription: paste the verification token that is shown with it at Notion",
    )


def _offered(body: bytes) -> str | None:
    """The token in a handshake; None for any other body."""
    try:
        given = _object(body)
    except InvalidInput:
        return None
    token = given.get("verification_token")
    if set(given) != {"verification_token"} or not isinstance(token, str) or len(token) not in _TOKEN_CHARS:
        return None
    return token if token.isascii() and token.isprintable() else None


def _confirmed(event: Mapping[str, Any], subscriptions: Sequence[Subscription]) -> Subscription | None:
    """The kept subscription once its first event has come: from then on its token is not shown any more."""
    for one in subscriptions:
        if one.id == SUBSCRIPTION and one.secret and not one.state.get("confirmed"):
            state = {"confirmed": True, "subscription": str(event.get("subscription_id", ""))[:64]}
            return Subscription(SUBSCRIPTION, None, one.secret, state)
    return None


def _meaning(event: Mapping[str, Any], keep: Subscription | None) -> Heard:
    kind, event_id = event.get("type"), event.get("id")
    if not isinstance(kind, str) or not kind:
        raise InvalidInput("type", "is missing", "send an event as Notion sends it")
    delivery_id = event_id[:200] if isinstance(event_id, str) and event_id else None
    topic = kind.partition(".")[0]
    if topic in _IGNORED:
        return Heard(delivery_id=delivery_id, keep=keep, note=f"{kind[:60]}: nothing of it is indexed")
    attempt = event.get("attempt_number")
    note = f"attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""
    if topic == "page":
        changes = [Change(_entity(event), _KINDS.get(kind, ChangeKind.UPDATED))]
    elif topic in ("data_source", "database"):
        changes = _of_rows(topic, kind, event)
    else:
        changes, note = [_SCAN], f"unknown event {kind[:60]!r}"
    return Heard(changes, delivery_id=delivery_id, keep=keep, note=note)


def _entity(event: Mapping[str, Any]) -> str:
    ref = ref_of(_inner(event, "entity").get("id"))
    if ref is None:
        raise InvalidInput("entity.id", "is no id", "send an event as Notion sends it")
    return ref


def _of_rows(topic: str, kind: str, event: Mapping[str, Any]) -> list[Change]:
    """The rows that the event names, else a scan: of the data source's rows, or of everything where it does not name one."""
    data = _inner(event, "data")
    if kind.endswith(".content_updated"):
        blocks = data.get("updated_blocks")
        named = cast("list[Any]", blocks) if isinstance(blocks, list) else []
        rows = {ref: None for one in named[:_MAX_BLOCKS] if (ref := _page_of(one))}
        if 0 < len(rows) == len(named):
            return [Change(ref) for ref in rows]
    if topic == "data_source" and _inner(event, "entity").get("type") == "data_source":
        return [Change(f"{ROWS}{_entity(event)}", ChangeKind.SCAN)]
    return [_SCAN]


def _page_of(block: Any) -> str | None:
    if not isinstance(block, dict) or cast("Mapping[str, Any]", block).get("type") != "page":
        return None
    return ref_of(cast("Mapping[str, Any]", block).get("id"))


def _inner(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = given.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput("body", "is no JSON object", "send an event as Notion sends it")
    return cast("dict[str, Any]", value)
