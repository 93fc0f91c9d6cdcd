"""The connector suite on systems that only the generic connectors know: a CMS that can be asked, and one that only posts."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Generator
from typing import Any, ClassVar

import pytest

from sourcebus.connectors import Connector
from sourcebus.connectors.webhook import CloudEventsConnector, WebhookConnector
from sourcebus.model import Delivery
from sourcebus.testing import ConnectorSuite, MemoryDepot, SourceUnderTest
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer, pages

SECRET = "old and new"


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
    def __init__(self, cms: Cms) -> None:
        self.cms = cms

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
        return name

    def delete(self, ref: str) -> None:
        del self.cms.pages[ref]

    def break_off(self) -> None:
        self.cms.refuse(Answer(502), times=1_000)

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
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-signature": signature, "content-type": "application/cloudevents+json"}
        heard = self.make().parse_webhook(Delivery("POST", headers, body, 0), [])
        assert [change.object_ref for change in heard.changes] == [name]
        self.depot.put(heard.contents)

    def write(self, name: str, text: str) -> str:
        self.post(name, "updated", text)
        return name

    def delete(self, ref: str) -> None:
        self.post(ref, "deleted")


class TestPosted(ConnectorSuite):
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


class TestPostedAsCloudEvents(ConnectorSuite):
    @pytest.fixture
    def source(self) -> SourceUnderTest:
        return PostingCloudEvents()
