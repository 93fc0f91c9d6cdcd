"""Notion for one integration: pages, rows of data sources, a search index that lags, Markdown, signed events, request limits.

Real HTTP on loopback, as far as `sourcebus.connectors.notion` asks. Sources: Notion's reference and the types of
`@notionhq/client` 5.26; what is uncertain there is as awkward here as it may be there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

from sourcebus.testing.providers.courier import Courier, Faults, Sent
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer, pages

_RETRY_S = (60.0, 300.0, 900.0, 3_600.0, 10_800.0, 21_600.0, 43_200.0)


@dataclass(frozen=True, slots=True)
class NotionFacts:
    """Notion's numbers: a window of requests per connection, and its sizes."""

    window_s: float = 60.0
    requests: int = 180
    page_size: int = 100
    attempts: int = 8


@dataclass(slots=True)
class SimPage:
    """A page, or a row where `data_source` is set. `parts` are its content: the first comes with the page, the others are
    subtrees that a long page is cut into. `picture`: it shows an uploaded file. `shared`: the integration sees it."""

    id: str
    title: str
    parts: list[str]
    edited: datetime
    data_source: str | None = None
    properties: dict[str, Any] = field(default_factory=dict[str, Any])
    in_trash: bool = False
    shared: bool = True
    forbidden: bool = False
    picture: bool = False
    subtrees: list[str] = field(default_factory=list[str])


