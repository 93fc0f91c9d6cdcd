"""Signing in as an application (OAuth 2.0 client credentials) with MSAL, once per process, tenant and app.

MSAL keeps the token in memory and gets a new one before it ends. It is given our own HTTP client, so that its calls are
guarded and fail like all others (docs/decisions/0021-sharepoint-sign-in.md).
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from sourcebus.connectors.http import Api
from sourcebus.connectors.sharepoint.config import App
from sourcebus.errors import InvalidInput, NeedsAuth, SourceUnavailable

_LOCK = threading.Lock()
_SIGNED_IN: dict[App, SignIn] = {}


def sign_in(app: App) -> SignIn:
    """The process's sign-in of this app; made, without asking anybody, if there is none yet."""
    if find_spec("msal") is None:
        raise InvalidInput("connector", "sharepoint needs MSAL, which is not installed", "pip install 'sourcebus[sharepoint]'")
    with _LOCK:
        return _SIGNED_IN.setdefault(app, SignIn(app))


class SignIn(httpx.Auth):
    """Puts the app's token on requests. A token that is refused is thrown away and fetched anew, once per request."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._msal: list[Any] = []
        self._newest = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        token = self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {self.token(refused=token)}"
            yield request

    def token(self, *, refused: str = "") -> str:
        """A token that is good now; not the one that was `refused`. Raises `NeedsAuth` with the directory's words."""
        with self._lock:
            if refused and refused == self._newest:
                for msal_app in self._msal:
                    msal_app.remove_tokens_for_client()
            problem = ""
            for msal_app in list(self._apps()):
                answer = msal_app.acquire_token_for_client(scopes=[_scope(self._app.graph_url)])
                if token := answer.get("access_token"):
                    self._msal.remove(msal_app)
                    self._msal.insert(0, msal_app)  # the secret that works is tried first from now on
                    self._newest = token
                    return token
                problem = problem or f"{answer.get('error')}: {str(answer.get('error_description', ''))[:300]}"
        raise NeedsAuth(f"the directory refuses the app {self._app.client_id}: {problem}")

    def _apps(self) -> list[Any]:
        """One MSAL application per living secret. Asks the authority for its endpoints the first time."""
        if not self._msal:
            import msal

            line = _Line(self._app.authority)
            authority = f"https://{urlsplit(self._app.authority).netloc}{urlsplit(self._app.authority).path}/{self._app.tenant}"
            try:
                self._msal = [
                    msal.ConfidentialClientApplication(
                        self._app.client_id,
                        client_credential=secret,
                        authority=authority,
                        instance_discovery=False,  # the authority is the operator's choice, not a payload's
                        http_client=line,
                    )
                    for secret in self._app.secrets
                ]
            except ValueError as error:  # MSAL's way to say that there is no such tenant
                raise NeedsAuth(f"the directory does not know the tenant {self._app.tenant!r}: {error}"[:400]) from error
        return self._msal


class _Line:
    """The HTTP client that MSAL is given. What is no answer to it (429, 5xx, no connection) is raised as our own errors."""

    def __init__(self, authority: str) -> None:
        self._api = Api(authority, cost=0.0)
        self._plain = authority.startswith("http://")  # loopback only (`config`); MSAL itself speaks of https alone

    def post(
        self,
        url: str,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **_options: Any,
    ) -> httpx.Response:
        form = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._call("POST", url, params, form, urlencode(data or {}).encode())

    def get(
        self, url: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None, **_options: Any
    ) -> httpx.Response:
        return self._call("GET", url, params, dict(headers or {}), None)

    def close(self) -> None:
        """MSAL never calls it; it belongs to the interface."""
        self._api.close()

    def _call(
        self, method: str, url: str, params: Mapping[str, Any] | None, headers: Mapping[str, str], content: bytes | None
    ) -> httpx.Response:
        if self._plain:
            url = url.replace("https://", "http://", 1)
        headers = {**headers, "Connection": "close"}  # the next call is an hour away
        answer = self._api.call(method, url, params=params, headers=headers, content=content, accept=(400, 401, 403, 404))
        if not answer.text.lstrip().startswith("{"):
            raise SourceUnavailable(f"{method} {urlsplit(url).netloc}: the answer of the directory is no JSON")
        return answer


def _scope(graph_url: str) -> str:
    parts = urlsplit(graph_url)
    return f"{parts.scheme}://{parts.netloc}/.default"
