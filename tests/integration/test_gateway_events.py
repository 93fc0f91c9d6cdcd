"""``POST /v1/events``: what is taken, in which forms, and what is refused and how."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from fastapi import FastAPI

from sourcebus.bus import Emitted
from sourcebus.gateway import create_app
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings

Serve = Callable[[FastAPI], httpx.Client]

EVENT: dict[str, Any] = {
    "source_id": "docs",
    "object_ref": "a.md",
    "change_kind": "updated",
    "observed_at": "2026-01-31T09:30:00Z",
}


def pending(runtime: Runtime) -> int:
    (stats,) = runtime.bus.stats(["docs"])
    assert stats is not None
    return stats.pending


def check_problem(answer: httpx.Response, status: int, name: str, **members: object) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:sourcebus:problem:{name}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem.items() >= members.items(), problem
    return problem


def test_one_event_and_a_list_are_taken_and_counted(http: httpx.Client, docs: str, runtime: Runtime) -> None:
    before = pending(runtime)
    one = http.post("/v1/events", json=EVENT)
    assert one.status_code == 202, one.text
    assert one.json() == {"accepted": 1, "merged": 0, "deferred": 0, "overflowed": 0}
    three = http.post("/v1/events", json=[EVENT, EVENT | {"object_ref": "b.md"}, EVENT | {"object_ref": "b.md"}])
    assert three.json() == {"accepted": 1, "merged": 2, "deferred": 0, "overflowed": 0}
    assert pending(runtime) == before + 2


def test_cloudevents_are_taken_structured_batched_and_binary(http: httpx.Client, docs: str, runtime: Runtime) -> None:
    def event(ref: str) -> CloudEvent:
        return CloudEvent({"id": ref, "source": "/v1/sources/docs", "type": "source.changed"}, EVENT | {"object_ref": ref})

    before = pending(runtime)
    structured = to_structured(event("structured"), JSONFormat())
    assert http.post("/v1/events", content=structured.body, headers=structured.headers).status_code == 202
    binary = to_binary(event("binary"), JSONFormat())
    assert http.post("/v1/events", content=binary.body, headers=binary.headers).status_code == 202
    batch = json.dumps([json.loads(to_structured(event(ref), JSONFormat()).body) for ref in ("first", "second")])
    kind = {"content-type": "application/cloudevents-batch+json; charset=UTF-8"}
    assert http.post("/v1/events", content=batch, headers=kind).json()["accepted"] == 2
    bare = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-type": "source.changed",
        "ce-source": "docs",
        "ce-subject": "without%20data",
    }
    assert http.post("/v1/events", headers=bare).status_code == 202
    assert pending(runtime) == before + 5


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("application/cloudevents+json", [EVENT], None),
        ("application/cloudevents-batch+json", EVENT, None),
        ("application/cloudevents+json", EVENT, "specversion"),
        ("application/cloudevents-batch+json", [EVENT], "events[0].specversion"),
    ],
)
def test_a_content_type_that_does_not_go_with_the_body_is_refused(
    http: httpx.Client, docs: str, kind: str, body: object, field: str | None
) -> None:
    problem = check_problem(http.post("/v1/events", content=json.dumps(body), headers={"content-type": kind}), 422, "invalid")
    assert problem.get("field") == field


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"source_id": NaN}', b"\xff\xfe\xff", b'"\x01"', b"[" * 60_000, b'{"a":' * 12_000, b"9" * 5_000],
    ids=["empty", "cut", "nan", "no-utf8", "control", "deep-list", "deep-object", "long-number"],
)
def test_what_is_not_json_is_400(http: httpx.Client, docs: str, body: bytes) -> None:
    problem = check_problem(
        http.post("/v1/events", content=body, headers={"content-type": "application/json"}), 400, "malformed"
    )
    assert "Traceback" not in problem["detail"]


@pytest.mark.parametrize("body", [[], {}], ids=["empty list", "empty object"])
def test_an_empty_list_is_nothing_and_an_empty_object_is_no_event(http: httpx.Client, docs: str, body: object) -> None:
    answer = http.post("/v1/events", json=body)
    if body == []:
        assert answer.json() == {"accepted": 0, "merged": 0, "deferred": 0, "overflowed": 0}
    else:
        check_problem(answer, 422, "invalid", field="source_id")


def test_a_bad_event_refuses_its_whole_batch_and_is_named(http: httpx.Client, docs: str, runtime: Runtime) -> None:
    before = pending(runtime)
    batch = [EVENT | {"object_ref": str(n)} for n in range(5)]
    batch[3] = {"object_ref": "x"}
    check_problem(http.post("/v1/events", json=batch), 422, "invalid", field="events[3].source_id", detail="is missing")
    batch[3] = EVENT | {"source_id": "nobody"}
    check_problem(http.post("/v1/events", json=batch), 404, "unknown-source", field="events[3].source_id")
    check_problem(http.post("/v1/events", json=EVENT | {"source_id": "nobody"}), 404, "unknown-source", field="source_id")
    assert pending(runtime) == before


def test_a_manual_signal_cannot_go_round_the_cap_on_refreshes(http: httpx.Client, docs: str, runtime: Runtime) -> None:
    before = pending(runtime)
    batch = [EVENT, EVENT | {"object_ref": "b.md", "signal": "manual"}]
    check_problem(
        http.post("/v1/events", json=batch), 422, "invalid", field="events[1].signal", fix="POST /v1/sources/{id}/refresh"
    )
    check_problem(http.post("/v1/events", json=batch[1]), 422, "invalid", field="signal")
    assert pending(runtime) == before


def test_too_many_events_are_413(http: httpx.Client, docs: str) -> None:
    batch = [{"source_id": "docs", "object_ref": str(n)} for n in range(101)]
    check_problem(http.post("/v1/events", json=batch), 413, "too-large", field="events", fix="send at most 100 at a time")


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 8192):
        yield b" " * 8192


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_413_with_and_without_a_declared_length(http: httpx.Client, docs: str, chunked: bool) -> None:
    content = chunks(524_288) if chunked else b" " * 524_288
    check_problem(http.post("/v1/events", content=content, headers={"content-type": "application/json"}), 413, "too-large")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_far_over_the_limit_is_cut_off(http: httpx.Client, docs: str, chunked: bool, runtime: Runtime) -> None:
    before = pending(runtime)
    content = chunks(8_000_000) if chunked else b" " * 8_000_000
    try:
        check_problem(http.post("/v1/events", content=content, headers={"content-type": "application/json"}), 413, "too-large")
    except httpx.TransportError:
        pass  # the answer may be lost to who goes on sending after the server has hung up
    assert http.post("/v1/events", json=EVENT).status_code == 202, "the server goes on"
    assert pending(runtime) == before + 1


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"])
def test_other_media_types_are_415(http: httpx.Client, docs: str, kind: str | None) -> None:
    answer = http.post("/v1/events", content=json.dumps(EVENT), headers={"content-type": kind} if kind else {})
    check_problem(answer, 415, "media-type")
    assert "application/cloudevents+json" in answer.headers["accept-post"]


def test_file_names_that_are_not_utf8_come_through(http: httpx.Client, docs: str, runtime: Runtime) -> None:
    body = json.dumps(EVENT | {"object_ref": "caf\udce9.txt"})
    assert http.post("/v1/events", content=body, headers={"content-type": "application/json"}).status_code == 202
    assert runtime.bus.peek("docs", "caf\udce9.txt").state != "absent"


def test_nothing_is_acknowledged_when_redis_is_away(runtime: Runtime, serve: Serve, settings: Settings, docs: str) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with build(away) as broken:
        http = serve(create_app(broken))
        answer = http.post("/v1/events", json=EVENT)
        check_problem(answer, 503, "bus-unavailable")
        assert int(answer.headers["retry-after"]) >= 1


def test_the_hook_is_told_and_cannot_spoil_the_answer(runtime: Runtime, serve: Serve, docs: str) -> None:
    told: list[Emitted] = []

    def hook(emitted: Emitted) -> None:
        told.append(emitted)
        raise RuntimeError("broker away")

    http = serve(create_app(runtime, on_accept=hook))
    assert http.post("/v1/events", json=EVENT).status_code == 202
    assert [emitted.accepted for emitted in told] == [1]
