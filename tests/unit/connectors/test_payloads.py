"""Bodies from outside, read within bounds."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from sourcebus.connectors.payloads import MAX_DEPTH, MAX_VALUES, parse_form_body, parse_json_body, parse_json_object
from sourcebus.errors import InvalidInput


def test_json_is_read_as_it_is() -> None:
    value: object = {"a": [1, 2.5, None, True, "ä\ud800 { [ ,"], "b": {"c": []}}
    assert parse_json_body(json.dumps(value).encode()) == value
    assert parse_json_body(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b"{}x", b"nan", b"NaN", b'{"a": Infinity}', b"\xff", '{"a": "ä"}'.encode("utf-16")),
        *(b"9" * 5_000, b"[" * 9_000_000),
    ],
)
def test_what_is_none_is_refused_by_its_field(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_json_body(body, "detail")
    assert refused.value.field == "detail"


def test_as_deep_as_allowed_and_no_deeper() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json_body(deep)
    for deeper in (b"[" + deep + b"]", b'{"a":' * 200 + b"1" + b"}" * 200, b"[" * 900 + b"]" * 900):
        with pytest.raises(InvalidInput, match="nested too deep"):
            parse_json_body(deeper)
    wide = b"[" + b",".join([b"[]"] * 10_000) + b"]"
    assert len(parse_json_body(wide)) == 10_000


def test_a_bomb_of_many_values_is_refused_before_it_takes_memory() -> None:
    bomb = b"[" + b"[]," * MAX_VALUES + b"[]]"
    tracemalloc.start()
    began_s = time.perf_counter()
    with pytest.raises(InvalidInput, match="too many values"):
        parse_json_body(bomb)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 1_000_000 and time.perf_counter() - began_s < 1


def test_an_object_where_only_that_makes_sense() -> None:
    assert parse_json_object(b'{"a": 1}') == {"a": 1}
    for body in (b"[]", b"1", b"null"):
        with pytest.raises(InvalidInput, match="no object"):
            parse_json_object(body)


def test_a_form_has_the_first_value_of_each_field() -> None:
    assert parse_form_body(b"a=1&b=%C3%A4+x&a=2&c=") == {"a": "1", "b": "ä x", "c": ""}
    for body in (b"a=\xff", b"&".join(b"a=1" for _ in range(1_001))):
        with pytest.raises(InvalidInput, match="no form"):
            parse_form_body(body)
