"""Connectors on the simulated Notion, for the tests of `notion`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from sourcebus.connectors.notion import NotionConnector
from sourcebus.model import Cursor, Delivery
from sourcebus.testing import Hook, SourceUnderTest, not_applicable
from sourcebus.testing.providers.notion import NotionSimulator, refusal
from sourcebus.testing.providers.server import Answer


def connect(notion: NotionSimulator, **secrets: Any) -> NotionConnector:
    secret = json.dumps({"token": notion.tokens[0], **secrets})
    return NotionConnector.create({"notion_url": notion.notion_url}, secret)


class Workspace(SourceUnderTest):
    """An empty workspace. A name is one page, whatever happens to it."""

    def __init__(self, notion: NotionSimulator) -> None:
        self.notion, self.tokens = notion, [*notion.tokens]
        self._pages: dict[str, str] = {}

    def connect(self) -> NotionConnector:
        return connect(self.notion)

    def write(self, name: str, text: str) -> str:
        page = self.notion.write(name, text, page_id=self._pages.get(name))
        self._pages[name] = page.id
        return page.id

    def delete(self, ref: str) -> None:
        self.notion.trash(ref)
        self._pages = {name: page_id for name, page_id in self._pages.items() if page_id != ref}

    def break_off(self) -> None:
        self.notion.refuse(refusal(500, "internal_server_error", "Unexpected error occurred."), times=1000)

    def rename(self, ref: str, name: str) -> str:
        self.notion.write(name, *self.notion.all[ref].parts, page_id=ref)
        return ref

    def break_half_way(self) -> None:
        """One page of the search is told, the next is not."""
        self.notion.page_size = 5
        told = refusal(500, "internal_server_error", "Unexpected error occurred.")
        self.notion.refuse(told, times=1000, path=".*/search", after=1)

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        limited = refusal(429, "rate_limited", "You have been rate limited.", rate_limit_reason="integration_request_limit")
        overload = refusal(529, "service_overload", "Notion is overloaded.")
        down = refusal(503, "service_unavailable", "Notion is unavailable.")
        forms = {
            "429": Answer(429, limited.body, {"Retry-After": "7"}),
            "429 without a time": limited,
            "529": Answer(529, overload.body, {"Retry-After": "7"}),
            "529 without a time": overload,
            "503 with a time": Answer(503, down.body, {"Retry-After": "7"}),
        }
        return {form: lambda answer=answer: self.notion.refuse(answer, times=1000) for form, answer in forms.items()}

    def revoke(self) -> None:
        """Somebody refreshes the integration's token."""
        self.notion.tokens[:] = ["ntn_another"]

    def forbid(self, ref: str) -> None:
        self.notion.all[ref].forbidden = True

    def mend(self) -> None:
        self.notion.accept_again()
        self.notion.tokens[:], self.notion.page_size = self.tokens, self.notion.facts.page_size
        for page in self.notion.all.values():
            page.forbidden = False

    def expire_cursor(self, cursor: str | None) -> str | None:
        """Where a pass begins is a time. What Notion forgets is the place in a search that was cut off after a page."""
        del cursor
        self.notion.page_size = 1
        with closing(self.connect()) as connector:
            cut = next(item for item in connector.changes(None) if isinstance(item, Cursor))
        self.notion.page_size = self.notion.facts.page_size
        self.notion.refuse(refusal(400, "validation_error", "The start_cursor provided is invalid."), path=".*/search")
        return cut.value

    def listen(self, hook: Hook) -> None:
        self.notion.subscribe(hook.address)

    def settle(self, hook: Hook) -> None:
        self.notion.courier.settle()

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        not_applicable("a webhook has a token of its own, and tells of what its own integration sees")
