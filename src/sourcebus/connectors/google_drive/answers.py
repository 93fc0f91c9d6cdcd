"""What Drive's unsuccessful answers mean (Google: "Resolve errors", Drive API). A 403 may be any of four things."""

from __future__ import annotations

from typing import Any, cast

import httpx

from sourcebus.connectors.http import retry_after_ms
from sourcebus.errors import ConnectorError, CursorExpired, NeedsAuth, ObjectUnreadable, Throttled

_THROTTLES = ("userRateLimitExceeded", "rateLimitExceeded", "RATE_LIMIT_EXCEEDED", "quotaExceeded")
_DAILY = ("dailyLimitExceeded", "dailyLimitExceededUnreg")
_DAILY_WAIT_MS = 900_000
"""A day's quota comes back at midnight in California; Google does not say how long that is, so it is asked now and then."""

_NEEDS_A_PERSON = (
    *("accessNotConfigured", "SERVICE_DISABLED", "insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
    *("authError", "keyInvalid", "accountDeleted", "CONSUMER_INVALID"),
)
_UNREADABLE = {
    "exportSizeLimitExceeded": "too_large",
    "cannotDownloadAbusiveFile": "malware",
    "cannotDownloadFile": "no_download",
    "fileNotDownloadable": "no_download",
    "cannotExportFile": "no_download",
}
_LATER = ("downloadQuotaExceeded",)  # of one file, which too many have downloaded today


def judge(response: httpx.Response) -> ConnectorError | None:
    """None: what HTTP says."""
    reasons, message, places = said(response)
    status, asked = response.status_code, f"{response.request.method} {response.request.url.path}: HTTP {response.status_code}"
    asked += f" {reasons[0]}: {message}" if reasons else f" {message}".rstrip()
    if any(reason in _DAILY for reason in reasons):
        return Throttled(asked, retry_after_ms(response.headers) or _DAILY_WAIT_MS)
    if status == 429 or (status == 403 and any(reason in _THROTTLES for reason in reasons)):
        return Throttled(asked, retry_after_ms(response.headers))
    if status == 410 or (status == 400 and "pageToken" in places):
        return CursorExpired(asked)  # a token that was cut, is of another feed, or a listing's that is hours old
    if status == 403:
        return _forbidden(reasons, asked)
    if status in (400, 409, 412):
        return ConnectorError(asked)
    return None


def said(response: httpx.Response) -> tuple[list[str], str, list[str]]:
    """The reasons it gives, in the old words of Drive and the new ones of Google; its message; the parameters it names."""
    try:
        error = cast("dict[str, Any]", response.json()["error"])
        told: list[dict[str, Any]] = [*error.get("errors", ()), *error.get("details", ())]
        reasons = [str(one["reason"]) for one in told if one.get("reason")]
        return reasons, str(error.get("message") or "")[:300], [str(one.get("location")) for one in told]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], "", []


def _forbidden(reasons: list[str], asked: str) -> ConnectorError:
    for reason in reasons:
        if reason in _NEEDS_A_PERSON:
            return NeedsAuth(asked)
        if reason in _UNREADABLE:
            return ObjectUnreadable(_UNREADABLE[reason], asked)
        if reason in _LATER:
            return ConnectorError(asked)
    return ObjectUnreadable("forbidden", asked)
