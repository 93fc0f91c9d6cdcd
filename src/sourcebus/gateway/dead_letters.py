"""``/v1/dead-letters``: what was given up after all attempts, to be looked at, replayed or dropped."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from sourcebus.gateway.problems import Problem, answer
from sourcebus.gateway.requests import After, LetterId, Limit, page
from sourcebus.runtime import Runtime


def router(runtime: Runtime) -> APIRouter:
    routes = APIRouter(tags=["dead letters"], default_response_class=Response)
    bus = runtime.bus

    @routes.get("/v1/dead-letters", summary="List dead letters")
    def list_dead_letters(source_id: str | None = None, after: After = None, limit: Limit = 100) -> Response:
        """Oldest first, each with its last error."""
        found = bus.dead_letters(source_id, after=after, limit=limit + 1)
        items, cursor = page(found, limit, lambda letter: letter.id)
        return answer({"items": [letter.as_json() for letter in items], "next": cursor})

    @routes.post("/v1/dead-letters/{letter_id:encoded}/replay", status_code=202, summary="Try a dead letter again")
    def replay(letter_id: LetterId) -> Response:
        """It becomes pending again with fresh attempts."""
        invitations = bus.replay(letter_id)
        if invitations is None:
            raise _unknown(letter_id)
        runtime.invite(invitations)
        return answer({"id": letter_id, "replayed": True}, 202)

    @routes.delete("/v1/dead-letters/{letter_id:encoded}", summary="Drop a dead letter")
    def drop(letter_id: LetterId) -> Response:
        """It is forgotten for good; the object is looked at again when it changes."""
        if not bus.drop(letter_id):
            raise _unknown(letter_id)
        return answer({"id": letter_id, "dropped": True})

    return routes


def _unknown(letter_id: str) -> Problem:
    return Problem("unknown-dead-letter", f"{letter_id!r} is not a dead letter (any more)", field="id")
