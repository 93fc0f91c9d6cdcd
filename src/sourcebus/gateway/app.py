"""`create_app`: routes, shield and error answers put together for one runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sourcebus import __version__
from sourcebus.errors import SourcebusError
from sourcebus.gateway import dead_letters, deliveries, docs, events, health, hooks, search, sources, subscriptions
from sourcebus.gateway.events import OnAccept
from sourcebus.gateway.metrics import Metrics
from sourcebus.gateway.problems import Problem, describe_problems, problem_of
from sourcebus.gateway.shield import Shield
from sourcebus.model import JsonObject
from sourcebus.runtime import Runtime


class _Gateway(FastAPI):
    """FastAPI's application, with the door for webhooks beside it."""

    hooks: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/hooks/"):
            await self.hooks(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> JsonObject:
        if self.openapi_schema is None:
            schema = super().openapi()
            schema["paths"] = {**schema["paths"], **hooks.DESCRIBED}
            describe_problems(schema)
        return cast("JsonObject", self.openapi_schema)


def create_app(runtime: Runtime, *, mount: Sequence[APIRouter] = (), on_accept: OnAccept | None = None) -> FastAPI:
    """The ASGI application over `runtime`, which stays the caller's to close.

    `mount` are further routers (the dashboard). `on_accept` is told of every accepted call of ``POST /v1/events``, in a
    worker thread, after the events are stored; what it raises is logged and changes no answer.
    """
    metrics = Metrics(runtime)
    app = _Gateway(
        title="sourcebus",
        version=__version__,
        description="Keeps a search index fresh: change signals in, searchable documents out.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.hooks = Shield(hooks.Door(runtime, metrics), runtime.settings, metrics.measure)
    app.add_middleware(Shield, settings=runtime.settings, measure=metrics.measure)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(SourcebusError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for router in (
        events.router(runtime, on_accept),
        sources.router(runtime),
        subscriptions.router(runtime),
        search.router(runtime),
        deliveries.router(runtime),
        dead_letters.router(runtime),
        health.router(runtime, metrics),
        docs.router(),
        *mount,
    ):
        app.include_router(router)
    return app


def _problem(_request: Request, error: Exception) -> Response:
    return cast("Problem", error).response()


def _expected(_request: Request, error: Exception) -> Response:
    problem = problem_of(cast("SourcebusError", error))
    if problem is None:
        raise error  # something is broken here: the shield gives it an id and logs it
    return problem.response()


def _invalid(_request: Request, error: Exception) -> Response:
    first = cast("RequestValidationError", error).errors()[0]
    return Problem("invalid", str(first["msg"]), field=str(first["loc"][-1])).response()


def _http(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    name = "method" if raised.status_code == 405 else "not-found"
    detail = f"{request.method} {request.url.path}"
    return Problem(name, detail, fix="/docs lists what there is", headers=raised.headers).response()
