"""Reading one page: its state, and its content as Markdown, subtree by subtree where it is long.

Notion: "Retrieve a page", "Retrieve a page as markdown". Why not block by block: docs/decisions/0010-notion-versions.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx

from sourcebus.connectors.http import Api
from sourcebus.connectors.notion.pages import (
    JsonPage,
    fingerprint_of,
    is_page,
    properties_of,
    ref_of,
    title_of,
    version_of,
    without_signatures,
)
from sourcebus.errors import ConnectorError, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Document

MAX_SUBTREES = 50
"""Of a page that is too long for one answer, so many further ones are asked for: 20 s of the quota."""


@dataclass(frozen=True, slots=True)
class State:
    """A page as it was at `asked`, by Notion's clock."""

    page: JsonPage
    asked: datetime

    @property
    def fingerprint(self) -> str | None:
        return fingerprint_of(self.page, self.asked)


@dataclass(frozen=True, slots=True)
class Read:
    """A page's document and the version of exactly that."""

    document: Document
    version: str


class Reader:
    """Safe between threads."""

    def __init__(self, api: Api, *, max_bytes: int) -> None:
        self._api, self._max_bytes = api, max_bytes

    def state(self, ref: str) -> State:
        """Raises `ObjectGone` where Notion has no such page, or does not show it to the integration any more."""
        answer = self._api.call("GET", f"pages/{ref}")
        told = json_of(answer)
        if not is_page(told):
            raise SourceUnavailable(f"Notion's answer is no page: {str(told.get('object'))[:60]}")
        return State(told, date_of(answer))

    def read(self, state: State) -> Read:
        """The page's content now. It may be newer than `state`, never older: then the change that made it so is told."""
        page = state.page
        markdown, whole = self._markdown(str(page["id"]))
        title, said = title_of(page), properties_of(page)
        text = "\n\n".join(filter(None, [said, markdown]))
        place = {"url": page.get("url"), "modified_at": page.get("last_edited_time")}
        metadata = place | ({} if whole else {"truncated": True})
        made = Document(text, title or "Untitled", media_type="text/markdown", metadata=metadata)
        return Read(made, version_of(title, text))

    def _markdown(self, page_id: str) -> tuple[str, bool]:
        """The content, and if it is all there is."""
        parts, asked, due = list[str](), 0, deque([page_id])
        seen, size, whole = {page_id}, 0, True
        while due:
            if asked > MAX_SUBTREES:
                return "\n\n".join(parts), False
            block_id, asked = due.popleft(), asked + 1
            told = self._ask(block_id, first=block_id == page_id)
            if told is None:
                whole = False
                continue
            part = without_signatures(str(told.get("markdown") or "")).replace("\0", "").strip()
            size += len(part)
            if size > self._max_bytes:
                raise ObjectUnreadable("too_large", f"has more than {self._max_bytes} characters")
            parts.append(part)
            unknown = [ref for one in told.get("unknown_block_ids") or () if (ref := ref_of(one)) and ref not in seen]
            seen.update(unknown)
            due.extend(unknown)
            whole = whole and not (told.get("truncated") and not unknown)
        return "\n\n".join(filter(None, parts)), whole

    def _ask(self, block_id: str, *, first: bool) -> dict[str, Any] | None:
        """One answer; None for a subtree that the integration may not see, or that is gone meanwhile."""
        try:
            told = json_of(self._api.call("GET", f"pages/{block_id}/markdown"))
        except ObjectGone as error:
            if not first:
                return None
            raise ConnectorError(f"the content is not there, though the page is: {error}") from error
        if not isinstance(told.get("markdown"), str):
            raise SourceUnavailable("Notion's answer is no Markdown of a page")
        return told


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """SourceUnavailable for what is no JSON object: a proxy's page, mostly."""
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise SourceUnavailable(f"{answer.request.method} {answer.request.url.path}: the answer is no JSON object")
    return cast("dict[str, Any]", told)


def date_of(answer: httpx.Response) -> datetime:
    """Notion's clock at the answer; where it does not say, a time at which no minute is over yet."""
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
    except (ValueError, TypeError):
        return datetime.min.replace(tzinfo=UTC)
