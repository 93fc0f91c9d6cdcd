"""``/v1/sources``: add, show, change, remove and refresh sources, and how each stands."""

from __future__ import annotations

from math import ceil
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from sourcebus.gateway.problems import Problem, answer
from sourcebus.gateway.requests import After, Limit, SourceId, in_thread, page, read_object
from sourcebus.model import JsonObject, Source
from sourcebus.runtime import Runtime

Workspace = Annotated[str | None, Query(description="only sources of this workspace")]

_SOURCE = {
    "id": "docs",
    "connector": "filesystem",
    "config": {"root": "/srv/docs"},
    "quota": {"rate": 50, "burst": 10, "concurrency": 4},
}


def _body(example: JsonObject, required: bool = True) -> JsonObject:
    return {"requestBody": {"required": required, "content": {"application/json": {"example": example}}}}


def router(runtime: Runtime) -> APIRouter:
    routes = APIRouter(tags=["sources"], default_response_class=Response)
    sources, catalog, desk, max_bytes = runtime.sources, runtime.catalog, runtime.desk, runtime.settings.max_body_bytes

    def add(obj: JsonObject) -> JsonObject:
        return sources.show(sources.add(sources.parse(obj)))

    def change(source_id: str, fields: JsonObject) -> JsonObject:
        return sources.show(sources.change(source_id, **fields))

    def shown_with_hook(source: Source) -> JsonObject:
        return sources.show(source) | {"hook_url": sources.hook_url(source)}

    def listed(workspace: str | None, after: str | None, limit: int) -> tuple[list[Source], str | None]:
        items, cursor = page(
            catalog.sources(workspace=workspace, after=after, limit=limit + 1), limit, lambda source: source.id
        )
        return list(items), cursor

    @routes.post("/v1/sources", status_code=201, summary="Add a source", openapi_extra=_body(_SOURCE))
    async def add_source(request: Request) -> Response:
        """Checks the connector's configuration, stores the source and starts its first scan."""
        shown = await in_thread(add, await read_object(request, max_bytes))
        return answer(shown, 201, {"Location": f"/v1/sources/{quote(shown['id'], safe='')}"})

    @routes.get("/v1/sources", summary="List sources")
    def list_sources(workspace: Workspace = None, after: After = None, limit: Limit = 100) -> Response:
        items, cursor = listed(workspace, after, limit)
        return answer({"items": [sources.show(source) for source in items], "next": cursor})

    @routes.get("/v1/sources/{source_id:encoded}", summary="Show a source")
    def show_source(source_id: SourceId) -> Response:
        """Everything but its secret; `hook_url` is where its provider has to send to, null where it hears nothing;
        `staleness_bound_s` within how many seconds a change that nobody announces is found."""
        return answer(shown_with_hook(catalog.source(source_id)) | desk.staleness(source_id))

    @routes.patch("/v1/sources/{source_id:encoded}", summary="Change a source", openapi_extra=_body({"paused": True}))
    async def change_source(request: Request, source_id: SourceId) -> Response:
        """Only the fields that are sent change."""
        return answer(await in_thread(change, source_id, await read_object(request, max_bytes)))

    @routes.delete("/v1/sources/{source_id:encoded}", summary="Remove a source")
    def remove_source(source_id: SourceId) -> Response:
        """With its documents, versions and pending events; what it was read from is not touched."""
        return answer({"id": source_id, "removed_objects": sources.remove(source_id)})

    @routes.post(
        "/v1/sources/{source_id:encoded}/refresh",
        status_code=202,
        summary="Look at a source, or one object, now",
        openapi_extra=_body({"object_ref": "guide/start.md"}, required=False),
    )
    async def refresh_source(request: Request, source_id: SourceId) -> Response:
        """Goes ahead of what waits. At most one a minute; sooner is answered 429 with Retry-After."""
        sent = await read_object(request, max_bytes, optional=True)
        object_ref = sent.pop("object_ref", None)
        if sent:
            raise Problem("invalid", "is not known here", field=min(sent), fix='send {} or {"object_ref": …}')
        if object_ref is not None and not isinstance(object_ref, str):
            raise Problem("invalid", "is not a string", field="object_ref", fix="leave it out for the whole source")
        refresh = await in_thread(runtime.intake.refresh, source_id, object_ref)
        if refresh.accepted:
            return answer({"accepted": True, "reason": refresh.reason}, 202)
        seconds = max(1, ceil(refresh.retry_after_ms / 1000))
        raise Problem("too-often", f"possible again in {seconds} s ({refresh.reason})", headers={"Retry-After": str(seconds)})

    @routes.post("/v1/sources/{source_id:encoded}/hook", summary="Give a source a new hook address")
    def new_hook(source_id: SourceId) -> Response:
        """For a provider that cannot sign, where the address is the secret. The old one is not answered any more."""
        return answer(shown_with_hook(sources.new_hook(source_id)))

    @routes.post("/v1/sources/{source_id:encoded}/release", status_code=202, summary="Apply deletes that are held")
    def release_source(source_id: SourceId) -> Response:
        """A listing that lacks too much of a source deletes nothing until somebody says that it really is gone."""
        return answer({"id": source_id, "released": sources.release(source_id)}, 202)

    @routes.post("/v1/sources/{source_id:encoded}/drop", status_code=202, summary="Keep what is held to be deleted")
    def drop_source(source_id: SourceId) -> Response:
        """The other answer to held deletes: the objects stay indexed, although the source does not list them any more."""
        return answer({"id": source_id, "kept": sources.drop(source_id)}, 202)

    @routes.get("/v1/status", tags=["status"], summary="How the sources stand")
    def status(
        workspace: Workspace = None,
        source_id: Annotated[list[str] | None, Query(description="only these sources")] = None,
        after: After = None,
        limit: Limit = 500,
    ) -> Response:
        """State and its reason, what waits, runs and was given up, what is indexed, and the progress of a scan."""
        if source_id is not None:
            return answer({"items": desk.status(source_id, workspace), "next": None, "now_ms": runtime.clock.now_ms()})
        items, cursor = listed(workspace, after, limit)
        return answer({"items": desk.status([s.id for s in items]), "next": cursor, "now_ms": runtime.clock.now_ms()})

    return routes
