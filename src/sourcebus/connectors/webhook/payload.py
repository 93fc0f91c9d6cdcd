"""What a payload says, by the configured expressions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jmespath
from jmespath.exceptions import JMESPathError

from sourcebus.connectors.payloads import parse_form_body, parse_json_body
from sourcebus.connectors.webhook.settings import Inline, WebhookSettings
from sourcebus.errors import InvalidInput
from sourcebus.model import Change, ChangeKind, Content, Delivery, Heard

MOST_CHANGES = 10_000
"""A delivery that names more objects is refused: it should ask for a scan."""

_FORM = "application/x-www-form-urlencoded"


def find(expression: str | None, value: object, field: str) -> Any:
    """What an expression finds; None for no expression. InvalidInput names the setting where it does not fit the value."""
    if expression is None:
        return None
    try:
        return cast("Any", jmespath).search(expression, value)
    except JMESPathError as error:
        raise InvalidInput(field, f"does not fit what was sent ({str(error).splitlines()[0]})") from None


def parse(delivery: Delivery) -> object:
    """The body as JSON, or a form's fields as an object. InvalidInput."""
    if delivery.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        return parse_form_body(delivery.body)
    return parse_json_body(delivery.body)


def understand(settings: WebhookSettings, delivery: Delivery, payload: object) -> Heard:
    """The changes and contents that a proven payload brings. InvalidInput names the setting that found nothing usable."""
    changes: list[Change] = []
    contents: list[Content] = []
    ignored = 0
    for item in _items(settings, payload):
        kind = _kind(settings, item)
        if kind is None:
            ignored += 1
            continue
        version = _text(find(settings.version, item, "config.version"))
        for ref in _refs(settings, item, kind):
            changes.append(Change(ref, kind, version=version))
            if settings.inline is not None and kind is not ChangeKind.SCAN:
                contents.append(_content(settings, settings.inline, item, ref, kind, version))
            if len(changes) > MOST_CHANGES:
                raise InvalidInput("body", f"names more than {MOST_CHANGES} objects", "send them in several deliveries")
    note = f"{ignored} of no interest" if ignored else "" if changes else "names no object"
    return Heard(changes, contents, delivery_id=_delivery_id(settings, delivery, payload), note=note)


def _items(settings: WebhookSettings, payload: object) -> Sequence[object]:
    found = find(settings.items, payload, "config.items")
    if found is None:
        return ()
    return cast("list[object]", found) if isinstance(found, list) else (found,)


def _kind(settings: WebhookSettings, item: object) -> ChangeKind | None:
    word = _text(find(settings.kind, item, "config.kind"))
    if word is None:
        return ChangeKind.UPDATED
    named = settings.kinds.get(word, word if word in {kind.value for kind in ChangeKind} else "updated")
    return None if named == "ignore" else ChangeKind(named)


def _refs(settings: WebhookSettings, item: object, kind: ChangeKind) -> Iterator[str]:
    found = find(settings.ref, item, "config.ref")
    values = cast("list[object]", found) if isinstance(found, list) else [found]
    for value in values:
        ref = _text(value)
        if not ref and kind is not ChangeKind.SCAN:
            raise InvalidInput(
                "config.ref", f"finds {value!r:.80} in an item, no reference", "ignore such items by kind, or mend ref"
            )
        yield ref or ""


def _content(
    settings: WebhookSettings, inline: Inline, item: object, ref: str, kind: ChangeKind, version: str | None
) -> Content:
    order = find(settings.order, item, "config.order")
    number = float(order) if isinstance(order, (int, float)) and not isinstance(order, bool) else None
    if kind is ChangeKind.DELETED:
        return Content(ref, version or "", None, order=number)
    text, title = find(inline.text, item, "config.inline.text"), find(inline.title, item, "config.inline.title")
    if not isinstance(text, str):
        raise InvalidInput("config.inline.text", f"finds {type(text).__name__} for {ref!r:.80}, no text")
    body, name = text.encode("utf-8", "replace"), _text(title) or ""
    content = hashlib.blake2b(name.encode("utf-8", "replace") + b"\0" + body, digest_size=16).hexdigest()
    return Content(ref, f"{version}:{content}" if version else content, body, name, inline.media_type, number)


def _delivery_id(settings: WebhookSettings, delivery: Delivery, payload: object) -> str | None:
    if settings.delivery_header is not None:
        return delivery.headers.get(settings.delivery_header.lower())
    if settings.proof.kind == "standard-webhooks":
        return delivery.headers.get("webhook-id")
    return _text(find(settings.delivery_id, payload, "config.delivery_id"))


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)
