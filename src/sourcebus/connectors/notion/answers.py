"""What Notion's unsuccessful answers mean (Notion: "Status codes", "Request limits"), and whose token goes with a request."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, cast

import httpx

from sourcebus.connectors.http import retry_after_ms
from sourcebus.errors import ConnectorError, CursorExpired, ObjectUnreadable, Throttled

_THROTTLES = ("rate_limited", "service_overload")


class Tokens(httpx.Auth):
    """The integration's token: the one that was good last; where it is refused the others, each once."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tuple(tokens)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        for token in self._tokens:
            request.headers["Authorization"] = f"Bearer {token}"
            response = yield request
            if response.status_code != 401:
                if token != self._tokens[0]:
                    self._tokens = (token, *(one for one in self._tokens if one != token))
                return


def judge(response: httpx.Response) -> ConnectorError | None:
    """None: what HTTP says."""
    code, message, reason = said(response)
    status, path = response.status_code, response.request.url.path
    asked = f"{response.request.method} {path}: HTTP {status} {code}: {message}" + (f" ({reason})" if reason else "")
    if status in (429, 529) or code in _THROTTLES:
        return Throttled(asked, retry_after_ms(response.headers))
    if status == 400 and "cursor" in message.lower():
        return CursorExpired(asked)
    if status == 403:
        return ObjectUnreadable("forbidden", asked)
    if status in (400, 409):
        return ConnectorError(asked)
    return None


def said(response: httpx.Response) -> tuple[str, str, str]:
    """The error's code, its message, and which limit was met; "" where the answer has none."""
    try:
        error = cast("dict[str, Any]", response.json())
        more = error.get("additional_data")
        reason = cast("dict[str, Any]", more).get("rate_limit_reason", "") if isinstance(more, dict) else ""
        return str(error.get("code") or ""), str(error.get("message") or "")[:300], str(reason)[:100]
    except (ValueError, TypeError, AttributeError):
        return "", "", ""
