"""Connectors on the simulated Notion, for the tests of `notion`."""

from __future__ import annotations

import json
from typing import Any

from sourcebus.connectors.notion import NotionConnector
from sourcebus.testing import SourceUnderTest
from sourcebus.testing.providers.notion import NotionSimulator, refusal


def connect(notion: NotionSimulator, **secrets: Any) -> NotionConnector:
    secret = json.dumps({"token": notion.tokens[0], **secrets})
    return NotionConnector.create({"notion_url": notion.notion_url}, secret)


class Workspace(SourceUnderTest):
    """An empty workspace. A name is one page, whatever happens to it."""

    def __init__(self, notion: NotionSimulator) -> None:
        self.notion = notion
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

    def mend(self) -> None:
        self.notion.accept_again()
