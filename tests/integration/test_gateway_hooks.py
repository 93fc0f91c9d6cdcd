"""What providers send: proven, stored, answered in this order; handshakes; secret addresses; what is sent again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.hearing import SECRET, register_all, signature, signed

from sourcebus.gateway import create_app
from sourcebus.model import MAX_REF_BYTES, ChangeKind, Subscription
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing import running_server

Serve = Callable[[FastAPI], httpx.Client]
Add = Callable[..., str]
register_all()


@pytest.fixture
def add(http: httpx.Client) -> Add:
    """Adds a paused source, so that what is stored stays to be seen; answers its id."""

    def make(connector: str = "signed", source_id: str = "repo", secret: object = SECRET) -> str:
        text = secret if isinstance(secret, str) or secret is None else json.dumps(secret)
        made = http.post("/v1/sources", json={"id": source_id, "connector": connector, "secret": text, "paused": True})
        assert made.status_code == 201, made.text
        return source_id

    return make


def state(runtime: Runtime, ref: str, source_id: str = "repo") -> str:
    return runtime.bus.peek(source_id, ref).state


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


# --- proven and stored


def test_a_proven_delivery_is_answered_202_and_its_objects_are_pending(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    answer = http.post("/hooks/repo", **signed({"objects": ["a.md", "ä/🐦.md"], "scan": "docs/"}))
    assert (answer.status_code, answer.json()) == (202, {"stored": 3})
    assert state(runtime, "a.md") == state(runtime, "ä/🐦.md") == "ready"
    assert runtime.bus.peek("repo", "docs/", ChangeKind.SCAN).state == "ready"


def test_what_nothing_follows_from_is_202_all_the_same(http: httpx.Client, add: Add) -> None:
    add()
    answer = http.post("/hooks/repo", **signed({"note": "ping"}))
    assert (answer.status_code, answer.json()) == (202, {"stored": 0})


def test_an_id_with_a_slash_is_one_segment(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add(source_id="team/repo ü")
    assert http.post("/hooks/team%2Frepo%20%C3%BC", **signed({"objects": ["a"]})).status_code == 202
    assert state(runtime, "a", "team/repo ü") == "ready"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-hub-signature-256": ""},
        {"x-hub-signature-256": "sha256="},
        {"x-hub-signature-256": "sha1=0000"},
        signature(b"another body"),
        signature(b'{"objects": ["a"]}', "another secret"),
    ],
)
def test_what_is_not_proven_is_401_and_nothing_follows(
    http: httpx.Client, runtime: Runtime, add: Add, headers: dict[str, str]
) -> None:
    add()
    answer = http.post("/hooks/repo", content=b'{"objects": ["a"]}', headers=headers)
    assert problem(answer) == (401, "unverified")
    assert answer.headers["www-authenticate"]
    assert SECRET not in answer.text
    assert state(runtime, "a") == "absent"


def test_a_source_without_a_secret_believes_nothing(http: httpx.Client, add: Add) -> None:
    add(secret=None)
    assert problem(http.post("/hooks/repo", **signed({"objects": ["a"]}, secret=""))) == (401, "unverified")


def test_while_a_secret_is_replaced_both_are_good(http: httpx.Client, add: Add) -> None:
    add(secret={"webhook": ["the new one", "the old one"]})
    for secret, status in (("the new one", 202), ("the old one", 202), ("an older one", 401)):
        assert http.post("/hooks/repo", **signed({"objects": ["a"]}, secret)).status_code == status


def test_a_new_secret_is_good_at_once_and_an_old_one_bad_within_a_second(http: httpx.Client, add: Add) -> None:
    add()
    assert http.post("/hooks/repo", **signed({})).status_code == 202
    http.patch("/v1/sources/repo", json={"secret": "set a moment ago"})
    threading.Event().wait(0.11)
    assert http.post("/hooks/repo", **signed({}, "set a moment ago")).status_code == 202
    assert http.post("/hooks/repo", **signed({})).status_code == 401


def test_a_subscription_proves_from_the_moment_it_is_kept(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add(secret=None)
    body = {"objects": ["a"]}
    assert http.post("/hooks/repo", **signed(body, "of the subscription")).status_code == 401
    runtime.catalog.keep_subscription("repo", Subscription("s1", secret="of the subscription"))
    threading.Event().wait(0.11)
    assert http.post("/hooks/repo", **signed(body, "of the subscription")).status_code == 202


def test_what_a_delivery_says_of_its_subscription_is_kept(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    http.post("/hooks/repo", **signed({"keep": "s1"}))
    assert [(one.id, one.secret) for one in runtime.catalog.subscriptions("repo")] == [("s1", "kept safe")]
    http.post("/hooks/repo", **signed({"lost": ["s1"]}))
    assert runtime.catalog.subscriptions("repo") == []


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"\xff\xfe", b'{"objects": [7]}', b"[" * 100_000, b'{"a": NaN}'])
def test_proven_nonsense_is_422_and_names_what_is_wrong(http: httpx.Client, add: Add, body: bytes) -> None:
    add()
    answer = http.post("/hooks/repo", **signed(body))
    assert problem(answer) == (422, "invalid")
    assert answer.json()["field"].startswith("body")


def test_a_reference_that_the_bus_refuses_is_422(http: httpx.Client, add: Add) -> None:
    add()
    assert problem(http.post("/hooks/repo", **signed({"objects": ["x" * (MAX_REF_BYTES + 1)]}))) == (422, "invalid")
    assert problem(http.post("/hooks/repo", **signed({"objects": [""]}))) == (422, "invalid")


def test_a_delivery_of_many_objects_is_stored_whole(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    objects = [f"o{number}" for number in range(12_000)]
    answer = http.post("/hooks/repo", **signed({"objects": objects}))
    assert (answer.status_code, answer.json()) == (202, {"stored": 12_000})
    (stats,) = runtime.bus.stats(["repo"])
    assert stats is not None and stats.pending == 12_001, "and the first scan"


def test_one_that_is_wrong_does_not_fail_its_neighbours(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    bad, good = {"objects": ["x" * (MAX_REF_BYTES + 1)]}, [{"objects": [f"o{number}"]} for number in range(40)]

    def send(payload: object) -> int:
        return http.post("/hooks/repo", **signed(payload)).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(send, [one for pair in ((payload, bad) for payload in good) for one in pair]))
    assert statuses == [202, 422] * 40
    assert {state(runtime, f"o{number}") for number in range(40)} == {"ready"}


# --- sent again


def test_a_delivery_that_is_sent_again_emits_nothing_and_is_answered_as_before(
    http: httpx.Client, runtime: Runtime, add: Add
) -> None:
    add()
    one = signed({"objects": ["a"]}, x_delivery="d1")
    first, again = http.post("/hooks/repo", **one), http.post("/hooks/repo", **one)
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (202, {"stored": 1})
    (stats,) = runtime.bus.stats(["repo"])
    assert stats is not None and (stats.pending, stats.merged) == (2, 0)
    assert http.post("/hooks/repo", **signed({"objects": ["a"]}, x_delivery="d2")).status_code == 202
    (stats,) = runtime.bus.stats(["repo"])
    assert stats is not None and stats.merged == 1


def test_the_same_delivery_many_times_at_once_is_stored_once(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    with ThreadPoolExecutor(16) as pool:
        one = signed({"objects": ["a"]}, x_delivery="d1")
        statuses = {sent.result().status_code for sent in [pool.submit(http.post, "/hooks/repo", **one) for _ in range(64)]}
    (stats,) = runtime.bus.stats(["repo"])
    assert statuses == {202} and stats is not None and stats.merged == 0


def test_what_was_refused_counts_as_new_when_it_is_sent_again(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    body = json.dumps({"objects": ["a"]}).encode()
    forged = {"content": body, "headers": {"x-delivery": "d1", **signature(body, "wrong")}}
    assert http.post("/hooks/repo", **forged).status_code == 401  # pyright: ignore[reportArgumentType]
    assert http.post("/hooks/repo", **signed(body, x_delivery="d1")).status_code == 202
    assert state(runtime, "a") == "ready"


def test_an_old_delivery_is_refused_by_its_clock(http: httpx.Client, add: Add) -> None:
    add()
    assert problem(http.post("/hooks/repo", **signed({}, x_sent="1000000000"))) == (401, "unverified")


# --- handshakes


def test_handshakes_are_answered_as_the_provider_asks(http: httpx.Client, add: Add) -> None:
    add()
    echoed = http.get("/hooks/repo?challenge=abc%20123&challenge=second")
    assert (echoed.status_code, echoed.text) == (200, "abc 123")
    assert echoed.headers["content-type"].startswith("text/plain")
    options = http.options("/hooks/repo", headers={"WebHook-Request-Origin": "eventemitter.example.com"})
    assert (options.status_code, options.headers["webhook-allowed-origin"]) == (200, "eventemitter.example.com")


def test_other_methods_are_not_known_here(http: httpx.Client, add: Add) -> None:
    add()
    for method in ("PUT", "DELETE", "PATCH"):
        assert problem(http.request(method, "/hooks/repo")) == (405, "method")


# --- addresses


def test_what_is_not_there_is_404(http: httpx.Client, add: Add) -> None:
    add("deaf", "quiet")
    assert problem(http.post("/hooks/nowhere", **signed({}))) == (404, "unknown-source")
    assert problem(http.post("/hooks/quiet", **signed({}))) == (404, "no-hook")
    for address in ("/hooks", "/hooks/", "/hooks/a/b/c", "/hooks/repo/"):
        assert http.post(address, **signed({})).status_code == 404


def test_where_nothing_is_signed_only_the_secret_address_is_answered(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add("unsigned", secret=None)
    address = httpx.URL(http.get("/v1/sources/repo").json()["hook_url"]).path
    token = address.rpartition("/")[2]
    assert len(token) >= 43, "256 bits"
    assert http.post(address, json={"objects": ["a"]}).status_code == 202
    wrong = http.post("/hooks/repo", json={"objects": ["b"]})
    unknown = http.post("/hooks/other", json={"objects": ["b"]})
    assert problem(wrong) == problem(unknown) == (404, "unknown-source")
    assert wrong.text == unknown.text.replace("other", "repo"), "nobody can tell whether there is such a source"
    for guess in (token[:-1], token + "a", token.swapcase(), "%00", "%F0%9F%90%A6"):
        assert problem(http.post(f"/hooks/repo/{guess}", json={"objects": ["b"]})) == (404, "unknown-source")
    assert state(runtime, "b") == "absent"


def test_a_new_address_ends_the_old_one(http: httpx.Client, add: Add) -> None:
    add("unsigned", secret=None)
    old = httpx.URL(http.get("/v1/sources/repo").json()["hook_url"]).path
    assert http.post(old, json={}).status_code == 202
    made = http.post("/v1/sources/repo/hook")
    assert made.status_code == 200
    new = httpx.URL(made.json()["hook_url"]).path
    assert new != old
    threading.Event().wait(0.11)
    assert http.post(new, json={}).status_code == 202
    assert http.post(old, json={}).status_code == 404


def test_an_address_that_is_no_secret_cannot_be_replaced(http: httpx.Client, add: Add) -> None:
    add()
    assert problem(http.post("/v1/sources/repo/hook")) == (409, "conflict")
    assert http.get("/v1/sources/repo").json()["hook_url"].endswith("/hooks/repo")
    assert http.post("/hooks/repo/anything", **signed({})).status_code == 404


def test_the_list_of_sources_shows_no_secret_address(http: httpx.Client, add: Add) -> None:
    add("unsigned", secret=None)
    token = http.get("/v1/sources/repo").json()["hook_url"].rpartition("/")[2]
    assert token not in http.get("/v1/sources").text


def test_the_public_address_is_what_providers_are_told(settings: Settings, serve: Serve) -> None:
    with build(settings.model_copy(update={"public_url": "https://hooks.example/in/"})) as runtime:
        http = serve(create_app(runtime))
        http.post("/v1/sources", json={"id": "a/b", "connector": "signed", "secret": SECRET, "paused": True})
        assert http.get("/v1/sources/a%2Fb").json()["hook_url"] == "https://hooks.example/in/hooks/a%2Fb"
        assert http.post("/hooks/a%2Fb", **signed({}, host="hooks.example")).is_success


def test_without_a_key_an_unsigned_source_cannot_be_added(settings: Settings, serve: Serve) -> None:
    with build(settings.model_copy(update={"secret_key": None})) as runtime:
        refused = serve(create_app(runtime)).post("/v1/sources", json={"id": "u", "connector": "unsigned"})
        assert problem(refused) == (422, "invalid")
        assert "SOURCEBUS_SECRET_KEY" in refused.json()["fix"]


def test_a_removed_source_is_unknown_within_a_second(http: httpx.Client, add: Add) -> None:
    add()
    assert http.post("/hooks/repo", **signed({"objects": ["a"]})).status_code == 202
    http.delete("/v1/sources/repo")
    assert http.post("/hooks/repo", **signed({"objects": ["a"]})).status_code == 404


# --- limits


def limited(settings: Settings, **limits: Any) -> Settings:
    return settings.model_copy(update=limits)


def test_a_body_over_the_limit_is_413_whatever_it_says_of_its_length(settings: Settings, serve: Serve) -> None:
    with build(limited(settings, max_hook_bytes=10_000)) as runtime:
        http = serve(create_app(runtime))
        http.post("/v1/sources", json={"id": "repo", "connector": "signed", "secret": SECRET, "paused": True})
        fits = {"objects": ["a"], "note": "x" * 9_900}
        assert http.post("/hooks/repo", **signed(fits)).status_code == 202
        for size in (10_001, 15_000, 1_000_000):
            assert problem(http.post("/hooks/repo", content=b"x" * size)) == (413, "too-large")
            parts = (b"x" * 1_000 for _ in range(size // 1_000 + 1))
            try:
                assert problem(http.post("/hooks/repo", content=parts)) == (413, "too-large")
            except httpx.WriteError:
                assert size > 20_000, "what is far too large may be cut off"


def test_another_media_type_is_415_only_where_the_connector_says_so(http: httpx.Client, add: Add) -> None:
    add("onlyjson", "strict")
    add("signed", "lax")
    body = b"{}"
    sent = {"content": body, "headers": {"content-type": "text/plain", **signature(body)}}
    assert problem(http.post("/hooks/strict", **sent)) == (415, "media-type")  # pyright: ignore[reportArgumentType]
    assert http.post("/hooks/lax", **sent).status_code == 202  # pyright: ignore[reportArgumentType]
    assert http.post("/hooks/strict", **signed({})).status_code == 202


def test_too_many_are_429_and_other_sources_do_not_notice(settings: Settings, serve: Serve) -> None:
    with build(limited(settings, hook_rate=0.1)) as runtime:  # six a minute
        http = serve(create_app(runtime))
        for source_id in ("busy", "calm"):
            http.post("/v1/sources", json={"id": source_id, "connector": "signed", "secret": SECRET, "paused": True})
        statuses = [http.post("/hooks/busy", **signed({})).status_code for _ in range(8)]
        assert statuses == [202] * 6 + [429] * 2
        refused = http.post("/hooks/busy", **signed({}))
        assert problem(refused) == (429, "too-often")
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert http.post("/hooks/calm", **signed({})).status_code == 202


def test_a_query_of_many_fields_is_refused(http: httpx.Client, add: Add) -> None:
    add()
    assert http.get("/hooks/repo?" + "&".join(f"a{n}=1" for n in range(100))).status_code == 200
    assert problem(http.get("/hooks/repo?" + "&".join(f"a{n}=1" for n in range(101)))) == (422, "invalid")


def test_a_client_that_leaves_in_the_middle_harms_nobody(http: httpx.Client, add: Add) -> None:
    add()
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0)) as line:
        line.sendall(b"POST /hooks/repo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{")
    assert http.post("/hooks/repo", **signed({"objects": ["a"]})).status_code == 202


def test_a_bug_of_a_connector_is_500_and_not_2xx(http: httpx.Client, add: Add) -> None:
    add("broken", secret=None)
    assert problem(http.post("/hooks/repo", json={})) == (500, "internal")


# --- when the parts do not answer


def test_while_redis_is_down_nothing_is_2xx(settings: Settings, serve: Serve) -> None:
    with running_server() as url:
        runtime = build(settings.model_copy(update={"redis_url": url}))
        http = serve(create_app(runtime))
        http.post("/v1/sources", json={"id": "repo", "connector": "signed", "secret": SECRET, "paused": True})
        assert http.post("/hooks/repo", **signed({"objects": ["a"]}, x_delivery="d1")).status_code == 202
    for headers in ({"x_delivery": "d1"}, {"x_delivery": "d2"}, {}):
        refused = http.post("/hooks/repo", **signed({"objects": ["b"]}, **headers))
        assert problem(refused) == (503, "bus-unavailable")
        assert refused.headers["retry-after"]
    assert http.post("/hooks/repo", content=b"{}").status_code == 401, "what is not proven stays so"
    runtime.close()


def test_what_redis_lost_is_made_known_again_by_a_delivery(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    runtime.bus.unregister("repo")
    assert http.post("/hooks/repo", **signed({"objects": ["a"]})).status_code == 202
    assert state(runtime, "a") == "ready"


def test_a_source_whose_settings_are_refused_by_now_is_503(http: httpx.Client, runtime: Runtime, add: Add) -> None:
    add()
    source = runtime.catalog.source("repo")
    runtime.catalog.update_source(type(source)(id="repo", connector="not installed"))
    assert problem(http.post("/hooks/repo", **signed({}))) == (503, "not-ready")
