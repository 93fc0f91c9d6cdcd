"""The plain page at ``/``: search, the sources and how they stand, dead letters, an object's story.

The page is static; its script asks the gateway's HTTP interface, as any other client would. It is served by a router that
knows nothing of the gateway: whoever starts the gateway mounts it.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from sourcebus.runtime import Runtime

ASSETS: Final = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "icon.svg": "image/svg+xml"}

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing inline, nothing from elsewhere, and no way from a text to markup."""


def router(runtime: Runtime) -> APIRouter:
    """Routes ``/`` and ``/dashboard/<asset>``. The page shows the installation's name unless it is the usual one."""
    routes = APIRouter(include_in_schema=False)
    static = files("sourcebus.dashboard") / "static"
    name = runtime.settings.bus_name
    title = "sourcebus" if name == "sourcebus" else f"sourcebus · {name}"
    page = (static / "index.html").read_text(encoding="utf-8").replace("{title}", escape(title))
    assets = {asset: (static / asset).read_bytes() for asset in ASSETS}

    @routes.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})

    @routes.get("/dashboard/{asset}")
    async def asset(asset: str) -> Response:
        if asset not in assets:
            return Response(status_code=404)
        return Response(assets[asset], media_type=ASSETS[asset], headers={"Cache-Control": "no-cache"})

    return routes
