"""The deliveries log: what came, what it was taken for, nothing secret in it, bounded; and looking at a delivery once more."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.hearing import SECRET, register_all, signature, signed

from sourcebus.intake.deliveries import KEEP_REFUSED, KEPT_BODY_BYTES, RESULTS
from sourcebus.model import Delivery, DeliveryLine
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings

register_all()


@pytest.fixture
def repo(http: httpx.Client) -> str:
    obj = {"id": "repo", "connector": "signed", "secret": json.dumps({"webhook": [SECRET, "the old secret"]}), "paused": True}
    assert http.post("/v1/sources", json=obj).status_code == 201
    return "repo"


def lines(http: httpx.Client, runtime: Runtime, source_id: str = "repo") -> list[dict[str, Any]]:
    runtime.hooks.log.flush()
    return http.get(f"/v1/sources/{source_id}/deliveries").json()["items"]


def test_each_delivery_has_a_line_that_says_what_followed(http: httpx.Client, runtime: Runtime, repo: str) -> None:
    http.post("/hooks/repo", **signed({"objects": ["a"]}, x_delivery="d1"))
    http.post("/hooks/repo", **signed({"objects": ["a"]}, x_delivery="d1"))
    http.post("/hooks/repo", **signed({"note": "ping"}))
    http.get("/hooks/repo?challenge=1")
    http.post("/hooks/repo", **signed({"objects": 7}))
    http.post("/hooks/repo", content=b"{}")
    found = lines(http, runtime)
    assert [line["result"] for line in found] == ["unverified", "invalid", "handshake", "nothing", "duplicate", "stored"]
    assert all(line["meaning"] == RESULTS[line["result"]] and line["duration_ms"] > 0 for line in found)
    assert found[-1]["detail"] == {"events": 1, "objects": ["updated a"], "delivery_id": "d1"}
    assert found[3]["detail"] == {"note": "ping"}
    assert found[0]["detail"] == {"refused": "the signature is missing"}
    assert found[1]["detail"]["refused"].startswith("body"), "the field is named"


def test_nothing_secret_is_in_a_line_or_in_the_database(
    http: httpx.Client, runtime: Runtime, repo: str, tmp_path: Path
) -> None:
    body = json.dumps(
        {"note": f"it is {SECRET}", "clientState": "state-of-graph", "token": "of-slack", "kept": "shown"}
    ).encode()
    secrets = {"authorization": "Bearer of-a-bearer", "cookie": "c=of-a-cookie", "x-gitlab-token": "of-gitlab"}
    http.post(f"/hooks/repo?verify_token=of-websub&seen=1&odd={SECRET}", content=body, headers=signature(body) | secrets)
    (line,) = lines(http, runtime)
    shown = http.get(f"/v1/deliveries/{line['id']}").text
    assert '"kept\\": \\"shown' in shown and '"seen":"1"' in shown
    hidden = [SECRET, "state-of-graph", "of-slack", "of-a-bearer", "of-a-cookie", "of-gitlab", "of-websub"]
    hidden.append(signature(body)["x-hub-signature-256"])
    assert not [secret for secret in hidden if secret in shown]
    connection = sqlite3.connect(tmp_path / "catalog.db")
    kept = repr(connection.execute("SELECT line, sealed FROM deliveries").fetchall())
    connection.close()
    assert not [secret for secret in hidden if secret in kept]


def test_only_the_newest_stay_and_garbage_does_not_push_out_what_was_proven(settings: Settings) -> None:
    with build(settings.model_copy(update={"hook_log": 5})) as runtime:
        runtime.sources.add(runtime.sources.parse({"id": "repo", "connector": "signed", "secret": SECRET}))
        for number in range(40):
            for result in ("stored", "unverified", "refused"):
                delivery = Delivery("POST", {}, b"{}", number)
                runtime.hooks.log.note("repo", delivery, result, {"number": number}, 1.0, ())
            if number % 7 == 0:
                runtime.hooks.log.flush()
        runtime.hooks.log.flush()
        found = runtime.catalog.deliveries("repo", limit=1_000)
        assert [line.detail["number"] for line in found if line.result == "stored"] == [39, 38, 37, 36, 35]
        assert len([line for line in found if line.result != "stored"]) == KEEP_REFUSED
        assert runtime.hooks.log.not_logged > 0


def test_a_flood_is_not_written_line_by_line(settings: Settings) -> None:
    with build(settings) as runtime:
        for number in range(50):
            runtime.sources.add(runtime.sources.parse({"id": f"s{number}", "connector": "signed", "secret": SECRET}))
        for number in range(20_000):
            runtime.hooks.log.note(f"s{number % 50}", Delivery("POST", {}, b"x" * 70_000, number), "stored", {}, 1.0, ())
        runtime.hooks.log.flush()
        written = sum(len(runtime.catalog.deliveries(f"s{number}")) for number in range(50))
        assert written <= 600, "about 200 a second"


def test_without_a_key_the_line_is_kept_and_the_request_is_not(settings: Settings) -> None:
    with build(settings.model_copy(update={"secret_key": None})) as runtime:
        runtime.sources.add(runtime.sources.parse({"id": "repo", "connector": "broken"}))
        runtime.hooks.log.note("repo", Delivery("POST", {"a": "b"}, b"{}", 1), "stored", {}, 1.0, ())
        runtime.hooks.log.flush()
        (line,) = runtime.catalog.deliveries("repo")
        assert line.headers == {"a": "b"}
        kept = runtime.catalog.delivery(line.id)
        assert kept is not None and kept.delivery is None


def test_a_request_comes_back_byte_for_byte(runtime: Runtime) -> None:
    runtime.sources.add(runtime.sources.parse({"id": "repo", "connector": "signed", "secret": SECRET}))
    sent = Delivery("POST", {"x": "ÿ\n"}, bytes(range(256)) * 200, 123, {"q": "\udc80"}, "https://hooks.example/x?q=%80")
    line = DeliveryLine("repo", 123, "POST", "stored", {}, {}, len(sent.body), 1.0, delivery=sent)
    runtime.catalog.log_deliveries([(line, False)], keep=5, keep_refused=5)
    kept = runtime.catalog.delivery(runtime.catalog.deliveries("repo")[0].id)
    assert kept is not None and kept.delivery == sent


def test_pages_go_on_where_the_last_ended(http: httpx.Client, runtime: Runtime, repo: str) -> None:
    for _ in range(5):
        http.post("/hooks/repo", **signed({}))
    everything = lines(http, runtime)
    first = http.get("/v1/sources/repo/deliveries?limit=3").json()
    second = http.get(f"/v1/sources/repo/deliveries?limit=3&after={first['next']}").json()
    assert first["items"] + second["items"] == everything
    assert second["next"] is None


def test_a_removed_source_takes_its_deliveries_along(http: httpx.Client, runtime: Runtime, repo: str) -> None:
    http.post("/hooks/repo", **signed({}))
    (line,) = lines(http, runtime)
    http.delete("/v1/sources/repo")
    assert http.get(f"/v1/deliveries/{line['id']}").status_code == 404
    assert http.get("/v1/sources/repo/deliveries").status_code == 404
    runtime.hooks.log.note("repo", Delivery("POST", {}, b"", 1), "stored", {}, 1.0, ())
    runtime.hooks.log.flush()  # a line that was on its way is dropped


# --- once more


def redeliver(http: httpx.Client, line: dict[str, Any]) -> httpx.Response:
    return http.post(f"/v1/deliveries/{line['id']}/redeliver")


def test_what_was_refused_for_a_wrong_secret_can_be_taken_once_it_is_right(
    http: httpx.Client, runtime: Runtime, repo: str
) -> None:
    http.post("/hooks/repo", **signed({"objects": ["a"]}, "set wrong here"))
    (line,) = lines(http, runtime)
    assert redeliver(http, line).status_code == 422, "still not proven"
    http.patch("/v1/sources/repo", json={"secret": "set wrong here"})
    done = redeliver(http, line)
    assert (done.status_code, done.json()["stored"]) == (202, 1)
    assert runtime.bus.peek("repo", "a").state == "ready"
    assert lines(http, runtime)[0]["detail"]["redelivered"] == line["id"]


def test_neither_its_age_nor_that_it_was_stored_matters(http: httpx.Client, runtime: Runtime, repo: str) -> None:
    received_ms = 1_000_000_000_000
    body = b'{"objects": ["old"]}'
    headers = {"x-sent": "1000000000", "x-delivery": "d1", **signature(body)}
    runtime.bus.remember([("repo", "d1")], keep_ms=60_000, most=10)
    runtime.hooks.log.note("repo", Delivery("POST", headers, body, received_ms), "stored", {}, 1.0, ())
    (line,) = lines(http, runtime)
    assert redeliver(http, line).status_code == 202
    assert runtime.bus.peek("repo", "old").state == "ready"


def test_what_was_too_long_to_be_kept_cannot_be_looked_at_again(http: httpx.Client, runtime: Runtime, repo: str) -> None:
    http.post("/hooks/repo", **signed({"note": "x" * KEPT_BODY_BYTES}))
    (line,) = lines(http, runtime)
    assert line["body_bytes"] > KEPT_BODY_BYTES
    assert redeliver(http, line).status_code == 409
    assert http.post("/v1/deliveries/999999/redeliver").status_code == 404


def test_deliveries_are_counted_by_what_they_were_taken_for(http: httpx.Client, repo: str) -> None:
    http.post("/hooks/repo", **signed({"objects": ["a"]}))
    http.post("/hooks/repo", content=b"{}")
    text = http.get("/metrics").text
    assert 'sourcebus_deliveries_total{result="stored",source="repo"} 1.0' in text
    assert 'sourcebus_deliveries_total{result="unverified",source="repo"} 1.0' in text
    assert 'route="/hooks/{source_id}"' in text
