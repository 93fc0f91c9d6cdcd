"""``POST /v1/events``: signals in, as plain JSON or CloudEvents. Answered only when they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sourcebus.bus import Emitted
from sourcebus.gateway.problems import Problem, answer
from sourcebus.gateway.requests import in_thread, parse_json, read_body, require_media_type
from sourcebus.intake.events import decode, decode_batch, from_headers
from sourcebus.model import Signal, SourceChanged
from sourcebus.runtime import Runtime

PLAIN: Final = "application/json"
STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"

OnAccept = Callable[[Emitted], None]

_EVENT = {"source_id": "docs", "object_ref": "guide/start.md", "change_kind": "updated", "observed_at": "2026-01-31T09:30:00Z"}
_CLOUD = {"specversion": "1.0", "type": "source.changed", "id": "1", "source": "/v1/sources/docs", "data": _EVENT}

_log = structlog.get_logger(__name__)


def router(runtime: Runtime, on_accept: OnAccept | None) -> APIRouter:
    routes = APIRouter(tags=["events"])
    max_bytes, max_events = runtime.settings.max_body_bytes, runtime.settings.max_events

    def accept(media_type: str, binary: list[tuple[str, str]] | None, body: bytes) -> Emitted:
        events = _events(media_type, binary, body, max_events)
        _refuse_manual(events)
        emitted = runtime.intake.accept(events)
        if on_accept is not None:
            try:
                on_accept(emitted)
            except Exception:  # noqa: BLE001 - whatever it was: the events are stored, so the answer stays 202
                _log.exception("http_hook_failed")
        return emitted

    @routes.post(
        "/v1/events",
        status_code=202,
        summary="Say that objects changed",
        response_class=Response,
        responses={202: {"content": {PLAIN: {"example": {"accepted": 1, "merged": 0, "deferred": 0, "overflowed": 0}}}}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {PLAIN: {"example": _EVENT}, STRUCTURED: {"example": _CLOUD}, BATCH: {"example": [_CLOUD]}},
            }
        },
    )
    async def post_events(request: Request) -> Response:
        """One event, a list of events, or CloudEvents 1.0 (structured, batch, or binary with ce- headers).

        A batch is taken whole or not at all; 202 comes after everything is stored."""
        binary = list(request.headers.items()) if "ce-specversion" in request.headers else None
        media_type = _media_type(request, binary is not None)
        body = await read_body(request, max_bytes)
        emitted = await in_thread(accept, media_type, binary, body)
        return answer(
            {
                "accepted": emitted.accepted,
                "merged": emitted.merged,
                "deferred": emitted.deferred,
                "overflowed": emitted.overflowed,
            },
            202,
        )

    return routes


def _media_type(request: Request, binary: bool) -> str:
    if binary and not request.headers.get("content-type"):
        return PLAIN  # a CloudEvent in binary mode may have no data, and so no type of data
    return require_media_type(request.headers.get("content-type", ""), (PLAIN, STRUCTURED, BATCH))


def _events(media_type: str, binary: list[tuple[str, str]] | None, body: bytes, max_events: int) -> Sequence[SourceChanged]:
    if binary is not None and media_type == PLAIN:
        return [decode(from_headers(binary, parse_json(body) if body else None))]
    payload = parse_json(body)
    if isinstance(payload, list) and len(cast("list[object]", payload)) > max_events:
        detail = f"{len(cast('list[object]', payload))} events in one batch"
        raise Problem("too-large", detail, field="events", fix=f"send at most {max_events} at a time")
    if media_type == STRUCTURED and not isinstance(payload, dict):
        raise Problem("invalid", f"{STRUCTURED} holds one event, not a list", fix=f"send a list as {BATCH}")
    if media_type == BATCH and not isinstance(payload, list):
        raise Problem("invalid", f"{BATCH} holds a list of events", fix=f"send one event as {STRUCTURED}")
    if media_type != PLAIN:
        _require_cloudevents(cast("object", payload))
    return decode_batch(cast("object", payload), max_events)


def _require_cloudevents(payload: object) -> None:
    for index, item in enumerate(cast("list[object]", payload) if isinstance(payload, list) else [payload]):
        if isinstance(item, dict) and "specversion" not in item:
            field = f"events[{index}].specversion" if isinstance(payload, list) else "specversion"
            raise Problem("invalid", "is missing", field=field, fix='send "1.0", or plain events as application/json')


def _refuse_manual(events: Sequence[SourceChanged]) -> None:
    # A manual signal goes ahead of all others, so there is one way to send one: the way that is capped.
    for index, event in enumerate(events):
        if event.signal is Signal.MANUAL:
            field = f"events[{index}].signal" if len(events) > 1 else "signal"
            raise Problem("invalid", "is 'manual'", field=field, fix="POST /v1/sources/{id}/refresh")
