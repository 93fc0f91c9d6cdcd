"""``/v1/subscriptions``: what providers have promised to send, until when, and whether it comes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from sourcebus.gateway.problems import answer
from sourcebus.gateway.requests import After, Limit
from sourcebus.runtime import Runtime


def router(runtime: Runtime) -> APIRouter:
    routes = APIRouter(tags=["subscriptions"], default_response_class=Response)

    @routes.get("/v1/subscriptions", summary="List subscriptions")
    def subscriptions(
        workspace: Annotated[str | None, Query(description="only sources of this workspace")] = None,
        after: After = None,
        limit: Limit = 100,
    ) -> Response:
        """By source: state, when it ends and is renewed, the last delivery, and the share of changes that were announced."""
        items, cursor = runtime.desk.subscriptions(workspace, after, limit)
        return answer({"items": items, "next": cursor})

    return routes
