"""The event's two written forms: a plain JSON object, and a CloudEvents 1.0 event of type ``source.changed``.

Plain::

    {"source_id": "docs", "object_ref": "a/b.md", "change_kind": "updated", "observed_at": "2026-01-31T09:30:00Z",
     "signal": "webhook", "version": "etag-7", "trace": "00-…-01"}

Only `source_id` and `object_ref` are required; ``""`` as `object_ref` is the whole source and goes with ``scan``. In
CloudEvents the same object is `data`. What `data` leaves out is taken from the envelope: `source_id` from ``source`` (either
``/v1/sources/<percent-encoded id>``, which is what is written here, or the id itself), `object_ref` from ``subject``,
`observed_at` from ``time``, `trace` from the ``traceparent`` extension.

Reading refuses what it does not know instead of guessing, and says where: ``events[3].source_id``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn, cast
from urllib.parse import quote, unquote
from uuid import uuid4

from sourcebus.errors import InvalidInput
from sourcebus.model import MAX_ID_BYTES, MAX_REF_BYTES, ChangeKind, JsonObject, Signal, SourceChanged

CLOUDEVENT_TYPE: Final = "source.changed"

MAX_EVENTS: Final = 10_000
"""Most events that one batch may hold unless the caller says otherwise."""

_MAX_HINT_BYTES: Final = 1024
_SOURCE_PREFIX: Final = "/v1/sources/"
_KINDS: Final = {kind.value: kind for kind in ChangeKind}
_SIGNALS: Final = {signal.value: signal for signal in Signal}
_FIELDS: Final = frozenset(SourceChanged.__dataclass_fields__)
_JSON_KINDS: Final[dict[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
}
_ENVELOPE: Final = (("object_ref", "subject"), ("observed_at", "time"), ("trace", "traceparent"))


def decode(obj: object, field: str = "") -> SourceChanged:
    """Reads one event in either form. `field` is where it stands (``events[3]``): the `InvalidInput` begins with it."""
    if not isinstance(obj, dict):
        raise InvalidInput(field or "event", f"is {_kind_of(obj)}, not an object", 'send {"source_id": …, "object_ref": …}')
    fields = cast("JsonObject", obj)
    return _decode_cloudevent(fields, field) if "specversion" in fields else _decode_plain(fields, field)


def decode_batch(payload: object, max_events: int = MAX_EVENTS) -> list[SourceChanged]:
    """Reads one event or a list of events, all or none: `InvalidInput` names the first that is wrong by its index."""
    if not isinstance(payload, list):
        return [decode(payload)]
    items = cast("list[object]", payload)
    if len(items) > max_events:
        raise InvalidInput("events", f"{len(items)} events in one batch", f"send at most {max_events} at a time")
    return [decode(item, f"events[{index}]") for index, item in enumerate(items)]


def encode(event: SourceChanged) -> JsonObject:
    """The plain form, without what is not set. `decode` reads it back equal."""
    written: JsonObject = {
        "source_id": event.source_id,
        "object_ref": event.object_ref,
        "change_kind": event.change_kind.value,
        "observed_at": None if event.observed_at is None else _rfc3339(event.observed_at),
        "signal": event.signal.value,
        "version": event.version,
        "trace": event.trace,
    }
    return {name: value for name, value in written.items() if value is not None}


def to_cloudevent(event: SourceChanged) -> JsonObject:
    """The CloudEvents 1.0 form (structured JSON). Every call makes a new ``id``: what is told twice is two claims.

    ``subject`` is left out where the reference holds characters that CloudEvents forbids in an attribute; `data` has it anyway.
    """
    written: JsonObject = {
        "specversion": "1.0",
        "type": CLOUDEVENT_TYPE,
        "id": uuid4().hex,
        "source": _SOURCE_PREFIX + quote(event.source_id, safe=""),
        "datacontenttype": "application/json",
        "data": encode(event),
    }
    if event.object_ref and event.object_ref.isprintable():
        written["subject"] = event.object_ref
    if event.observed_at is not None:
        written["time"] = _rfc3339(event.observed_at)
    if event.trace is not None:
        written["traceparent"] = event.trace
    return written


def from_headers(headers: Iterable[tuple[str, str]], data: object) -> JsonObject:
    """The structured form of a CloudEvent in HTTP's binary mode: ``ce-…`` headers, and the parsed body or None as `data`."""
    event: JsonObject = {
        name[3:].lower(): unquote(value.strip('"')) for name, value in headers if name[:3].lower() == "ce-" and len(name) > 3
    }
    return event if data is None else event | {"data": data}


