"""The connector suite on systems that only the generic connectors know: a CMS that can be asked, and one that only posts."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any, ClassVar

import httpx
import pytest

from sourcebus.connectors import Connector
from sourcebus.connectors.webhook import CloudEventsConnector, WebhookConnector
from sourcebus.model import Delivery
from sourcebus.testing import ConnectorSuite, Hook, MemoryDepot, SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite.signals import Told
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer, pages

SECRET = "old and new"
NOBODY = "nobody is asked: everything comes in the deliveries"


def signed(body: bytes) -> dict[str, str]:
    """The headers of a delivery, in lower case."""
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {"x-signature": signature, "content-type": "application/cloudevents+json"}


def send(hook: Hook, body: bytes) -> None:
    assert httpx.post(hook.address, content=body, headers=signed(body)).status_code == 202


class Cms(ProviderServer):
    """Pages with revisions, read one by one and listed three at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, tuple[int, str]] = {}
        self.revisions = 0
        self.on("GET", "/pages/([^/]+)", self._page)
        self.on("HEAD", "/pages/([^/]+)", self._page)
        self.on("GET", "/pages", self._list)

    def write(self, name: str, text: str) -> None:
        self.revisions += 1
        self.pages[name] = (self.revisions, text)

    def _page(self, asked: Asked) -> Answer:
        if asked.args[0] not in self.pages:
            return Answer(404)
        revision, text = self.pages[asked.args[0]]
        return Answer(200, text.encode(), {"ETag": f'"r{revision}"', "Content-Type": "text/plain; charset=utf-8"})

    def _list(self, asked: Asked) -> Answer:
        items, following = pages(sorted(self.pages), int(asked.query.get("from", "0")), 3)
        listed = [{"id": name, "rev": f'"r{self.pages[name][0]}"'} for name in items]
        return Answer(200, {"pages": listed, "next": None if following is None else f"/pages?from={following}"})


class AskedCms(SourceUnderTest):
    """Its deliveries only name the page; what it is now is asked for."""

    def __init__(self, cms: Cms) -> None:
        self.cms = cms
        self.hook: Hook | None = None

    def connect(self) -> Connector:
        config = {
            "proof": {"kind": "hmac", "header": "X-Signature"},
            "ref": "id",
            "read": {"url": self.cms.url + "/pages/{ref}"},
            "list": {"url": self.cms.url + "/pages", "items": "pages", "ref": "id", "version": "rev", "next": "next"},
        }
        return WebhookConnector.create(config, SECRET)

    def write(self, name: str, text: str) -> str:
        self.cms.write(name, text)
        self.announce(name)
        return name

    def delete(self, ref: str) -> None:
        del self.cms.pages[ref]
        self.announce(ref)

    def announce(self, name: str) -> None:
        if self.hook is not None:
            send(self.hook, json.dumps({"id": name}).encode())

    def rename(self, ref: str, name: str) -> str:
        """Pages are known by their names."""
        self.cms.pages[name] = self.cms.pages.pop(ref)
        return name

    def listen(self, hook: Hook) -> None:
        self.hook = hook

    def break_off(self) -> None:
        self.cms.refuse(Answer(502), times=1_000)

    def break_half_way(self) -> None:
        """One page of the listing is told, the next is not."""
        self.cms.refuse(Answer(502), times=1_000, path="/pages", after=1)

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        """As HTTP has it: RFC 6585, and RFC 9110 for the time."""
        forms = {
            "429": Answer(429, b"", {"Retry-After": "7"}),
            "429 without a time": Answer(429),
            "503 with a time": Answer(503, b"", {"Retry-After": "7"}),
        }
        return {form: lambda answer=answer: self.cms.refuse(answer, times=1_000) for form, answer in forms.items()}

    def revoke(self) -> None:
        self.cms.refuse(Answer(401), times=1_000)

    def forbid(self, ref: str) -> None:
        self.cms.refuse(Answer(403), times=1_000, path=f"/pages/{ref}")

    def mend(self) -> None:
        self.cms.accept_again()


class TestAskedByHttp(ConnectorSuite):
    @pytest.fixture
    def source(self) -> Generator[SourceUnderTest]:
        with Cms() as cms:
            yield AskedCms(cms)


class Posting(SourceUnderTest):
    """Everything it has comes in its deliveries."""

    config: ClassVar[dict[str, Any]] = {
        "proof": {"kind": "hmac", "header": "X-Signature"},
        "ref": "id",
        "kind": "event",
        "order": "seq",
        "inline": {"text": "text", "title": "id"},
    }

    def __init__(self) -> None:
        self.depot, self.number = MemoryDepot(), 0
        self.texts: dict[str, str] = {}
        self.hook: Hook | None = None

    def make(self) -> WebhookConnector:
        return WebhookConnector.create(self.config, SECRET)

    def connect(self) -> Connector:
        connector = self.make()
        connector.use_depot(self.depot)
        return connector

    def body(self, name: str, event: str, text: str) -> Any:
        return {"id": name, "event": event, "text": text, "seq": self.number}

    def post(self, name: str, event: str, text: str = "") -> None:
        self.number += 1
        body = json.dumps(self.body(name, event, text)).encode()
        heard = self.make().parse_webhook(Delivery("POST", signed(body), body, 0), [])
        assert [change.object_ref for change in heard.changes] == [name]
        self.depot.put(heard.contents)
        if self.hook is not None:
            send(self.hook, body)

    def write(self, name: str, text: str) -> str:
        self.texts[name] = text
        self.post(name, "updated", text)
        return name

    def delete(self, ref: str) -> None:
        del self.texts[ref]
        self.post(ref, "deleted")

    def rename(self, ref: str, name: str) -> str:
        """Objects are known by their names: the one is posted, and that the other is gone."""
        self.write(name, self.texts[ref])
        self.delete(ref)
        return name

    def listen(self, hook: Hook) -> None:
        self.hook = hook

    def break_off(self) -> None:
        not_applicable(NOBODY)

    def break_half_way(self) -> None:
        not_applicable(NOBODY)

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        not_applicable(NOBODY)

    def revoke(self) -> None:
        not_applicable(NOBODY)

    def forbid(self, ref: str) -> None:
        not_applicable(NOBODY)


class PostedSuite(ConnectorSuite):
    def test_what_lost_deliveries_told_the_next_listing_finds(self, source: SourceUnderTest, told: Told) -> None:
        """What is lost before it arrives is lost: the depot is filled by deliveries alone."""
        del source, told
        not_applicable("what a lost delivery held is nowhere else")


class TestPosted(PostedSuite):
    @pytest.fixture
    def source(self) -> SourceUnderTest:
        return Posting()


class PostingCloudEvents(Posting):
    config: ClassVar[dict[str, Any]] = {
        "proof": {"kind": "hmac", "header": "X-Signature"},
        "kinds": {"com.example.deleted": "deleted"},
        "inline": {"text": "data.text"},
    }

    def make(self) -> WebhookConnector:
        return CloudEventsConnector.create(self.config, SECRET)

    def body(self, name: str, event: str, text: str) -> Any:
        attributes = {"specversion": "1.0", "id": str(self.number), "source": "/cms", "type": f"com.example.{event}"}
        return {**attributes, "subject": name, "data": {"text": text}}


class TestPostedAsCloudEvents(PostedSuite):
    @pytest.fixture
    def source(self) -> SourceUnderTest:
        return PostingCloudEvents()
