"""``/hooks/{source_id}``: where providers send webhooks. Answered when the events are stored, and only then with 2xx.

The order of the checks is that of their cost: is there such a hook, is it too often, is it too large; then the connector
proves the raw bytes, then it parses them. This is the one address that has to take thousands of requests a second, so of all
the layers only the shield is around it: FastAPI's would cost twice of what is done here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sourcebus.errors import InvalidInput, SourcebusError, UnknownSource, Unverified
from sourcebus.gateway.metrics import Metrics
from sourcebus.gateway.problems import RETRY_AFTER_S, Problem, answer, problem_of
from sourcebus.gateway.requests import declares_more, in_thread, require_media_type
from sourcebus.intake import Hook, Parcel
from sourcebus.intake.hooks import detail_of
from sourcebus.model import Delivery, Heard, JsonObject, Reply
from sourcebus.runtime import Runtime

_PATIENCE_S: Final = 30.0
"""How long a body may take to arrive."""

_MOST_READING_BYTES: Final = 256_000_000
"""Most bytes of bodies that are being read at once, of all requests together."""

_LARGE_BYTES: Final = 262_144
"""A larger body is proven and parsed beside the event loop."""

_DRAIN_FACTOR: Final = 2
"""A body over the limit is read and thrown away up to this many limits, so that its sender gets to see the answer."""

_BURST_S: Final = 60.0
_SAY_EVERY_S: Final = 60.0
_MOST_QUERY_FIELDS: Final = 100
_RETRY: Final = {"Retry-After": str(RETRY_AFTER_S)}
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_RESULTS: Final = {
    "unverified": "unverified",
    "invalid": "invalid",
    "too-large": "refused",
    "too-often": "refused",
    "too-slow": "refused",
    "media-type": "refused",
}
"""What a delivery was taken for, by the problem it was answered with; "failed" by any other."""

METHODS: Final = ("POST", "GET", "OPTIONS")

_log = structlog.get_logger(__name__)


def _why(problem: Problem) -> str:
    """What is wrong and where, in a line: ``body[1].source: is no text, or empty``."""
    return f"{problem.field}: {problem.detail}" if problem.field else problem.detail


class Door:
    """The ASGI application below ``/hooks/``. It raises `Problem`s; the shield around it answers with them."""

    path = "/hooks/{source_id}"
    """Its name in the metrics."""

    def __init__(self, runtime: Runtime, metrics: Metrics) -> None:
        settings = runtime.settings
        self._hooks, self._count = runtime.hooks, metrics.count_delivery
        self._max_bytes, self._public_url = settings.max_hook_bytes, (settings.public_url or "").rstrip("/")
        self._pace = _Pace(settings.hook_rate)
        self._reading_bytes = 0
        self._said_s: dict[str, float] = {}
        self._looking: dict[str, asyncio.Future[Hook]] = {}
        self._told: dict[asyncio.AbstractEventLoop, Callable[[Sequence[Parcel]], object]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        source_id, token = _address(scope)
        if scope["method"] not in METHODS:
            raise Problem("method", f"{scope['method']} {scope['path']}", headers={"Allow": ", ".join(METHODS)})
        response = await self._answer(Request(scope, receive), source_id, token)
        await response(scope, receive, send)

    async def _answer(self, request: Request, source_id: str, token: str | None) -> Response:
        began_s = time.perf_counter()
        hook = await self._find(source_id, token)
        delivery = _delivery(request, self._public_url)
        try:
            self._admit(hook, delivery)
            delivery = replace(delivery, body=await self._body(request))
            heard, result = await self._take(hook, delivery)
            response = _response(heard)
        except Problem as problem:
            self._note(hook, delivery, _RESULTS.get(problem.name, "failed"), {"refused": _why(problem)}, began_s)
            raise
        except ClientDisconnect:
            raise
        except Exception:
            self._note(hook, delivery, "failed", {"refused": "something went wrong here; the log has more"}, began_s)
            raise
        self._note(hook, delivery, result, detail_of(heard), began_s)
        return response

    # --- is there such a hook ------------------------------------------------------------------------------------

    async def _find(self, source_id: str, token: str | None) -> Hook:
        try:
            hook = self._hooks.cached(source_id) or await self._look(source_id)
            if not hook.admits(token) and self._hooks.may_have_changed(hook):
                hook = await self._look(source_id)
        except UnknownSource:
            raise _unknown(source_id) from None
        except InvalidInput as error:
            _log.error("hook_unusable", source_id=source_id, error=str(error))
            raise Problem("not-ready", "the source's settings are refused by its connector", headers=_RETRY) from None
        if not hook.admits(token):
            raise _unknown(source_id)  # whoever guesses addresses learns nothing, not even that there is such a source
        if not hook.hears:
            raise Problem("no-hook", f"the connector of {source_id!r} hears nothing", fix="poll it, or POST /v1/events")
        return hook

    async def _look(self, source_id: str) -> Hook:
        """`Hooks.look`, once for all who ask at the same time."""
        looking = self._looking.get(source_id)
        if looking is None:
            looking = asyncio.get_running_loop().run_in_executor(None, self._hooks.look, source_id)
            self._looking[source_id] = looking
            looking.add_done_callback(lambda _done: self._looking.pop(source_id, None))
        return await asyncio.shield(looking)

    # --- may it come in ------------------------------------------------------------------------------------------

    def _admit(self, hook: Hook, delivery: Delivery) -> None:
        wait_s = self._pace.take(hook.source_id)
        if wait_s > 0:
            seconds = str(ceil(wait_s))
            raise Problem("too-often", f"possible again in {seconds} s", headers={"Retry-After": seconds})
        if delivery.method == "POST" and hook.connector.webhook_media_types:
            require_media_type(delivery.headers.get("content-type", ""), hook.connector.webhook_media_types)

    async def _body(self, request: Request) -> bytes:
        if declares_more(request, self._max_bytes * _DRAIN_FACTOR):
            self._too_large()
        chunks, kept, read, more = list[bytes](), 0, 0, True
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    read += len(chunk)
                    if read > self._max_bytes * _DRAIN_FACTOR:
                        break
                    if read <= self._max_bytes:
                        chunks.append(chunk)
                        kept += len(chunk)
                        self._reading_bytes += len(chunk)
                        if self._reading_bytes > _MOST_READING_BYTES:
                            raise Problem("busy", "too many large bodies at once", headers=_RETRY | {"Connection": "close"})
        except TimeoutError:
            detail = f"the body took longer than {_PATIENCE_S:g} s"
            raise Problem("too-slow", detail, headers={"Connection": "close"}) from None
        finally:
            self._reading_bytes -= kept
        if read > self._max_bytes:
            self._too_large()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self) -> NoReturn:
        detail = f"the body is longer than {self._max_bytes} bytes"
        raise Problem("too-large", detail, fix="SOURCEBUS_MAX_HOOK_BYTES allows more", headers={"Connection": "close"})

    # --- what it says --------------------------------------------------------------------------------------------

    async def _take(self, hook: Hook, delivery: Delivery) -> tuple[Heard, str]:
        """What it says, and what it was taken for, after everything that follows from it is stored."""
        try:
            heard = await self._judge(hook, delivery)
            if heard.lasts:
                await in_thread(self._hooks.settle, hook.source_id, heard)
            duplicate = bool(heard.changes) and await self._store(hook, heard, delivery.received_at_ms)
        except UnknownSource:
            raise _unknown(hook.source_id) from None  # removed in this moment
        except SourcebusError as error:
            problem = problem_of(error)
            if problem is None:
                raise
            raise problem from error
        if heard.reply is not None:
            return heard, "handshake"
        return heard, "duplicate" if duplicate else "stored" if heard.changes else "nothing"

    async def _judge(self, hook: Hook, delivery: Delivery) -> Heard:
        try:
            return await _judged(hook, delivery)
        except Unverified:
            if not self._hooks.may_have_changed(hook):
                raise
        # Its secret, or its subscription, may be newer than what was looked up.
        return await _judged(await self._look(hook.source_id), delivery)

    async def _store(self, hook: Hook, heard: Heard, received_at_ms: int) -> bool:
        """Whether it had been stored before."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Parcel] = loop.create_future()
        if not self._hooks.submit(hook, heard, received_at_ms, self._told_in(loop), waiter):
            raise Problem("busy", "too many deliveries wait to be stored", headers=_RETRY)
        parcel = await waiter
        if parcel.error is not None:
            raise parcel.error
        return parcel.duplicate

    def _told_in(self, loop: asyncio.AbstractEventLoop) -> Callable[[Sequence[Parcel]], object]:
        """Wakes those who wait in this loop; the same function each time, so that a batch wakes it once."""
        if loop not in self._told:
            self._told.clear()  # there is one loop, unless a server was started anew
            self._told[loop] = partial(loop.call_soon_threadsafe, _wake)
        return self._told[loop]

    # --- telling of it -------------------------------------------------------------------------------------------

    def _note(self, hook: Hook, delivery: Delivery, result: str, detail: JsonObject, began_s: float) -> None:
        now_s = time.perf_counter()
        self._count(hook.source_id, result)
        self._hooks.log.note(hook.source_id, delivery, result, detail, (now_s - began_s) * 1000, hook.secrets)
        if "refused" in detail and now_s - self._said_s.get(hook.source_id, float("-inf")) > _SAY_EVERY_S:
            self._said_s[hook.source_id] = now_s
            _log.warning("deliveries_refused", source_id=hook.source_id, result=result, why=detail["refused"])


