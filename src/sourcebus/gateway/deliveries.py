"""``/v1/sources/{id}/deliveries`` and ``/v1/deliveries``: what came to a source's hook, and looking at it once more."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from sourcebus.errors import Unverified
from sourcebus.gateway.problems import Problem, answer
from sourcebus.gateway.requests import DeliveryId, Limit, SourceId, page
from sourcebus.runtime import Runtime

After = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the answer before")]


def router(runtime: Runtime) -> APIRouter:
    routes = APIRouter(tags=["deliveries"], default_response_class=Response)
    catalog, hooks = runtime.catalog, runtime.hooks

    @routes.get("/v1/sources/{source_id:encoded}/deliveries", summary="List what came to a source's hook")
    def list_deliveries(source_id: SourceId, after: After = None, limit: Limit = 100) -> Response:
        """Newest first, with what each was taken for. A line appears about a second after its delivery."""
        found = catalog.deliveries(source_id, after=after, limit=limit + 1)
        items, cursor = page(found, limit, lambda line: str(line.id))
        return answer({"items": [hooks.show(line) for line in items], "next": cursor})

    @routes.get("/v1/deliveries/{delivery_id}", summary="Show a delivery")
    def show_delivery(delivery_id: DeliveryId) -> Response:
        """With its body, if that was kept. Secrets are masked."""
        line = catalog.delivery(delivery_id)
        if line is None:
            raise _unknown(delivery_id)
        return answer(hooks.show(line))

    @routes.post("/v1/deliveries/{delivery_id}/redeliver", status_code=202, summary="Look at a delivery once more")
    def redeliver(delivery_id: DeliveryId) -> Response:
        """As of the time when it came, so its age does not matter, nor that it was stored before. Its proof is checked against
        the secrets of now: after a wrong one was set right, what was refused can be taken."""
        if catalog.delivery(delivery_id) is None:
            raise _unknown(delivery_id)
        try:
            return answer(hooks.redeliver(delivery_id), 202)
        except Unverified as error:
            raise Problem("invalid", f"still not proven: {error}", field="id") from None

    return routes


def _unknown(delivery_id: int) -> Problem:
    return Problem("unknown-delivery", f"there is no delivery {delivery_id} (any more)", field="id")
