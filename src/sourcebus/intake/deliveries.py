"""Writing the deliveries log: beside the answers, in the background, and never more than a little.

A line is noted in memory and stored within about a second, together with others. Under a flood only the newest of each
source are stored, which is all that is kept anyway. A crash loses the lines of the last second; it never loses an event.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode

import structlog

from sourcebus.catalog import Catalog
from sourcebus.errors import CatalogError
from sourcebus.model import Delivery, DeliveryLine, JsonObject
from sourcebus.telemetry import HIDDEN, hide_secrets

RESULTS: Final[Mapping[str, str]] = {
    "stored": "its events are stored",
    "duplicate": "it was stored before, so nothing new follows",
    "handshake": "the provider's handshake, answered",
    "nothing": "proven, and nothing follows from it (a ping, an event of no interest)",
    "unverified": "it does not prove that it comes from the provider",
    "invalid": "proven, and it makes no sense",
    "refused": "not looked at: too large, too slow, too many, or of the wrong media type",
    "failed": "the bus or the database did not answer; the provider was told to send it again",
}
"""What a delivery was taken for, in the log and in the metrics."""

REFUSED: Final = ("unverified", "refused")
"""Those that anybody can send, so that they are kept apart from the others."""

KEPT_BODY_BYTES: Final = 65_536
"""A longer body is not kept, so it can be neither shown nor looked at again."""

KEEP_REFUSED: Final = 10
"""Refused deliveries of each source that are kept."""

_MOST_LINES: Final = 200
_EVERY_S: Final = 1.0

_SECRET_HEADER: Final = re.compile(
    r".*(auth|signature|token|cookie|secret|key|credential|hmac|digest|password|client-?state).*", re.IGNORECASE
)
_SECRET_FIELD: Final = re.compile(r"client_?state|.*verify.*|sig(nature)?", re.IGNORECASE)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Noted:
    """A delivery as the gateway saw it, with its body only if that is kept. `secrets` are not shown wherever they turn up."""

    source_id: str
    delivery: Delivery
    body_bytes: int
    result: str
    detail: JsonObject
    duration_ms: float
    secrets: Sequence[str]


class DeliveryLog:
    """The log of this process's deliveries, at most `keep` of each source. Its thread begins with the first line."""

    def __init__(self, catalog: Catalog, keep: int) -> None:
        self._catalog, self._keep = catalog, keep
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, bool], deque[Noted]] = {}
        self._count = 0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self.not_logged = 0

    def note(
        self, source_id: str, delivery: Delivery, result: str, detail: JsonObject, duration_ms: float, secrets: Sequence[str]
    ) -> None:
        """Has a line stored soon. Cheap: it is called while the provider waits."""
        size = len(delivery.body)
        if size > KEPT_BODY_BYTES:
            delivery = replace(delivery, body=b"")
        noted = Noted(source_id, delivery, size, result, detail, duration_ms, secrets)
        with self._lock:
            self._keep_waiting(noted, result in REFUSED)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="deliveries-log", daemon=True)
                self._thread.start()

    def _keep_waiting(self, noted: Noted, refused: bool) -> None:
        key = (noted.source_id, refused)
        lines = self._waiting.get(key)
        if lines is None:
            lines = self._waiting[key] = deque(maxlen=KEEP_REFUSED if refused else self._keep)
        if len(lines) == lines.maxlen:
            self.not_logged += 1  # the oldest goes
        elif self._count >= _MOST_LINES:
            self.not_logged += 1
            return
        else:
            self._count += 1
        lines.append(noted)

    def flush(self) -> None:
        """Stores what was noted so far. What cannot be stored is said in the log and given up."""
        with self._lock:
            waiting, self._waiting, self._count = self._waiting, {}, 0
        noted = [(one, refused) for (_, refused), lines in waiting.items() for one in lines]
        if not noted:
            return
        noted.sort(key=lambda pair: pair[0].delivery.received_at_ms)
        try:
            lines = [(_line(one), refused) for one, refused in noted]
            self._catalog.log_deliveries(lines, keep=self._keep, keep_refused=KEEP_REFUSED)
        except CatalogError as error:
            with self._lock:
                self.not_logged += len(noted)
            _log.warning("deliveries_not_logged", lines=len(noted), error=str(error))

    def close(self) -> None:
        """Stores what is left, and ends."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._closed.wait(_EVERY_S):
            self.flush()


def show(line: DeliveryLine, secrets: Sequence[str] = ()) -> JsonObject:
    """A line as JSON, with the body where it was kept; neither has a secret in it."""
    shown: JsonObject = {
        "id": str(line.id),
        "source_id": line.source_id,
        "at_ms": line.at_ms,
        "method": line.method,
        "result": line.result,
        "meaning": RESULTS.get(line.result, ""),
        "headers": dict(line.headers),
        "query": dict(line.query),
        "body_bytes": line.body_bytes,
        "duration_ms": line.duration_ms,
        "detail": dict(line.detail),
    }
    if line.delivery is not None:
        shown["body"] = _without(_shown_body(line.delivery), secrets)
    return shown


def _line(noted: Noted) -> DeliveryLine:
    one = noted.delivery
    return DeliveryLine(
        source_id=noted.source_id,
        at_ms=one.received_at_ms,
        method=one.method,
        result=noted.result,
        headers={name: _masked(name, value, _SECRET_HEADER, noted.secrets) for name, value in one.headers.items()},
        query={name: _masked(name, value, _SECRET_FIELD, noted.secrets) for name, value in one.query.items()},
        body_bytes=noted.body_bytes,
        duration_ms=round(noted.duration_ms, 2),
        detail=cast("JsonObject", _without_any(hide_secrets(noted.detail), noted.secrets)),
        delivery=one if noted.body_bytes <= KEPT_BODY_BYTES else None,
    )


def _masked(name: str, value: str, secret: re.Pattern[str], secrets: Sequence[str]) -> str:
    if secret.fullmatch(name):
        return HIDDEN
    return _without(str(hide_secrets(value, name)), secrets)


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _without_any(value: object, secrets: Sequence[str]) -> object:
    if isinstance(value, str):
        return _without(value, secrets)
    if isinstance(value, dict):
        return {name: _without_any(inner, secrets) for name, inner in cast("JsonObject", value).items()}
    return [_without_any(inner, secrets) for inner in cast("list[object]", value)] if isinstance(value, list) else value


def _shown_body(delivery: Delivery) -> str:
    media_type = delivery.headers.get("content-type", "")
    text = delivery.body.decode("utf-8", "replace")
    if "json" in media_type or text.lstrip()[:1] in ("{", "["):
        try:
            return json.dumps(_hidden(json.loads(text)), ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
    if media_type.startswith("application/x-www-form-urlencoded"):
        pairs = parse_qsl(text, keep_blank_values=True)
        return urlencode(
            [(name, HIDDEN if _SECRET_FIELD.fullmatch(name) else hide_secrets(value, name)) for name, value in pairs]
        )
    return text


def _hidden(value: Any) -> Any:
    """`hide_secrets`, and what providers have their own names for (Graph's clientState, Slack's challenge)."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {
            name: HIDDEN if isinstance(inner, str) and _SECRET_FIELD.fullmatch(name) else _hidden(hide_secrets(inner, name))
            for name, inner in fields.items()
        }
    return [_hidden(inner) for inner in cast("list[Any]", value)] if isinstance(value, list) else value
