"""``/v1/sources`` and what is asked of single sources: any id can be addressed, a secret never comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

ODD_IDS = [
    "a/b",
    "a/refresh",
    "a%2Fb",
    "with space",
    "?q=1&x#y",
    "née ☃",
    'quo"te',
    "a\\b",
    "line\nbreak",
    "trailing/",
    "a//b",
    "%",
]


def at(source_id: str) -> str:
    return f"/v1/sources/{quote(source_id, safe='')}"


def new(folder: Path, **fields: Any) -> dict[str, Any]:
    return {"id": "docs", "connector": "filesystem", "config": {"root": str(folder)}, "paused": True} | fields


@pytest.mark.parametrize("source_id", ODD_IDS)
def test_a_source_of_any_name_can_be_added_shown_refreshed_changed_and_removed(
    http: httpx.Client, folder: Path, source_id: str
) -> None:
    made = http.post("/v1/sources", json=new(folder, id=source_id))
    assert made.status_code == 201, made.text
    assert made.headers["location"] == at(source_id)
    assert http.get(at(source_id)).json()["id"] == source_id
    assert http.post(at(source_id) + "/refresh", json={"object_ref": "start.md"}).status_code == 202
    assert http.patch(at(source_id), json={"paused": False}).json()["paused"] is False
    assert http.get("/v1/status", params={"source_id": source_id}).json()["items"][0]["id"] == source_id
    removed = http.delete(at(source_id))
    assert removed.json() == {"id": source_id, "removed_objects": 0}
    assert http.get(at(source_id)).status_code == 404


def test_unknown_sources_are_404(http: httpx.Client) -> None:
    for answer in (
        http.get(at("nobody")),
        http.patch(at("nobody"), json={"paused": True}),
        http.delete(at("nobody")),
        http.post(at("nobody") + "/refresh"),
        http.get("/v1/why", params={"source_id": "nobody", "object_ref": "x"}),
    ):
        assert answer.status_code == 404, answer.text
        assert answer.json()["type"] == "urn:sourcebus:problem:unknown-source"


def test_a_second_source_of_the_same_id_is_a_conflict(http: httpx.Client, docs: str, folder: Path) -> None:
    again = http.post("/v1/sources", json=new(folder))
    assert again.status_code == 409
    assert again.json()["type"] == "urn:sourcebus:problem:conflict"


def test_a_secret_never_comes_back(http: httpx.Client, folder: Path) -> None:
    made = http.post("/v1/sources", json=new(folder, secret="hunter2"))
    assert made.json()["has_secret"] is True
    for answer in (made, http.get(at("docs")), http.get("/v1/sources"), http.patch(at("docs"), json={"paused": True})):
        assert answer.is_success
        assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "x" * 600}, "id"),
        ({"connector": None}, "connector"),
        ({"connector": "carrier-pigeon"}, "connector"),
        ({"config": []}, "config"),
        ({"config": {}}, "config.root"),
        ({"quota": {"rate": -1}}, "quota.rate"),
        ({"quota": {"rte": 1}}, "quota.rte"),
        ({"poll_interval_s": "often"}, "poll_interval_s"),
        ({"mode": "loud"}, "mode"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_422_and_named(http: httpx.Client, folder: Path, fields: dict[str, Any], field: str) -> None:
    refused = http.post("/v1/sources", json=new(folder, **fields))
    assert refused.status_code == 422, refused.text
    assert refused.json()["field"] == field
    assert http.get("/v1/sources").json() == {"items": [], "next": None}, "nothing was stored"


def test_a_missing_field_is_named(http: httpx.Client) -> None:
    assert http.post("/v1/sources", json={"id": "docs"}).json()["field"] == "connector"


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"colour": "red"}, "colour"), ({"source_id": "x"}, "source_id"), ({"self": 1}, "self"), ({"paused": "yes"}, "paused")],
)
def test_a_change_that_is_wrong_is_422_and_named(http: httpx.Client, docs: str, fields: dict[str, Any], field: str) -> None:
    refused = http.patch(at("docs"), json=fields)
    assert refused.status_code == 422, refused.text
    assert refused.json()["field"] == field


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"7"])
def test_a_body_that_is_no_object_is_422(http: httpx.Client, body: bytes) -> None:
    refused = http.post("/v1/sources", content=body, headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["detail"]) == (422, "the body is not an object")


def test_a_configuration_nested_too_deep_is_400(http: httpx.Client) -> None:
    body = b'{"id":"docs","connector":"filesystem","config":' + b'{"a":' * 100 + b"1" + b"}" * 101
    refused = http.post("/v1/sources", content=body, headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["detail"]) == (400, "the body is nested too deep")


def test_lists_come_in_pages(http: httpx.Client, folder: Path) -> None:
    names = [f"s{n}" for n in range(5)]
    for name in names:
        assert http.post("/v1/sources", json=new(folder, id=name)).status_code == 201
    for address in ("/v1/sources", "/v1/status"):
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = http.get(address, params={"limit": 2} | ({"after": cursor} if cursor else {})).json()
            assert len(page["items"]) <= 2
            seen += [item["id"] for item in page["items"]]
            cursor = page["next"]
        assert seen == names


def test_workspaces_are_listed_apart(http: httpx.Client, folder: Path) -> None:
    http.post("/v1/sources", json=new(folder, id="a", workspace="one"))
    http.post("/v1/sources", json=new(folder, id="b", workspace="two"))
    for address in ("/v1/sources", "/v1/status"):
        assert [item["id"] for item in http.get(address, params={"workspace": "two"}).json()["items"]] == ["b"]


def test_a_second_refresh_within_the_minute_is_429_and_says_when(http: httpx.Client, docs: str) -> None:
    assert http.post(at("docs") + "/refresh").status_code == 202
    again = http.post(at("docs") + "/refresh", json={})
    assert again.status_code == 429
    assert again.json()["type"] == "urn:sourcebus:problem:too-often"
    assert 1 <= int(again.headers["retry-after"]) <= 60


@pytest.mark.parametrize(("body", "field"), [({"object_ref": 7}, "object_ref"), ({"ref": "x"}, "ref")])
def test_a_refresh_of_something_else_is_422(http: httpx.Client, docs: str, body: dict[str, Any], field: str) -> None:
    refused = http.post(at("docs") + "/refresh", json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, field)
