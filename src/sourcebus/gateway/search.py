"""``/v1/search`` and ``/v1/why``: what is indexed, and why an object is, or is not."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from sourcebus.gateway.problems import answer
from sourcebus.gateway.requests import exact_query
from sourcebus.model import Hit, JsonObject
from sourcebus.runtime import Runtime


def router(runtime: Runtime) -> APIRouter:
    routes = APIRouter(tags=["search"], default_response_class=Response)

    @routes.get("/v1/search", summary="Search the documents")
    def search(
        q: Annotated[str, Query(description="words; all must match, the last one may be the beginning of a word")],
        source_id: str | None = None,
        workspace: str | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 20,
        offset: Annotated[int, Query(ge=0, le=10_000)] = 0,
    ) -> Response:
        """The snippet is HTML: escaped text with the matches in mark elements. "next" is the offset of the next page."""
        hits = runtime.catalog.search(q, source_id=source_id, workspace=workspace, limit=limit + 1, offset=offset)
        more = offset + limit if len(hits) > limit else None
        return answer({"hits": [_shown(hit) for hit in hits[:limit]], "next": more})

    @routes.get(
        "/v1/why",
        summary="An object's story",
        openapi_extra={
            "parameters": [
                {"name": name, "in": "query", "required": True, "schema": {"type": "string"}}
                for name in ("source_id", "object_ref")
            ]
        },
    )
    def why(request: Request) -> Response:
        """What happened to the object, newest first, and what the bus knows of it now."""
        source_id = exact_query(request, "source_id")
        runtime.catalog.source(source_id)
        return answer({"items": runtime.desk.why(source_id, exact_query(request, "object_ref")), "next": None})

    return routes


def _shown(hit: Hit) -> JsonObject:
    return {
        "source_id": hit.source_id,
        "object_ref": hit.object_ref,
        "title": hit.title,
        "snippet": hit.snippet,
        "version": hit.version,
        "indexed_at": hit.indexed_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "score": hit.score,
    }
