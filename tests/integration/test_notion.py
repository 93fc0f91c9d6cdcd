"""Notion through the whole product: what an edit, the trash, a lost share and a quiet listing lead to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from tests.working import found, work

from sourcebus.model import Signal, Source, SourceChanged
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing.providers.notion import NotionSimulator


@dataclass
class Desk:
    """A workspace that has been indexed, its last edit long ago, and the product around it."""

    notion: NotionSimulator
    heron: str
    runtime: Runtime

    def scan(self, *, complete: bool = False) -> None:
        """A poll, or a reconcile; then works until nothing is ready."""
        if complete:
            self.runtime.catalog.listings.forget("s")
        self.runtime.sources.scan("s", Signal.POLL)
        self.work()

    def work(self) -> None:
        work(self.runtime)

    def found(self, word: str) -> list[str]:
        return found(self.runtime, word)


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with NotionSimulator(enforce=False) as notion:
        notion.age = timedelta(hours=1)
        heron = notion.write("Heron", "It stands in the shallow water.").id
        notion.write("Kingfisher", "It waits on a branch.", data_source=notion.data_source())
        config = {"notion_url": notion.notion_url}
        with build(settings.model_copy(update={"waiting_consumers": 0})) as runtime:
            runtime.sources.add(Source("s", "notion", config=config, secret=notion.tokens[0], window_ms=0))
            made = Desk(notion, heron, runtime)
            made.work()
            notion.age = timedelta(0)
            yield made


def test_an_edit_is_found_and_the_trash_is_a_delete(desk: Desk) -> None:
    """Also a second edit within the same minute."""
    assert desk.found("shallow") == [desk.heron]
    for word in ("estuary", "harbour"):
        desk.notion.write("Heron", f"It has flown to the {word}.", page_id=desk.heron)
        desk.scan()
        assert desk.found(word) == [desk.heron]
    desk.notion.trash(desk.heron)
    desk.scan()
    assert desk.found("harbour") == []
    assert desk.runtime.desk.verify("s").ok


def test_an_event_has_its_page_looked_at(desk: Desk) -> None:
    desk.notion.indexing = False
    desk.notion.write("Heron", "It has flown to the estuary.", page_id=desk.heron)
    desk.runtime.intake.accept([SourceChanged("s", desk.heron)])
    desk.work()
    assert desk.found("estuary") == [desk.heron]


def test_a_share_that_ended_is_found_by_a_complete_pass(desk: Desk) -> None:
    """And what search only forgot is asked for and stays."""
    desk.notion.share(desk.heron, shared=False)
    desk.scan()
    assert desk.found("shallow") == [desk.heron]
    desk.scan(complete=True)
    assert desk.found("shallow") == []
    (kingfisher,) = desk.found("kingfisher")
    desk.notion.all[kingfisher].data_source = None
    desk.notion.indexing = False
    desk.notion.lose_index()
    desk.scan(complete=True)
    assert desk.found("kingfisher") == [kingfisher]


def test_an_object_of_nowhere_is_only_noted(desk: Desk) -> None:
    nowhere = ("00000000-0000-4000-8000-000000000000", "../x", "\N{PILE OF POO}")
    desk.runtime.intake.accept([SourceChanged("s", ref) for ref in nowhere])
    desk.work()
    assert desk.runtime.bus.dead_letters("s") == []
    assert desk.runtime.desk.verify("s").ok


def test_a_listing_without_changes_reads_nothing(desk: Desk) -> None:
    """Reconcile: the minute of the last edit is over, and the fingerprints prove it."""
    desk.notion.asked.clear()
    desk.scan(complete=True)
    assert [asked.path.rpartition("/")[2] for asked in desk.notion.asked] == ["search", "query"]


def test_from_the_handshake_to_an_event_through_the_gateway(http: httpx.Client, runtime: Runtime) -> None:
    """The token is shown at the command line as what is to do, and nowhere else; the first event takes it off the screen."""
    with NotionSimulator(enforce=False) as notion:
        source = {"id": "wiki", "connector": "notion", "secret": notion.tokens[0], "config": {"notion_url": notion.notion_url}}
        http.post("/v1/sources", json=source | {"paused": True}).raise_for_status()
        token = runtime.catalog.source("wiki").hook_token
        assert http.post("/hooks/wiki", json={"verification_token": "secret_of_somebody_else"}).status_code == 404
        assert notion.subscribe(f"{http.base_url}/hooks/wiki/{token}").status_code == 200
        assert notion.subscribe(f"{http.base_url}/hooks/wiki/{token}").status_code == 401
        ((line,), _) = runtime.desk.subscriptions(reveal=True)
        secret = line["to_do"].rpartition(" ")[2]
        shown = http.get("/v1/subscriptions")
        assert shown.json()["items"][0]["to_do"].startswith("paste") and secret not in shown.text
        assert secret not in json.dumps([dict(one.state) for one in runtime.catalog.subscriptions("wiki")])
        runtime.hooks.log.flush()
        told = http.get("/v1/sources/wiki/deliveries").text
        assert secret not in told
        assert notion.hook
        notion.hook = (notion.hook[0], secret)
        page = notion.write("Heron", "It stands in the shallow water.")
        notion.courier.settle()
        assert notion.courier.sent[-1].statuses == [202]
        assert http.get("/v1/subscriptions").json()["items"][0]["to_do"] is None
        assert runtime.bus.peek("wiki", page.id).state == "ready"