class _Pace:
    """At most `rate` deliveries per second and source; a minute's worth may come at once. Of known sources only, so its size is
    bounded."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_s: dict[str, float] = {}  # GCRA: when the source's allowance would be whole again

    def take(self, source_id: str) -> float:
        """0, or for how many seconds nothing more is taken."""
        now_s = time.monotonic()
        free_s = max(self._free_s.get(source_id, 0.0), now_s) + 1 / self._rate
        if free_s - now_s > _BURST_S:
            return free_s - now_s - _BURST_S
        self._free_s[source_id] = free_s
        return 0.0


async def _judged(hook: Hook, delivery: Delivery) -> Heard:
    return hook.judge(delivery) if len(delivery.body) <= _LARGE_BYTES else await in_thread(hook.judge, delivery)


def _wake(parcels: Sequence[Parcel]) -> None:
    for parcel in parcels:
        waiter = parcel.waiter
        if isinstance(waiter, asyncio.Future) and not waiter.done():
            waiter.set_result(parcel)  # pyright: ignore[reportUnknownMemberType]  # made in `_store`


def _unknown(source_id: str) -> Problem:
    return Problem("unknown-source", f"there is no source {source_id!r}", field="source_id")


def _address(scope: Scope) -> tuple[str, str | None]:
    """Source id and token in the raw path, which the shield has put in place. Problem 404 where it is another."""
    parts = scope["path"].split("/")
    if len(parts) not in (3, 4) or not all(parts[2:]):
        raise Problem("not-found", f"{scope['method']} {scope['path']}", fix="/docs lists what there is")
    return unquote(parts[2]), unquote(parts[3]) if len(parts) == 4 else None


def _delivery(request: Request, public_url: str) -> Delivery:
    """The request without its body, which is read later."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    sent: bytes = request.scope["query_string"]
    url = f"{public_url}{request.scope['path']}{'?' if sent else ''}{sent.decode('latin-1')}" if public_url else ""
    return Delivery(request.method, headers, b"", time.time_ns() // 1_000_000, _query(sent) if sent else {}, url)


def _query(sent: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(sent.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_QUERY_FIELDS)
    except ValueError:
        raise Problem("invalid", f"has more than {_MOST_QUERY_FIELDS} fields", field="query") from None
    return dict(reversed(pairs))


def _response(heard: Heard) -> Response:
    if heard.reply is None:
        return answer({"stored": len(heard.changes)}, 202)
    return _handshake(heard.reply)


def _handshake(reply: Reply) -> Response:
    # What a handshake echoes comes from outside: it must not end its header and begin another.
    for name, value in reply.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise Problem("invalid", "holds what no header may", field="handshake")
    return Response(reply.body, reply.status, dict(reply.headers), reply.media_type)


def _described() -> JsonObject:
    """The hooks in the OpenAPI document."""
    segment = {"name": "source_id", "in": "path", "required": True, "description": "the source's id, percent-encoded"}
    token = {
        "name": "token",
        "in": "path",
        "required": True,
        "description": "the unguessable part of its address, if it has one",
    }
    paths = {"/hooks/{source_id}": [segment], "/hooks/{source_id}/{token}": [segment, token]}
    return {
        path: {method: _operation(method, path, parameters) for method in ("post", "get", "options")}
        for path, parameters in paths.items()
    }


def _operation(method: str, path: str, parameters: Sequence[JsonObject]) -> JsonObject:
    posts = method == "post"
    answers = {"202": "its events are stored", "200": "the handshake's answer"} if posts else {"200": "the handshake's answer"}
    operation: JsonObject = {
        "tags": ["hooks"],
        "operationId": f"{method}_hook" + ("_with_token" if "token" in path else ""),
        "summary": "What a provider sends" if posts else "A provider's handshake",
        "description": "The source's connector proves and reads it. See docs/webhooks.md.",
        "parameters": [one | {"schema": {"type": "string"}} for one in parameters],
        "responses": {status: {"description": meaning} for status, meaning in answers.items()},
    }
    return operation | ({"requestBody": {"content": {"*/*": {"schema": {}}}}} if posts else {})


DESCRIBED: Final = _described()
"""The paths of the hooks for the OpenAPI document."""
