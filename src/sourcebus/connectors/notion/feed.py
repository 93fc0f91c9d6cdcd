"""Listing: search in the order of the last edit, and, for everything, the rows of each data source besides.

Notion: "Search by title", "Query a data source". Search is an index that lags behind and promises no completeness
("Search optimizations and limitations"): what it leaves out of a complete pass is asked for by itself before it counts as gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from sourcebus.connectors.http import Api
from sourcebus.connectors.notion.pages import fingerprint_of, is_page, is_ref, is_trashed, ref_of, time_of
from sourcebus.connectors.notion.reader import date_of, json_of
from sourcebus.errors import ConnectorError, CursorExpired, InvalidInput, ObjectGone, ObjectUnreadable
from sourcebus.model import Change, ChangeKind, Cursor

ROWS = "data_source:"
"""A scope of this connector: the rows of one data source."""

OVERLAP = timedelta(minutes=15)
"""How far a pass goes back behind the newest edit of the one before: so much the search index may lag."""

_PAGE = 100
_PHASES = ("living", "trash", "rows")
"""A pass searches what is there. One that goes on from another then searches the trash; one that lists everything has no need
to (what it does not show is absent), and lists the rows of each data source instead."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a pass stands. `since`: it ends at edits before this (None: it lists everything); `newest`: the newest edit that it
    saw, where the next one begins; `phase`: of `_PHASES`; `page`: Notion's own cursor in it; `todo`: data sources whose rows
    are still to be listed; `whole`: until Notion admits that it left something out."""

    since: str | None = None
    newest: str = ""
    page: str | None = None
    todo: tuple[str, ...] = ()
    phase: str = "living"
    whole: bool = True

    def cursor(self) -> Cursor:
        return Cursor(json.dumps({name: getattr(self, name) for name in self.__slots__}))

    def end(self) -> Cursor:
        return Cursor(json.dumps({"since": self.newest or self.since or ""}), complete=self.since is None and self.whole)

    @classmethod
    def parse(cls, cursor: str | None) -> Position:
        if cursor is None:
            return cls()
        try:
            read = cast("dict[str, Any]", json.loads(cursor))
            since, page = read["since"], read.get("page")
            todo = tuple(str(one) for one in read.get("todo", ()))
            if not (since is None or isinstance(since, str)) or not all(map(is_ref, todo)):
                raise ValueError
            phase = str(read.get("phase", "living"))
            if phase not in _PHASES:
                raise ValueError
            return cls(since, str(read.get("newest", "")), page and str(page), todo, phase, read.get("whole", True) is True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CursorExpired("the stored cursor cannot be read") from error


class Feed:
    """Safe between threads; each pass keeps its own state."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def changes(self, cursor: str | None) -> Iterator[Change | Cursor]:
        """See `Connector.changes`."""
        at = Position.parse(cursor)
        while at.phase != "rows":
            found, at = self._search(at)
            yield from found
            if at.phase != "rows" or at.todo:
                yield at.cursor()
        while at.todo:
            found, page = self._rows(at.todo[-1], at.page)
            yield from found
            at = replace(at, page=page, todo=at.todo if page else at.todo[:-1])
            if at.todo:
                yield at.cursor()
        yield at.end()

    def rows(self, scope: str) -> Iterator[Change | Cursor]:
        """The rows of one data source."""
        data_source, page = scope.removeprefix(ROWS), ""
        if not is_ref(data_source):
            raise InvalidInput("object_ref", f"{scope[:200]!r} is no scope of this source", 'scan the whole source: ""')
        while page is not None:
            found, page = self._rows(data_source, page or None)
            yield from found
        yield Cursor(None)

    def _search(self, at: Position) -> tuple[list[Change], Position]:
        """One page of what was edited lately, the latest first, and where it leads."""
        body = {"sort": {"timestamp": "last_edited_time", "direction": "descending"}, "page_size": _PAGE}
        trash = at.phase == "trash"
        body |= {"filter": {"in_trash": True}} if trash else {}
        body |= {"start_cursor": at.page} if at.page else {}
        # Where Notion does not know the filter, only complete passes and webhooks tell of the trash.
        items, more, asked, whole = self._ask("search", body, accept=(400,) if trash else ())
        since = time_of(at.since) if at.since else None
        end = since - OVERLAP if since else None
        due = [item for item in items if end is None or (time_of(item.get("last_edited_time")) or asked) >= end]
        if more is not None and len(due) == len(items):
            at = replace(at, page=more)
        else:
            at = replace(at, page=None, phase="rows" if trash or at.since is None else "trash")
        if not trash:
            sources = [ref for item in due if item.get("object") == "data_source" and (ref := ref_of(item.get("id")))]
            newest = max([at.newest, *(str(item.get("last_edited_time") or "") for item in items)])
            at = replace(at, newest=newest, todo=(*at.todo, *sources) if at.since is None else (), whole=at.whole and whole)
        return [_change(item, asked) for item in due if is_page(item)], at

    def _rows(self, data_source: str, page: str | None) -> tuple[list[Change], str | None]:
        body = {"page_size": _PAGE} | ({"start_cursor": page} if page else {})
        try:
            items, more, asked, _whole = self._ask(f"data_sources/{data_source}/query", body)
        except ObjectGone:  # deleted, or not shared any more: its rows are asked for one by one then
            return [], None
        return [_change(item, asked) for item in items if is_page(item)], more

    def _ask(
        self, path: str, body: dict[str, Any], accept: tuple[int, ...] = ()
    ) -> tuple[list[dict[str, Any]], str | None, datetime, bool]:
        """The items, Notion's cursor to what follows, its clock, and if it says that it left nothing out."""
        try:
            answer = self._api.call("POST", path, json=body, accept=accept)
        except ObjectUnreadable as error:
            raise ConnectorError(f"Notion refuses to list: {error.detail}") from error
        told: dict[str, Any] = json_of(answer) if answer.is_success else {"results": []}
        results, status = told.get("results"), told.get("request_status")
        if not isinstance(results, list):
            raise ConnectorError(f"POST {path}: the answer has no results")
        items = [cast("dict[str, Any]", one) for one in cast("list[Any]", results) if isinstance(one, dict)]
        incomplete = isinstance(status, dict) and cast("dict[str, Any]", status).get("type") == "incomplete"
        more = told.get("next_cursor") if told.get("has_more") else None
        return items, more and str(more), date_of(answer), not incomplete


def _change(page: dict[str, Any], asked: datetime) -> Change:
    ref = ref_of(page["id"]) or ""
    if is_trashed(page):
        return Change(ref, ChangeKind.DELETED)
    return Change(ref, fingerprint=fingerprint_of(page, asked))