def _decode_plain(obj: Mapping[str, Any], field: str) -> SourceChanged:
    if not obj.keys() <= _FIELDS:
        unknown = min(str(name) for name in obj.keys() - _FIELDS)
        _refuse(field, unknown, "is not a field of an event", "fields are " + ", ".join(sorted(_FIELDS)))
    get = obj.get
    kind = get("change_kind", "updated")
    signal = get("signal", "webhook")
    if type(kind) is not str or kind not in _KINDS:
        _refuse(field, "change_kind", _is(kind), "send one of " + ", ".join(_KINDS))
    if type(signal) is not str or signal not in _SIGNALS:
        _refuse(field, "signal", _is(signal), "send one of " + ", ".join(_SIGNALS))
    source_id = _text(get("source_id"), MAX_ID_BYTES, field, "source_id")
    if not source_id:
        _refuse(field, "source_id", "is empty", "send the id of a source")
    # A file's name need not be UTF-8; Python and JSON carry its odd bytes as lone surrogates.
    object_ref = _text(get("object_ref"), MAX_REF_BYTES, field, "object_ref", "surrogatepass")
    if not object_ref and kind != "scan":
        _refuse(field, "object_ref", "is empty", 'name the object, or send "change_kind": "scan" for the whole source')
    observed, version, trace = get("observed_at"), get("version"), get("trace")
    return SourceChanged(
        source_id,
        object_ref,
        _KINDS[kind],
        None if observed is None else _time(observed, field),
        _SIGNALS[signal],
        None if version is None else _text(version, _MAX_HINT_BYTES, field, "version"),
        None if trace is None else _text(trace, _MAX_HINT_BYTES, field, "trace"),
    )


def _decode_cloudevent(obj: JsonObject, field: str) -> SourceChanged:
    if obj["specversion"] != "1.0":
        _refuse(field, "specversion", _is(obj["specversion"]), 'send "1.0"')
    if obj.get("type") != CLOUDEVENT_TYPE:
        _refuse(field, "type", _is(obj.get("type")), f'send "{CLOUDEVENT_TYPE}"')
    for name in ("id", "source"):
        if type(obj.get(name)) is not str or not obj[name]:
            _refuse(field, name, _is(obj.get(name)), "CloudEvents require it as a string that is not empty")
    event = _data(obj, field)
    for name, attribute in _ENVELOPE:
        if name not in event and attribute in obj:
            event[name] = obj[attribute]
    if "source_id" not in event:
        source = cast("str", obj["source"])
        event["source_id"] = unquote(source[len(_SOURCE_PREFIX) :]) if source.startswith(_SOURCE_PREFIX) else source
    return _decode_plain(event, _join(field, "data"))


def _data(obj: JsonObject, field: str) -> JsonObject:
    data: object = obj.get("data")
    if data is None and "data_base64" in obj:
        try:
            data = json.loads(base64.b64decode(obj["data_base64"], validate=True))
        except (ValueError, TypeError, RecursionError):
            _refuse(field, "data_base64", "is not base64 of a JSON object", 'send "data" as a JSON object')
    if data is None:
        return {}
    if not isinstance(data, dict):
        _refuse(field, "data", f"is {_kind_of(data)}, not an object", 'send {"source_id": …, "object_ref": …}')
    return dict(cast("JsonObject", data))


def _text(value: object, max_bytes: int, field: str, name: str, errors: str = "strict") -> str:
    if not isinstance(value, str):
        _refuse(field, name, _is(value), "send a string")
    try:
        size = len(value.encode("utf-8", errors))
    except UnicodeEncodeError:
        _refuse(field, name, "holds half of a surrogate pair", "send valid Unicode")
    if size > max_bytes:
        _refuse(field, name, f"is {size} bytes long", f"send at most {max_bytes} bytes of UTF-8")
    return value


def _time(value: object, field: str) -> datetime:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not 1970 < at.year < 9999:
        _refuse(field, "observed_at", _is(value), 'send RFC 3339 with a time zone, such as "2026-01-31T09:30:00Z"')
    return at


def _rfc3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _refuse(field: str, name: str, problem: str, fix: str) -> NoReturn:
    raise InvalidInput(_join(field, name), problem, fix)


def _join(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _is(value: object) -> str:
    if value is None:
        return "is missing"
    shown = ascii(value) if isinstance(value, (str, int, float)) else _kind_of(value)
    return "is " + (shown if len(shown) <= 60 else shown[:57] + "...")


def _kind_of(value: object) -> str:
    return _JSON_KINDS.get(type(value), "null")
