"""Reading the body of a delivery that is proven: JSON and forms from outside, within limits.

A proof says who sent it, not that it is harmless: a body of 25 MB may hold ten million brackets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, cast
from urllib.parse import parse_qsl

from sourcebus.errors import InvalidInput

MAX_DEPTH: Final = 64
"""How deep a payload may be nested; the deepest of GitHub's examples has 7 levels."""

MAX_VALUES: Final = 2_000_000
"""How many values a payload may hold: a few hundred bytes of memory are made of two bytes of ``[],[],``."""

_MAX_FIELDS: Final = 1_000


def parse_json_body(body: bytes, field: str = "body") -> Any:
    """The JSON value in `body`, within `MAX_DEPTH` and `MAX_VALUES`. Raises `InvalidInput` for `field`, whatever the bytes are.

    NaN and Infinity, which are no JSON, and texts in other encodings than UTF-8 (with or without its mark) are refused.
    """
    containers = body.count(b"[") + body.count(b"{")
    if containers + body.count(b",") > MAX_VALUES:
        raise InvalidInput(field, "holds too many values", f"send at most {MAX_VALUES}")
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        problem = f"is no JSON: {error.msg} at {at}" if body.strip() else "is empty"
        raise InvalidInput(field, problem, "send JSON") from None
    except UnicodeDecodeError:
        raise InvalidInput(field, "is not UTF-8", "send JSON as UTF-8") from None
    except ValueError as error:  # a constant, or a number of more digits than Python converts
        raise InvalidInput(field, f"is no JSON: {error}", "send JSON") from None
    except RecursionError:
        _too_deep(field)
    if containers > MAX_DEPTH:  # fewer cannot be nested deeper, and most bodies have fewer
        _check_depth(value, field)
    return value


def parse_json_object(body: bytes, field: str = "body") -> dict[str, Any]:
    """`parse_json_body` where only an object makes sense."""
    value = parse_json_body(body, field)
    if not isinstance(value, dict):
        raise InvalidInput(field, "is no object", "send {…}")
    return cast("dict[str, Any]", value)


def parse_form_body(body: bytes, field: str = "body") -> Mapping[str, str]:
    """The fields of an ``application/x-www-form-urlencoded`` body, the first value of each. Raises `InvalidInput`."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except (UnicodeDecodeError, ValueError):
        raise InvalidInput(field, f"is no form of at most {_MAX_FIELDS} fields", "send name=value&…") from None
    return dict(reversed(pairs))


def _check_depth(value: object, field: str) -> None:
    level, depth = _inside([value]), 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            _too_deep(field)
        level = _inside([inner for one in level for inner in one])


def _inside(values: Sequence[object]) -> list[Sequence[object]]:
    """What the objects and lists among `values` hold, each by itself."""
    found: list[Sequence[object]] = []
    for one in values:
        if isinstance(one, dict):
            found.append(list(cast("dict[str, object]", one).values()))
        elif isinstance(one, list):
            found.append(cast("list[object]", one))
    return found


def _too_deep(field: str) -> NoReturn:
    raise InvalidInput(field, "is nested too deep", f"nest at most {MAX_DEPTH} levels")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
