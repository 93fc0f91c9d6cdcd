"""What every request passes: who may speak to this server, an id for what went wrong, headers that keep pages apart.

Without keys the server trusts whoever reaches it, and a browser on the same machine reaches it for any web page. So a page
of another site may not change anything (Origin, Sec-Fetch-Site), and a name that is not this server's is not answered: by
DNS rebinding such a page would otherwise become one of this site. IP addresses are not names, so they cannot be rebound.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit
from uuid import uuid4

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sourcebus.gateway.problems import Problem
from sourcebus.settings import Settings

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Set where a route has not set its own."""

_RAW_HEADERS: Final = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_READING: Final = ("GET", "HEAD", "OPTIONS")

_log = structlog.get_logger(__name__)

Measure = Callable[[str, str, int, float], None]
"""method, route, status, seconds"""


class Shield:
    """ASGI middleware around all routes. `measure` is told of every answer."""

    def __init__(self, app: ASGIApp, settings: Settings, measure: Measure) -> None:
        self._app = app
        self._measure = measure
        self._any_host = "*" in settings.allowed_hosts
        own = {urlsplit(url).hostname for url in (settings.api_url, settings.public_url or "")}
        self._hosts = {"localhost", *(host.lower() for host in settings.allowed_hosts), *own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _RAW_HEADERS if pair[0] not in own)]
            await send(message)

        try:
            self._admit(scope)
            _route_by_raw_path(scope)
            await self._app(scope, receive, guarded)
        except Problem as problem:
            await problem.response()(scope, receive, guarded)
        except ClientDisconnect:
            status = 499  # nobody is left to be told
        except Exception as error:  # noqa: BLE001 - the last place where an unforeseen error can be given an id
            await self._confess(error, scope, receive, guarded, begun=bool(status))
            status = 500
        self._measure(scope["method"], _route_of(scope), status, time.perf_counter() - begun)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._any_host and not _is_address(name := _hostname(host)) and name not in self._hosts:
            raise Problem("unknown-host", f"Host is {host!r}", fix="add the name to SOURCEBUS_ALLOWED_HOSTS")
        if scope["method"] in _READING:
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") or (origin is not None and urlsplit(origin).netloc.lower() != host.lower()):
            raise Problem(
                "cross-site", f"the request comes from {origin or 'another site'}", fix="send it from this server's own page"
            )

    async def _confess(self, error: Exception, scope: Scope, receive: Receive, send: Send, *, begun: bool) -> None:
        error_id = uuid4().hex[:12]
        _log.error("http_error", error_id=error_id, method=scope["method"], path=scope["path"], exc_info=error)
        if not begun:
            detail = f"The log has the details under error_id {error_id}"
            await Problem("internal", detail, more={"error_id": error_id}).response()(scope, receive, send)


def _route_by_raw_path(scope: Scope) -> None:
    if scope["path"].startswith(("/v1/", "/hooks/")):
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        scope["path"] = raw.partition(b"?")[0].decode("latin-1")


def _route_of(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "(none)")


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
