"""``/healthz`` (this process lives), ``/readyz`` (everything it needs is there) and ``/metrics``."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from sourcebus.gateway.metrics import Metrics
from sourcebus.gateway.problems import Problem, answer
from sourcebus.runtime import Runtime


def router(runtime: Runtime, metrics: Metrics) -> APIRouter:
    routes = APIRouter(tags=["monitoring"], default_response_class=Response)

    @routes.get("/healthz", summary="Is this process alive?")
    async def healthz() -> Response:
        """Asks nothing of Redis or the database: restarting this process would not bring those back."""
        return answer({"status": "alive"})

    @routes.get("/readyz", summary="Is everything there that is needed?")
    def readyz() -> Response:
        """Redis, the database, a worker and a beat that were seen lately. 503 names what is missing."""
        checks = [{"name": c.name, "ok": c.ok, "detail": c.detail, "fix": c.fix} for c in runtime.desk.health()]
        failing = [check for check in checks if check["ok"] is False]
        if failing:
            detail = "; ".join(f"{check['name']}: {check['detail']}" for check in failing)
            raise Problem("not-ready", detail, headers={"Retry-After": "2"}, more={"checks": checks})
        return answer({"status": "ready", "checks": checks})

    @routes.get("/metrics", summary="Metrics for Prometheus")
    def scrape(request: Request) -> Response:
        """In the text format, or OpenMetrics where that is asked for."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": media_type})

    return routes
