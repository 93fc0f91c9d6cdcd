"""Slack's Web API: methods, pages, and what an error means. An error mostly comes as HTTP 200 with ``ok: false``.

Sources: docs.slack.dev, "Rate limits", "Pagination", and the tables of errors of each method.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import httpx

from sourcebus.connectors.http import Api, retry_after_ms
from sourcebus.errors import ConnectorError, CursorExpired, NeedsAuth, ObjectGone, SourceUnavailable, Throttled
from sourcebus.model import JsonObject

PAGE = 200
"""Messages per page: what Slack recommends. Apps distributed outside its Marketplace get 15, whatever they ask for."""

_WAIT_MS = 30_000
_GONE = frozenset({"thread_not_found", "message_not_found"})
_CHANNEL = frozenset({"channel_not_found", "not_in_channel", "is_archived", "channel_is_limited_access"})
_AUTH = frozenset(
    {
        "access_denied", "account_inactive", "ekm_access_denied", "enterprise_is_restricted", "invalid_auth", "missing_scope",
        "no_permission", "not_allowed_token_type", "not_authed", "org_login_required", "team_access_not_granted",
        "token_expired", "token_revoked", "two_factor_setup_required",
    }
)  # fmt: skip
_DOWN = frozenset({"fatal_error", "internal_error", "request_timeout", "service_unavailable", "team_added_to_org"})
_THROTTLED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})


class ChannelHidden(ConnectorError):
    """The channel was deleted, or the bot is not in it. Slack's words for the two are the same where it is private."""

    retry = False


class Web:
    """Calls of one bot token, from any thread. Each costs one unit."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.api = Api(url, headers=headers, judge=_judge)

    def call(self, method: str, **arguments: Any) -> JsonObject:
        """The answer; else the `ConnectorError` that its error means, `ChannelHidden` among them."""
        params = {name: value for name, value in arguments.items() if value is not None}
        response = self.api.call("GET", method, params=params)
        try:
            told = response.json()
        except ValueError as error:
            raise SourceUnavailable(f"Slack: {method}: the answer is no JSON") from error
        if not isinstance(told, dict):
            raise SourceUnavailable(f"Slack: {method}: the answer is no JSON object")
        answer = cast("JsonObject", told)
        if answer.get("ok") is not True:
            raise meaning(method, answer, response)
        return answer

    def pages(self, method: str, key: str, **arguments: Any) -> Iterator[Any]:
        """The items under `key`, from all pages."""
        cursor = None
        while True:
            told = self.call(method, cursor=cursor, limit=PAGE, **arguments)
            yield from told[key]
            about: JsonObject = told.get("response_metadata") or {}
            cursor = about.get("next_cursor")
            if not cursor:
                return


def meaning(method: str, told: JsonObject, response: httpx.Response) -> ConnectorError:
    """What ``ok: false`` means."""
    error = str(told.get("error") or "no error named")
    said = f"Slack: {method}: {error}"
    if error in _THROTTLED:
        return Throttled(said, retry_after_ms(response.headers) or _WAIT_MS)
    if error in _GONE:
        return ObjectGone(said)
    if error in _CHANNEL:
        return ChannelHidden(said)
    if error in _AUTH:
        return NeedsAuth(said + (f", needed is {told['needed']}" if "needed" in told else ""))
    if error == "invalid_cursor":
        return CursorExpired(said)
    return SourceUnavailable(said if error in _DOWN else f"{said}: an answer that is not expected here")


def _judge(response: httpx.Response) -> ConnectorError | None:
    if response.status_code == 429:
        return Throttled(f"Slack: HTTP 429 ({response.request.url.path})", retry_after_ms(response.headers) or _WAIT_MS)
    if response.status_code in (403, 404):
        # Slack's methods answer 200; these are a proxy's, or config.api is wrong. Never an object that is gone.
        return SourceUnavailable(f"Slack: HTTP {response.status_code}: is config.api the address of the Web API?")
    return None
