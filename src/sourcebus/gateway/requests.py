"""Reading what was sent: bodies within a limit, JSON that cannot hurt, ids from the path, references from the query."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, NoReturn, TypeVar, cast
from urllib.parse import parse_qsl, unquote

from anyio import to_thread
from fastapi import Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from sourcebus.gateway.problems import Problem
from sourcebus.model import JsonObject

T = TypeVar("T")

DRAIN_FACTOR: Final = 16
"""A body over the limit is read and thrown away up to this many limits, so that its sender gets to see the answer."""

MAX_DEPTH: Final = 64
"""How deep a configuration may be nested."""

Limit = Annotated[int, Query(ge=1, le=1000, description="most items in the answer")]
After = Annotated[str | None, Query(description="`next` of the answer before")]
SourceId = Annotated[str, Path(description="the source's id, percent-encoded")]
DeliveryId = Annotated[int, Path(ge=1, le=2**63 - 1, description="the id of a line of a deliveries log")]
LetterId = Annotated[str, Path(description="the dead letter's id, percent-encoded")]


class _Encoded(Convertor[str]):
    """One percent-encoded path segment: the shield routes by the raw path, so that ``%2F`` is not a separator."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        raise NotImplementedError  # addresses are written by those who show them


register_url_convertor("encoded", _Encoded())


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Runs a blocking call beside the event loop."""
    return await to_thread.run_sync(call, *args)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, at most `max_bytes` long, whatever Content-Length says; Problem 413 if it is longer."""
    if declares_more(request, max_bytes * DRAIN_FACTOR):
        _too_large(max_bytes)
    read, chunks = 0, list[bytes]()
    async for chunk in request.stream():
        read += len(chunk)
        if read <= max_bytes:
            chunks.append(chunk)
        elif read > max_bytes * DRAIN_FACTOR:
            break
        else:
            chunks.clear()
    if read > max_bytes:
        _too_large(max_bytes)
    return b"".join(chunks)


def declares_more(request: Request, than_bytes: int) -> bool:
    """Whether Content-Length says that the body is longer. It is the sender's word only, and may have any number of digits."""
    declared = request.headers.get("content-length", "")
    return declared.isdecimal() and (len(declared) > 18 or int(declared) > than_bytes)


def _too_large(max_bytes: int) -> NoReturn:
    raise Problem(
        "too-large", f"the body is longer than {max_bytes} bytes", fix="send smaller batches", headers={"Connection": "close"}
    )


def parse_json(body: bytes) -> object:
    """The JSON value in `body`; Problem 400 says where it is broken."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise Problem("malformed", f"{error.msg} at {at}" if body.strip() else "the body is empty", fix="send JSON") from None
    except UnicodeDecodeError:
        raise Problem("malformed", "the body is not UTF-8", fix="send JSON as UTF-8") from None
    except ValueError as error:
        raise Problem("malformed", str(error), fix="send JSON") from None
    except RecursionError:
        raise Problem("malformed", "the body is nested too deep", fix=f"nest at most {MAX_DEPTH} levels") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def read_object(request: Request, max_bytes: int, *, optional: bool = False) -> JsonObject:
    """The JSON object that was sent; {} where the body is empty and `optional`. Problems 400, 413, 415 and 422."""
    body = await read_body(request, max_bytes)
    if optional and not body.strip():
        return {}
    require_media_type(request.headers.get("content-type", ""), ("application/json",))
    value = parse_json(body)
    if not isinstance(value, dict):
        raise Problem("invalid", "the body is not an object", fix="send {…}")
    if _deeper_than(value := cast("JsonObject", value), MAX_DEPTH):
        raise Problem("malformed", "the body is nested too deep", fix=f"nest at most {MAX_DEPTH} levels")
    return value


def _deeper_than(value: object, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = cast("Sequence[object]", value if isinstance(value, list) else list(cast("dict[str, Any]", value).values()))
    return levels <= 0 or any(_deeper_than(item, levels - 1) for item in inner)


def require_media_type(sent: str, known: Sequence[str]) -> str:
    """The media type of a Content-Type without its parameters; Problem 415 if it is none of `known`, or not in UTF-8."""
    media_type, _, parameters = sent.partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.lower().replace(" ", "").replace('"', "").partition("charset=")[2].partition(";")[0]
    if media_type not in known or charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise Problem(
            "media-type",
            f"Content-Type is {sent!r}" if sent else "there is no Content-Type",
            fix="send one of " + ", ".join(known),
            headers={"Accept-Post": ", ".join(known)},
        )
    return media_type


def exact_query(request: Request, name: str) -> str:
    """A query parameter byte for byte: ``%FF`` becomes the lone surrogate that stands for it in a file's name."""
    query = cast("bytes", request.scope["query_string"]).decode("ascii", "replace")
    for key, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        if key == name:
            return value
    raise Problem("invalid", "is missing", field=name, fix=f"add ?{name}=…")


def page(items: Sequence[T], limit: int, cursor: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """One page of a list that was asked for one item more than `limit`, and the cursor of the next page (None: no more)."""
    return (items[:limit], cursor(items[limit - 1])) if len(items) > limit else (items, None)
