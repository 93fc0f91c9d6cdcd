"""What Graph's unsuccessful answers mean (Microsoft: "Microsoft Graph error responses", "Avoid getting throttled")."""

from __future__ import annotations

from typing import Any, cast

import httpx

from sourcebus.connectors.http import retry_after_ms
from sourcebus.errors import ConnectorError, CursorExpired, ObjectUnreadable, Throttled

_THROTTLES = ("activityLimitReached", "tooManyRequests", "throttledRequest", "quotaLimitReached")
_BANDWIDTH = 509


def judge(response: httpx.Response) -> ConnectorError | None:
    """None: what HTTP says."""
    code, message = said(response)
    asked = f"{response.request.method} {response.request.url.path}: HTTP {response.status_code} {code}"
    if code in _THROTTLES or response.status_code == _BANDWIDTH:
        return Throttled(asked, retry_after_ms(response.headers))
    if is_delta(response.request.url) and (response.status_code == 410 or _is_bad_token(response)):
        return CursorExpired(f"{asked}: {message}")
    if response.status_code == 423:
        return ConnectorError(f"{asked}: the file is locked")
    if response.status_code == 403:
        return ObjectUnreadable("forbidden", f"{asked}: {message}")
    if response.status_code in (400, 409, 412, 422):
        return ConnectorError(f"{asked}: {message}")
    return None


def said(response: httpx.Response) -> tuple[str, str]:
    """The error's code and message; both "" where the answer has none."""
    try:
        error: dict[str, Any] = cast("dict[str, Any]", response.json())["error"]
        return str(error.get("code") or ""), str(error.get("message") or "")[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", ""


def is_delta(url: httpx.URL) -> bool:
    return "root/delta" in url.path


def _is_bad_token(response: httpx.Response) -> bool:
    """A token that Graph cannot read (it was cut, or is of another service) is as good as one that has expired."""
    return response.status_code == 400 and "token" in str(response.request.url.query)
