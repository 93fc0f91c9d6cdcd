"""Access tokens for XOAUTH2: one that was given, or one that is asked for and kept until it ends (RFC 6749 §4.4, §6)."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode

import httpx

from sourcebus.connectors.http import Api
from sourcebus.errors import ConnectorError, NeedsAuth

_EARLY_S = 60.0
"""A token is replaced this long before it ends: a login takes time, and clocks differ."""

_SHORTEST_S = 5.0


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is asked for with. With a `refresh_token` in a user's name, else in the application's own."""

    token_url: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    scope: str | None = None

    def form(self) -> Mapping[str, str]:
        kind = "refresh_token" if self.refresh_token else "client_credentials"
        given = {"client_id": self.client_id, "client_secret": self.client_secret, "scope": self.scope}
        if self.refresh_token:
            given["refresh_token"] = self.refresh_token
        return {"grant_type": kind, **{name: value for name, value in given.items() if value}}


class GrantedToken:
    """The access token of a grant, from any thread. A new one is asked for when the last ends, or was refused."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._api = Api(grant.token_url, judge=_judged)
        self._lock = threading.Lock()
        self._token, self._ends_s = "", 0.0

    def get(self) -> str:
        """Raises `NeedsAuth` where the grant is refused, `SourceUnavailable`, `Throttled`."""
        with self._lock:
            if time.monotonic() >= self._ends_s:
                self._token, self._ends_s = self._asked()
            return self._token

    def refused(self, token: str) -> None:
        """The server does not take it, though it should: the next one is asked for."""
        with self._lock:
            if token == self._token:
                self._ends_s = 0.0

    def close(self) -> None:
        self._api.close()

    def _asked(self) -> tuple[str, float]:
        body, headers = urlencode(self._grant.form()).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
        given: Any = self._api.json("POST", self._grant.token_url, content=body, headers=headers)
        said = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        token, lives_s = said.get("access_token"), said.get("expires_in", 3_600)
        if not isinstance(token, str) or not token:
            raise NeedsAuth("config.token_url: the answer has no access_token")
        lives_s = float(lives_s) if isinstance(lives_s, int | float) else 3_600.0
        return token, time.monotonic() + max(lives_s - _EARLY_S, _SHORTEST_S)


def _judged(response: httpx.Response) -> ConnectorError | None:
    """400 and 401 refuse the grant (RFC 6749 §5.2). Only its code is shown: descriptions repeat what was sent."""
    if response.status_code not in (400, 401):
        return None
    try:
        said: Any = response.json()
    except ValueError:
        said = None
    code = str(cast("dict[str, Any]", said).get("error", "")) if isinstance(said, dict) else ""
    return NeedsAuth(f"config.token_url: the grant was refused ({code[:60] or response.status_code})")
