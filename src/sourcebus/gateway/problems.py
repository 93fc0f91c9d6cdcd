"""Errors as RFC 9457 problem details: ``{type, title, status, detail, field?, fix?}``, and JSON that any reference survives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from sourcebus.errors import (
    BusUnavailable,
    CatalogError,
    CatalogUnavailable,
    Conflict,
    ConnectorError,
    InvalidInput,
    SourcebusError,
    StorageFull,
    UnknownSource,
    Unverified,
)
from sourcebus.model import JsonObject

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER_S: Final = 2
"""What a client is told to wait when Redis or the database does not answer: about the time they take to restart."""

TITLES: Final[Mapping[str, tuple[HTTPStatus, str]]] = {
    "malformed": (HTTPStatus.BAD_REQUEST, "The body is not JSON"),
    "unverified": (HTTPStatus.UNAUTHORIZED, "The delivery does not prove where it comes from"),
    "cross-site": (HTTPStatus.FORBIDDEN, "A page of another site may not do this"),
    "not-found": (HTTPStatus.NOT_FOUND, "There is nothing here"),
    "unknown-source": (HTTPStatus.NOT_FOUND, "There is no such source"),
    "no-hook": (HTTPStatus.NOT_FOUND, "This source takes no deliveries"),
    "unknown-delivery": (HTTPStatus.NOT_FOUND, "There is no such delivery"),
    "unknown-dead-letter": (HTTPStatus.NOT_FOUND, "There is no such dead letter"),
    "method": (HTTPStatus.METHOD_NOT_ALLOWED, "This address does not know that method"),
    "too-slow": (HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time"),
    "conflict": (HTTPStatus.CONFLICT, "That does not go with what is there"),
    "too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "More than is taken at once"),
    "media-type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "This form of body is not understood"),
    "unknown-host": (HTTPStatus.MISDIRECTED_REQUEST, "This server does not go by that name"),
    "invalid": (HTTPStatus.UNPROCESSABLE_ENTITY, "What was sent cannot be used"),
    "too-often": (HTTPStatus.TOO_MANY_REQUESTS, "Not again so soon"),
    "internal": (HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here"),
    "catalog": (HTTPStatus.INTERNAL_SERVER_ERROR, "The database cannot be used as it is"),
    "connector": (HTTPStatus.BAD_GATEWAY, "The source could not be used"),
    "bus-unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The event bus does not answer"),
    "catalog-unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer"),
    "busy": (HTTPStatus.SERVICE_UNAVAILABLE, "Too much is being received at once"),
    "not-ready": (HTTPStatus.SERVICE_UNAVAILABLE, "Not everything that is needed is there"),
    "storage-full": (HTTPStatus.INSUFFICIENT_STORAGE, "There is no room left"),
}
"""Problem name → its status and title. `type` is ``urn:sourcebus:problem:<name>``; docs/api.md lists them."""


class Problem(Exception):
    """An answer other than success. `name` is a key of `TITLES`; `more` are further members of the JSON object."""

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        field: str = "",
        fix: str = "",
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.name, self.detail, self.field, self.fix = name, detail, field, fix
        self.headers, self.more = dict(headers or {}), dict(more or {})

    @property
    def status(self) -> int:
        return TITLES[self.name][0]

    def response(self) -> Response:
        status, title = TITLES[self.name]
        body: dict[str, Any] = {
            "type": f"urn:sourcebus:problem:{self.name}",
            "title": title,
            "status": int(status),
            "detail": self.detail,
        }
        body |= {name: value for name, value in (("field", self.field), ("fix", self.fix)) if value}
        return answer(body | self.more, status, self.headers, MEDIA_TYPE)


def answer(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    """`content` as JSON in plain ASCII: a reference may hold lone surrogates, which no UTF-8 text can."""
    body = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("ascii"), status, dict(headers or {}), media_type)


def problem_of(error: SourcebusError) -> Problem | None:
    """The problem that an expected error is; None for one that means that something is broken here."""
    if isinstance(error, InvalidInput):
        name = "unknown-source" if isinstance(error, UnknownSource) else "invalid"
        return Problem(name, error.problem, field=error.field, fix=error.fix)
    if isinstance(error, Unverified):
        return Problem("unverified", str(error), headers={"WWW-Authenticate": "Webhook"})
    if isinstance(error, Conflict):
        return Problem("conflict", str(error))
    if isinstance(error, BusUnavailable):
        return Problem("bus-unavailable", str(error), headers=_RETRY, fix="send it again: it may not have been stored")
    if isinstance(error, CatalogUnavailable):
        return Problem("catalog-unavailable", str(error), headers=_RETRY, fix="send it again")
    if isinstance(error, StorageFull):
        return Problem("storage-full", str(error), fix="make room on the disk")
    if isinstance(error, CatalogError):
        return Problem("catalog", str(error))
    if isinstance(error, ConnectorError):
        return Problem("connector", str(error))
    return None


_RETRY = {"Retry-After": str(RETRY_AFTER_S)}


def describe_problems(schema: JsonObject) -> None:
    """Says in the OpenAPI document that every call may be answered with a problem."""
    texts = {name: {"type": "string"} for name in ("type", "title", "detail", "field", "fix")}
    schema.setdefault("components", {})["schemas"] = {
        "Problem": {
            "type": "object",
            "description": "RFC 9457: what went wrong, the field that is meant, and what to do.",
            "required": ["type", "title", "status", "detail"],
            "properties": texts | {"status": {"type": "integer"}},
        }
    }
    problem = {
        "description": "a problem",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for methods in schema["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = problem
