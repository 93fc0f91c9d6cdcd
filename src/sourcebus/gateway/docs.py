"""``/docs``: the endpoints as one page made here from the OpenAPI description. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from sourcebus.model import JsonObject

_STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#d5d9e0, #3a404b); --soft: light-dark(#f4f5f8, #1d2128); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem;
       color: light-dark(#1b1f27, #e6e9ef); background: light-dark(#fff, #14171c); }
section { border-top: 1px solid var(--line); padding: 1rem 0; }
h2 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, monospace; font-size: .875rem; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; border-radius: 6px; }
p { margin: .5rem 0; }
a { color: light-dark(#0b57b0, #8fbcff); }
"""
_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(_page(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})

    return routes


def _page(schema: JsonObject) -> str:
    operations = [_operation(path, method, of) for path, methods in schema["paths"].items() for method, of in methods.items()]
    title = f"{escape(schema['info']['title'])} {escape(schema['info']['version'])}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}: HTTP interface</title><style>{_STYLE}</style><main><h1>{title}</h1>"
        f"<p>{escape(schema['info']['description'])}</p>"
        f'<p><a href="/openapi.json">OpenAPI description</a> · <a href="/">Dashboard</a></p>'
        f"{''.join(operations)}</main></html>"
    )


def _operation(path: str, method: str, of: JsonObject) -> str:
    parameters = "".join(
        f"<li><code>{escape(one['name'])}</code> ({one['in']}{', required' if one.get('required') else ''})"
        f" {escape(one.get('description', ''))}</li>"
        for one in of.get("parameters", ())
    )
    bodies: dict[str, Any] = of.get("requestBody", {}).get("content", {})
    examples = "".join(
        f"<p>Body, <code>{escape(kind)}</code>:</p><pre>{escape(json.dumps(body['example'], indent=1))}</pre>"
        for kind, body in bodies.items()
        if "example" in body
    )
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p><strong>{escape(of.get('summary', ''))}.</strong> "
        f"{escape(of.get('description', ''))}</p>{f'<ul>{parameters}</ul>' if parameters else ''}{examples}</section>"
    )
