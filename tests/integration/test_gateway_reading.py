"""Search, stories and dead letters over HTTP."""

from __future__ import annotations

import httpx
import pytest

from sourcebus.bus import Settle
from sourcebus.model import ChangeKind, Document, Outcome, SourceChanged
from sourcebus.runtime import Runtime

ODD_REF = "sub dir/caf\udce9 <b>.md"


@pytest.fixture
def indexed(runtime: Runtime, docs: str) -> None:
    """Three documents and one failure, settled as a consumer would."""
    at = runtime.clock.now_ms()
    texts = {"a.md": "the quick <script>brown</script> fox", "b.md": "a quick answer", ODD_REF: "quick and odd"}
    runtime.catalog.settle(
        [Outcome("docs", ref, 1, "indexed", at, "v1", documents=[Document(text, title=ref)]) for ref, text in texts.items()]
    )
    runtime.catalog.settle([Outcome("docs", "c.pdf", 1, "unreadable", at, "v1", detail={"reason": "binary"})])


def test_search_answers_hits_and_pages(http: httpx.Client, indexed: None) -> None:
    first = http.get("/v1/search", params={"q": "qui", "limit": 2}).json()
    assert first["next"] == 2
    rest = http.get("/v1/search", params={"q": "qui", "limit": 2, "offset": 2}).json()
    assert rest["next"] is None
    hits = [*first["hits"], *rest["hits"]]
    assert {hit["object_ref"] for hit in hits} == {"a.md", "b.md", ODD_REF}
    assert all({"source_id", "object_ref", "title", "snippet", "version", "indexed_at"} <= hit.keys() for hit in hits)


def test_a_snippet_is_escaped_but_for_its_marks(http: httpx.Client, indexed: None) -> None:
    (hit,) = http.get("/v1/search", params={"q": "brown", "source_id": "docs"}).json()["hits"]
    assert hit["snippet"] == "the quick &lt;script&gt;<mark>brown</mark>&lt;/script&gt; fox"


@pytest.mark.parametrize("q", ['"', "* OR (", "NEAR(a b)", "'; DROP TABLE", "a:b", "☃", "\x00", "col:x^2", "x" * 5000])
def test_any_text_is_a_query(http: httpx.Client, indexed: None, q: str) -> None:
    assert http.get("/v1/search", params={"q": q}).status_code == 200


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "q"),
        ({"q": " "}, "q"),
        ({"q": "x", "limit": "0"}, "limit"),
        ({"q": "x", "limit": "many"}, "limit"),
        ({"q": "x", "offset": "-1"}, "offset"),
    ],
)
def test_a_search_that_cannot_be_is_422(http: httpx.Client, params: dict[str, str], field: str) -> None:
    refused = http.get("/v1/search", params=params)
    assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_why_tells_the_story(http: httpx.Client, indexed: None) -> None:
    items = http.get("/v1/why", params={"source_id": "docs", "object_ref": "c.pdf"}).json()["items"]
    assert "unreadable" in [item["what"] for item in items]
    assert all("at" in item for item in items)


def test_why_reaches_names_that_are_not_utf8(http: httpx.Client, indexed: None) -> None:
    items = http.get("/v1/why?source_id=docs&object_ref=sub%20dir/caf%E9%20%3Cb%3E.md").json()["items"]
    assert "indexed" in [item["what"] for item in items]


@pytest.mark.parametrize(("query", "field"), [("", "source_id"), ("?source_id=docs", "object_ref")])
def test_why_needs_both_names(http: httpx.Client, docs: str, query: str, field: str) -> None:
    refused = http.get("/v1/why" + query)
    assert (refused.status_code, refused.json()["field"]) == (422, field)


def give_up(runtime: Runtime, *refs: str) -> None:
    """Makes a dead letter of each reference."""
    runtime.sources.change("docs", paused=False)
    runtime.bus.emit([SourceChanged("docs", ref, ChangeKind.UPDATED) for ref in refs])
    died = 0
    while died < len(refs):
        leases = runtime.bus.claim(100).leases
        assert leases, "everything emitted can be claimed"
        objects = [lease for lease in leases if lease.object_ref in refs]
        runtime.bus.nack(objects, "disk on <fire>", how=Settle.HOPELESS)
        runtime.bus.ack([lease for lease in leases if lease.object_ref not in refs])
        died += len(objects)


def test_dead_letters_are_listed_replayed_and_dropped(http: httpx.Client, runtime: Runtime, docs: str) -> None:
    assert http.get("/v1/dead-letters").json() == {"items": [], "next": None}
    give_up(runtime, "x.md", "y.md", "z.md")
    first = http.get("/v1/dead-letters", params={"limit": 2, "source_id": "docs"}).json()
    rest = http.get("/v1/dead-letters", params={"limit": 2, "after": first["next"]}).json()
    assert rest["next"] is None
    letters = [*first["items"], *rest["items"]]
    assert {letter["object_ref"] for letter in letters} == {"x.md", "y.md", "z.md"}
    assert {letter["error"] for letter in letters} == {"disk on <fire>"}
    replayed, dropped, kept = (f"/v1/dead-letters/{letter['id']}" for letter in letters)
    assert http.post(replayed + "/replay").status_code == 202
    assert http.delete(dropped).status_code == 200
    assert [letter["id"] for letter in http.get("/v1/dead-letters").json()["items"]] == [kept.rpartition("/")[2]]
    assert runtime.bus.peek("docs", letters[0]["object_ref"]).state != "absent"
    assert runtime.bus.peek("docs", letters[1]["object_ref"]).state == "absent"


def test_a_dead_letter_that_is_not_there_is_404(http: httpx.Client) -> None:
    for answer in (http.post("/v1/dead-letters/no%2Fsuch/replay"), http.delete("/v1/dead-letters/17-3")):
        assert answer.status_code == 404, answer.text
        assert answer.json()["type"] == "urn:sourcebus:problem:unknown-dead-letter"
