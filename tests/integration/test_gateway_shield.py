"""Who is answered, and how what goes wrong is told: problems everywhere, ids for the unforeseen, monitoring."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from prometheus_client.parser import text_string_to_metric_families

from sourcebus import telemetry
from sourcebus.bus import WAITED, Settle, SourceStats
from sourcebus.gateway import create_app
from sourcebus.gateway.problems import TITLES
from sourcebus.model import Quota, SourceChanged
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings

Serve = Callable[[FastAPI], httpx.Client]
EVENT = {"source_id": "docs", "object_ref": "a.md"}


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:99", "127.0.0.1", "[::1]:8080", "LOCALHOST.", "192.168.7.7:80", "api.example"]
)
def test_loopback_addresses_and_configured_names_are_answered(settings: Settings, serve: Serve, host: str) -> None:
    with build(settings.model_copy(update={"allowed_hosts": frozenset({"api.example"})})) as runtime:
        assert serve(create_app(runtime)).get("/v1/sources", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a@localhost.evil"]
)
def test_a_name_that_is_not_this_servers_is_not_answered(http: httpx.Client, host: str) -> None:
    refused = http.get("/v1/sources", headers={"host": host})
    assert refused.status_code == 421
    assert refused.json()["type"] == "urn:sourcebus:problem:unknown-host"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_site_can_change_nothing(http: httpx.Client, docs: str, headers: dict[str, str]) -> None:
    for method, address in (("POST", "/v1/events"), ("PATCH", "/v1/sources/docs"), ("DELETE", "/v1/sources/docs")):
        refused = http.request(method, address, json=EVENT, headers=headers)
        assert refused.status_code == 403, refused.text
        assert refused.json()["type"] == "urn:sourcebus:problem:cross-site"
    assert http.get("/v1/sources/docs").status_code == 200


def test_its_own_page_can(http: httpx.Client, docs: str) -> None:
    own = {"origin": str(http.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert http.post("/v1/events", json=EVENT, headers=own).status_code == 202


def test_every_answer_keeps_pages_apart(http: httpx.Client) -> None:
    for address in ("/v1/sources", "/nowhere", "/", "/docs", "/healthz", "/metrics"):
        headers = http.get(address).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_unknown_addresses_and_methods_are_problems(http: httpx.Client) -> None:
    for address in ("/nowhere", "/v1/nowhere", "/v1/sources/a/b/c", "/v1/sources/", "/%76%31/sources"):
        answer = http.get(address)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:sourcebus:problem:not-found"), address
    wrong = http.put("/v1/events", json=EVENT)
    assert (wrong.status_code, wrong.json()["type"]) == (405, "urn:sourcebus:problem:method")
    assert wrong.headers["allow"] == "POST"


def test_what_nobody_foresaw_is_500_with_an_id_that_is_in_the_log(runtime: Runtime, serve: Serve) -> None:
    broken = APIRouter()

    @broken.get("/broken")
    def fail() -> None:
        raise ZeroDivisionError("a secret detail")

    with structlog.testing.capture_logs() as logs:
        answer = serve(create_app(runtime, mount=[broken])).get("/broken")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    (line,) = [log for log in logs if log["event"] == "http_error"]
    assert line["error_id"] == answer.json()["error_id"]
    assert isinstance(line["exc_info"], ZeroDivisionError)


def test_a_client_that_leaves_in_the_middle_harms_nobody(http: httpx.Client, docs: str) -> None:
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0)) as line:
        line.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n["
        )
    assert http.post("/v1/events", json=EVENT).status_code == 202


def test_healthz_asks_nobody_and_readyz_names_what_is_missing(settings: Settings, serve: Serve) -> None:
    with build(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as broken:
        http = serve(create_app(broken))
        assert http.get("/healthz").json() == {"status": "alive"}
        answer = http.get("/readyz")
        assert answer.status_code == 503
        problem = answer.json()
        failing = {check["name"] for check in problem["checks"] if check["ok"] is False}
        assert "redis" in failing
        assert "database" not in failing
        assert "redis" in problem["detail"]


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_metrics_tell_of_the_bus_and_the_catalog(http: httpx.Client, runtime: Runtime, docs: str) -> None:
    http.post("/v1/events", json=[EVENT, EVENT, EVENT | {"object_ref": "b.md"}])
    found = samples(http.get("/metrics").text)
    (stats,) = runtime.bus.stats(["docs"])
    assert isinstance(stats, SourceStats)
    assert found["sourcebus_up"] == {("bus",): 1, ("catalog",): 1}
    assert found["sourcebus_events_accepted_total"] == {("docs",): stats.accepted}
    assert found["sourcebus_events_merged_total"] == {("docs",): stats.merged}
    assert sum(found["sourcebus_pending_objects"].values()) == stats.live + stats.backfill + stats.manual
    assert found["sourcebus_source_state"]["docs", "blocked"] == 1
    assert found["sourcebus_catalog_documents"] == {("docs",): 0}
    assert found["sourcebus_http_requests_total"]["POST", "/v1/events", "202"] == 1


def test_metrics_tell_what_holds_a_source_back_and_whether_anybody_works(http: httpx.Client, runtime: Runtime) -> None:
    bus = runtime.bus
    for name, quota in {"gated": Quota(rate=0.001, burst=1), "told": Quota(rate=5, burst=5), "waiting": Quota()}.items():
        bus.register(name, quota=quota)
        bus.emit([SourceChanged(name, "a"), SourceChanged(name, "b")])
    for lease in bus.claim(3, consumer="c").leases:
        if lease.source_id == "told":
            bus.nack([lease], how=Settle.THROTTLED, wait_ms=60_000)
    found = samples(http.get("/metrics").text)
    held = {labels for labels, value in found["sourcebus_source_held_back"].items() if value}
    assert held == {("tokens", "gated"), ("provider_pause", "told"), ("workers_busy", "waiting")}  # labels by their names
    assert (found["sourcebus_consumers"], found["sourcebus_waiting_consumers"]) == ({(): 1}, {(): 0})
    assert found["sourcebus_throttled_total"]["told",] == 1 and found["sourcebus_reruns_total"]["told",] == 0
    assert 0.5 <= found["sourcebus_learned_rate_share"]["told",] < 0.6 and found["sourcebus_learned_rate_share"]["gated",] == 1
    assert {reason for reason, _ in found["sourcebus_waited_seconds_total"]} == set(WAITED)


def test_every_declared_metric_is_there_and_no_other(http: httpx.Client, docs: str, runtime: Runtime) -> None:
    http.get("/healthz")
    runtime.catalog.set_state(docs, feed={"mode": "poll", "interval_s": 600})  # as its first listing leaves it
    runtime.bus.tally(docs, 1_000, [("announced", "a")])
    names = set(re.findall(r"^# TYPE (\S+)", http.get("/metrics").text, re.MULTILINE))
    declared = {metric.name for metric in telemetry.METRICS}
    assert declared <= names
    assert {name for name in names - declared if not name.endswith("_created")} == set()


def test_ids_in_paths_make_no_new_series(http: httpx.Client) -> None:
    for number in range(3):
        http.get(f"/v1/sources/{number}")
        http.get(f"/nowhere/{number}")
    routes = {labels[1] for labels in samples(http.get("/metrics").text)["sourcebus_http_requests_total"]}
    assert routes == {"/v1/sources/{source_id:encoded}", "(none)"}


def test_past_the_limit_sources_share_one_label(settings: Settings, serve: Serve) -> None:
    with build(settings.model_copy(update={"metrics_sources": 2})) as runtime:
        for number in range(5):
            runtime.bus.register(f"s{number}")
        found = samples(serve(create_app(runtime)).get("/metrics").text)
    assert set(found["sourcebus_in_flight_objects"]) == {("s0",), ("s1",), ("(other)",)}
    assert found["sourcebus_source_state"]["(other)", "idle"] == 3
    assert found["sourcebus_sources"] == {(): 5}
    assert found["sourcebus_learned_rate_share"]["(other)",] == 1, "the least of them, not their sum"


def test_a_part_that_does_not_answer_has_no_metrics_rather_than_old_ones(settings: Settings, serve: Serve) -> None:
    with build(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as broken:
        found = samples(serve(create_app(broken)).get("/metrics").text)
    assert found["sourcebus_up"] == {("bus",): 0, ("catalog",): 1}
    assert "sourcebus_pending_objects" not in found


def test_the_docs_page_lists_every_endpoint_and_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/docs").text
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_problem_names_and_titles_are_json_and_unique() -> None:
    assert len({title for _, title in TITLES.values()}) == len(TITLES)
    assert json.dumps(list(TITLES))
