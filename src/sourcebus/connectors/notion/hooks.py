"""Webhooks: the handshake that brings the key, and what the events that are signed with it say.

Notion: "Webhooks", "Event types and delivery"; payloads as in `@notionhq/client` 5.26 (webhooks.d.ts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from sourcebus.connectors.notion.feed import ROWS
from sourcebus.connectors.notion.pages import ref_of
from sourcebus.connectors.payloads import parse_json_object
from sourcebus.connectors.signing import check_hmac, check_token
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import SECRET_HERE, WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, Reply, Subscription

_SIGNATURE = "x-notion-signature"
_TOKEN_CHARS = range(16, 513)
_LONGEST_HANDSHAKE = 1_024
_MAX_BLOCKS = 1_000
_SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)
_KINDS = {
    "page.created": ChangeKind.CREATED,
    "page.undeleted": ChangeKind.CREATED,
    "page.deleted": ChangeKind.DELETED,
}
_IGNORED = ("comment", "view", "file_upload")


def hear(delivery: Delivery, configured: Sequence[str], name: str, subscriptions: Sequence[Subscription]) -> Heard:
    """See `Hears`. `configured`: the verification tokens in the source's secret; `name`: under which one that a handshake
    brings is kept (Notion tells its own id only with the first event)."""
    living = [*configured, *(one.secret for one in subscriptions if one.secret)]
    signature = delivery.headers.get(_SIGNATURE)
    token = _offered(delivery.body)
    if token is not None:
        closed = bool(configured) or any(one.id == name for one in subscriptions)
        return _handshake(delivery.body, signature, token, living, None if closed else name)
    check_hmac(delivery.body, signature, living, prefix="sha256=")
    event = parse_json_object(delivery.body)
    newest = next((one for one in subscriptions if one.id == name and one.secret), None)
    if newest is None or newest.state.get("confirmed") or not _proves(delivery.body, signature, newest):
        return _meaning(event)
    # Its first event: the token is not shown any more, and those that it takes over from are good for nothing more.
    state = {"confirmed": True, "subscription": str(event.get("subscription_id", ""))[:64]}
    heard = _meaning(event)
    return replace(
        heard, keep=Subscription(name, None, newest.secret, state), lost=[one.id for one in subscriptions if one.id != name]
    )


def _proves(body: bytes, signature: str | None, subscription: Subscription) -> bool:
    try:
        check_hmac(body, signature, [subscription.secret or ""], prefix="sha256=")
    except Unverified:
        return False
    return True


def _handshake(body: bytes, signature: str | None, token: str, living: Sequence[str], name: str | None) -> Heard:
    """The one message that nothing proves. It is taken once: while nothing is kept under `name` (None: never again)."""
    if signature is not None:
        check_hmac(body, signature, [token], prefix="sha256=")
    if _is_known(token, living):
        return Heard(reply=Reply(), note="the handshake again: its token is the one that is known")
    if name is None:
        raise Unverified("a handshake, but a token is known already: to take a new one, change config.webhook")
    state = {"confirmed": False, "to_do": f"paste this verification token at Notion: {SECRET_HERE}"}
    return Heard(reply=Reply(), keep=Subscription(name, None, token, state), note="the handshake of a new subscription")


def _is_known(token: str, living: Sequence[str]) -> bool:
    try:
        check_token(token, living)
    except Unverified:
        return False
    return True


def _offered(body: bytes) -> str | None:
    """The token in a handshake; None for any other body. What is longer than any handshake is not parsed before its proof."""
    if len(body) > _LONGEST_HANDSHAKE:
        return None
    try:
        given = parse_json_object(body)
    except InvalidInput:
        return None
    token = given.get("verification_token")
    if set(given) != {"verification_token"} or not isinstance(token, str) or len(token) not in _TOKEN_CHARS:
        return None
    return token if token.isascii() and token.isprintable() else None


def _meaning(event: Mapping[str, Any]) -> Heard:
    kind, event_id = event.get("type"), event.get("id")
    if not isinstance(kind, str) or not kind:
        raise InvalidInput("type", "is missing", "send an event as Notion sends it")
    delivery_id = event_id[:200] if isinstance(event_id, str) and event_id else None
    topic = kind.partition(".")[0]
    if topic in _IGNORED:
        return Heard(delivery_id=delivery_id, note=f"{kind[:60]}: nothing of it is indexed")
    attempt = event.get("attempt_number")
    note = f"attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""
    if topic == "page":
        changes = [Change(_entity(event), _KINDS.get(kind, ChangeKind.UPDATED))]
    elif topic in ("data_source", "database"):
        changes = _of_rows(topic, kind, event)
    else:
        changes, note = [_SCAN], f"unknown event {kind[:60]!r}"
    return Heard(changes, delivery_id=delivery_id, note=note)


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