class NotionSimulator(ProviderServer):
    """One workspace and one integration with one token. Changes announce themselves to the webhook, once there is one.

    `age` is how long ago edits happen: Notion rounds their time down to the minute. While `indexing` is False, search
    does not notice what changes. `enforce=False`: no request is ever refused.
    """

    def __init__(
        self,
        *,
        facts: NotionFacts | None = None,
        faults: Faults | None = None,
        enforce: bool = True,
        pace: float = 1.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.facts, self.enforce = facts or NotionFacts(), enforce
        self.notion_url, self.tokens = f"{self.url}/v1", ["ntn_" + secrets.token_hex(20)]
        self.courier = Courier(faults=faults, retry_s=_RETRY_S[: self.facts.attempts - 1], pace=pace)
        self.clear()
        self._clock_s, self._window_s, self._used, self._turned_away = clock_s, clock_s(), 0, 0
        self._route()

    def close(self) -> None:
        self.courier.close()
        super().close()

    def clear(self) -> None:
        """An empty workspace without a webhook, and nothing out of the ordinary. The courier and the request window stay."""
        with self.lock:
            self.age, self.indexing, self.incomplete = timedelta(0), True, False
            self.page_size, self.knows_trash_filter = self.facts.page_size, True
            self.all: dict[str, SimPage] = {}
            self.data_sources: set[str] = set()
            self.hook: tuple[str, str] | None = None
            self._index: dict[str, tuple[datetime, bool, bool]] = {}
            self.asked.clear()
            self.accept_again()

    # what people do

    def write(self, title: str, *parts: str, page_id: str | None = None, **facets: Any) -> SimPage:
        """A page is made, or edited where `page_id` names one."""
        with self.lock:
            page = self.all.get(page_id or "")
            kind = "page.content_updated" if page else "page.created"
            if page is None:
                page = SimPage(page_id or str(uuid4()), title, [], self._now())
                self.all[page.id] = page
            page.title, page.parts = title, list(parts)
            page.subtrees = [str(uuid4()) for _ in parts[1:]]
            for name, value in facets.items():
                setattr(page, name, value)
            self._edited(page, kind)
            return page

    def trash(self, page_id: str, *, in_trash: bool = True) -> None:
        """Into the trash, or out of it again."""
        with self.lock:
            page = self.all[page_id]
            page.in_trash = in_trash
            self._edited(page, "page.deleted" if in_trash else "page.undeleted")

    def share(self, page_id: str, *, shared: bool) -> None:
        """What the integration may see is changed; nobody is told, and the page was not edited."""
        with self.lock:
            self.all[page_id].shared = shared
            self.index()

    def data_source(self) -> str:
        """A database with one data source, to make rows in."""
        with self.lock:
            made = str(uuid4())
            self.data_sources.add(made)
            return made

    def index(self) -> None:
        """Search catches up."""
        with self.lock:
            self._index = {page.id: (page.edited, page.in_trash, page.shared) for page in self.all.values()}

    def lose_index(self) -> None:
        """Search finds nothing, although everything is there."""
        with self.lock:
            self._index.clear()

    def _edited(self, page: SimPage, kind: str) -> None:
        page.edited = self._now()
        if self.indexing:
            self._index[page.id] = (page.edited, page.in_trash, page.shared)
        self.say(kind, page.id)

    def _now(self) -> datetime:
        return (datetime.now(UTC) - self.age).replace(second=0, microsecond=0)

    # webhooks

    def subscribe(self, hook_url: str, *, signed: bool = False) -> httpx.Response:
        """What happens when somebody enters the address at Notion: the handshake. `activate` follows if it was answered."""
        token = "secret_" + secrets.token_urlsafe(32)
        body = json.dumps({"verification_token": token}).encode()
        answer = self.courier.now(hook_url, body, self.headers(body, token if signed else None))
        with self.lock:
            self.hook = (hook_url, token)
        return answer

    def event(self, kind: str, entity_id: str, *, entity: str = "", **data: Any) -> dict[str, Any]:
        """An event as Notion words it."""
        topic = entity or kind.partition(".")[0]
        return {
            "id": str(uuid4()),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "workspace_id": "13950b26-c203-4f3b-b97d-93ec06319565",
            "workspace_name": "Acme",
            "subscription_id": "29d75c0d-5546-4414-8459-7b7a92f1fc4b",
            "integration_id": "0ef2e755-4912-8096-91c1-00376a88a5ca",
            "type": kind,
            "authors": [{"id": "c7c11cca-1d73-471d-9b6e-bdef51470190", "type": "person"}],
            "accessible_by": [],
            "attempt_number": 1,
            "api_version": "2025-09-03",
            "entity": {"id": entity_id, "type": topic},
            "data": {"parent": {"id": "13950b26-c203-4f3b-b97d-93ec06319565", "type": "space"}, **data},
        }

    def say(self, kind: str, entity_id: str, **more: Any) -> Sent | None:
        """Send an event, if there is a webhook."""
        if self.hook is None:
            return None
        url, token = self.hook
        body = json.dumps(self.event(kind, entity_id, **more)).encode()
        return self.courier.post(url, body, self.headers(body, token))

    @staticmethod
    def headers(body: bytes, token: str | None) -> dict[str, str]:
        plain = {"Content-Type": "application/json", "User-Agent": "notion-api"}
        if token is None:
            return plain
        return plain | {"X-Notion-Signature": "sha256=" + hmac.new(token.encode(), body, hashlib.sha256).hexdigest()}

    # routes

    def _route(self) -> None:
        for method, path, route in (
            ("POST", "/search", self._search),
            ("POST", "/data_sources/([^/]+)/query", self._query),
            ("GET", "/pages/([^/]+)", self._page),
            ("GET", "/pages/([^/]+)/markdown", self._markdown),
        ):
            self.on(method, f"/v1{path}", self._charged(route))

    def _charged(self, route: Callable[[Asked], Answer]) -> Callable[[Asked], Answer]:
        def answer(asked: Asked) -> Answer:
            if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
                return refusal(401, "unauthorized", "API token is invalid.")
            if "notion-version" not in asked.headers:
                return refusal(400, "missing_version", "Notion-Version header failed validation.")
            return self._refused() or route(asked)

        return answer

    def _refused(self) -> Answer | None:
        """429 and 529 in turn, once the requests of the window are used up."""
        now_s = self._clock_s()
        if now_s - self._window_s >= self.facts.window_s:
            self._window_s, self._used = now_s, 0
        self._used += 1
        if not self.enforce or self._used <= self.facts.requests:
            return None
        self._turned_away += 1
        wait_s = max(1, round(self.facts.window_s - (now_s - self._window_s) + 0.5))
        headers = {"Retry-After": str(wait_s)}
        if self._turned_away % 2:
            told = refusal(429, "rate_limited", "You have been rate limited.", rate_limit_reason="integration_request_limit")
        else:
            told = refusal(529, "service_overload", "Notion is overloaded.")
        return Answer(told.status, told.body, headers)

    # pages

    def _find(self, page_id: str) -> SimPage | Answer:
        page = self.all.get(page_id)
        if page is None or not page.shared:
            told = f"Could not find page with ID: {page_id}. Make sure the relevant pages are shared with your integration."
            return refusal(404, "object_not_found", told)
        return refusal(403, "restricted_resource", "Insufficient permissions.") if page.forbidden else page

    def _page(self, asked: Asked) -> Answer:
        page = self._find(asked.args[0])
        return page if isinstance(page, Answer) else Answer(body=_page_json(page))

    def _markdown(self, asked: Asked) -> Answer:
        wanted = asked.args[0]
        for page in self.all.values():
            if wanted in page.subtrees and page.shared:
                return Answer(body=_markdown_json(wanted, page.parts[page.subtrees.index(wanted) + 1], []))
        page = self._find(wanted)
        if isinstance(page, Answer):
            return page
        text = page.parts[0] if page.parts else ""
        if page.picture:  # signed anew for every answer
            text += (
                f"\n![heron](https://files.example.com/heron.png?X-Amz-Expires=3600&X-Amz-Signature={secrets.token_hex(32)})"
            )
        return Answer(body=_markdown_json(wanted, text, page.subtrees))

    def _search(self, asked: Asked) -> Answer:
        given: Mapping[str, Any] = asked.json()
        trash = bool(given.get("filter", {}).get("in_trash"))
        if trash and not self.knows_trash_filter:
            return refusal(400, "validation_error", "body failed validation: body.filter.in_trash should be not present.")
        seen = [
            (edited, self.all[page_id])
            for page_id, (edited, in_trash, shared) in self._index.items()
            if shared and in_trash is trash and page_id in self.all
        ]
        found: list[Mapping[str, Any]] = [_page_json(page) | {"last_edited_time": _iso(edited)} for edited, page in seen]
        if not trash:
            found += [{"object": "data_source", "id": one, "last_edited_time": _iso(self._now())} for one in self.data_sources]
        found.sort(key=lambda item: str(item["last_edited_time"]), reverse=True)
        return self._listed(found, given)

    def _query(self, asked: Asked) -> Answer:
        if asked.args[0] not in self.data_sources:
            return refusal(404, "object_not_found", f"Could not find data source with ID: {asked.args[0]}.")
        rows = [page for page in self.all.values() if page.data_source == asked.args[0] and page.shared and not page.in_trash]
        return self._listed([_page_json(page) for page in rows], asked.json())

    def _listed(self, found: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Answer:
        start = str(given.get("start_cursor", "0"))
        if not start.isdecimal():
            return refusal(400, "validation_error", "The start_cursor provided is invalid.")
        results, rest = pages(found, int(start), min(int(given.get("page_size", 100)), self.page_size))
        told: dict[str, Any] = {"object": "list", "results": list(results), "has_more": rest is not None}
        told["next_cursor"] = None if rest is None else str(rest)
        if self.incomplete:
            told["request_status"] = {"type": "incomplete", "incomplete_reason": "query_result_limit_reached"}
        return Answer(body=told)


def refusal(status: int, code: str, message: str, **more: Any) -> Answer:
    """An unsuccessful answer in Notion's form; `more` is its ``additional_data``."""
    told: dict[str, Any] = {"object": "error", "status": status, "code": code, "message": message}
    return Answer(status, told | ({"additional_data": more} if more else {}) | {"request_id": str(uuid4())})


def _page_json(page: SimPage) -> dict[str, Any]:
    title = [{"type": "text", "plain_text": page.title}]
    return {
        "object": "page",
        "id": page.id,
        "last_edited_time": _iso(page.edited),
        "in_trash": page.in_trash,
        "archived": page.in_trash,
        "url": f"https://www.notion.so/{page.id.replace('-', '')}",
        "parent": {"type": "data_source_id", "data_source_id": page.data_source} if page.data_source else {"type": "workspace"},
        "properties": {"Name": {"id": "title", "type": "title", "title": title}, **page.properties},
    }


def _markdown_json(block_id: str, text: str, unknown: Sequence[str]) -> dict[str, Any]:
    return {
        "object": "page_markdown",
        "id": block_id,
        "markdown": text,
        "truncated": bool(unknown),
        "unknown_block_ids": list(unknown),
    }


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
