"""Listing: Graph's delta feed of each drive, page by page, and what a folder that moved means for what lies in it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import quote

import httpx

from sourcebus.connectors.http import Api
from sourcebus.connectors.sharepoint.drives import SEVERAL_UNITS, Drives
from sourcebus.connectors.sharepoint.items import (
    SELECT,
    JsonItem,
    Paths,
    fingerprint_of,
    is_deleted,
    is_file,
    is_folder,
    parent_of,
)
from sourcebus.errors import ConnectorError, CursorExpired, InvalidInput, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Change, ChangeKind, Cursor

FOLDER = "folder:"
"""A scope of this connector: what lies directly in a folder whose path has changed."""

_DELTA = "root/delta"
_MARGIN_S = 5.0
_REMEMBERED_FOLDERS = 20_000


def ref_of(drives: Drives, drive_id: str, item_id: str) -> str:
    """The object's name: the item's id; where a source has several drives, after the drive's."""
    return f"{drive_id}/{item_id}" if drives.many else item_id


@dataclass(frozen=True, slots=True)
class Position:
    """Where a pass stands. `links`: the next page, or the next delta, of each drive that was begun; `full`: the pass is
    an enumeration of everything; `told_s`: the server's time when the last whole pass ended."""

    links: Mapping[str, str]
    full: bool
    told_s: float = 0.0

    def cursor(self) -> str:
        return json.dumps({"links": dict(self.links), "full": self.full, "told_s": self.told_s})

    @classmethod
    def parse(cls, cursor: str | None) -> Position:
        if cursor is None:
            return cls({}, full=True)
        try:
            read = cast("dict[str, Any]", json.loads(cursor))
            links = {str(drive): str(link) for drive, link in read["links"].items()}
            return cls(links, full=bool(read["full"]), told_s=float(read["told_s"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CursorExpired("the stored cursor cannot be read") from error


class Feed:
    """The changes of a source's drives. Safe between threads; each pass keeps its own state."""

    def __init__(self, api: Api, drives: Drives) -> None:
        self._api, self._drives = api, drives
        self._known = _Folders()

    def changes(self, cursor: str | None) -> Iterator[Change | Cursor]:
        """See `Connector.changes`. Both kinds of resync that a 410 asks for are the same to an index, which has no changes
        of its own to upload: everything is listed anew, and what is not there is gone. So the ``Location`` is not followed."""
        position = Position.parse(cursor)
        drives = list(self._drives.ids())
        if gone := sorted(set(position.links) - set(drives)):
            raise CursorExpired(f"libraries that were listed are not there any more: {', '.join(gone)}")
        told_s = position.told_s
        for drive_id in drives:
            begun = position.links.get(drive_id)
            since_s = None if position.full or begun is None else position.told_s
            for page in self._pages(drive_id, begun):
                yield from self._page(drive_id, page, since_s)
                position = replace(position, links={**position.links, drive_id: page.link})
                told_s = page.told_s
                if page.more or drive_id != drives[-1]:
                    yield Cursor(position.cursor())
        yield Cursor(replace(position, full=False, told_s=told_s).cursor(), complete=position.full)

    def folder(self, scope: str) -> Iterator[Change | Cursor]:
        """What lies in a folder that was renamed or moved: each file is looked at, each folder in it is a scope again."""
        drive_id, _, folder_id = scope.removeprefix(FOLDER).partition("/")
        if drive_id not in self._drives.ids() or not folder_id:
            raise InvalidInput("object_ref", f"{scope[:200]!r} is no scope of this source", "scan the whole source")
        link: str | None = f"{_drive(drive_id)}/items/{quote(folder_id, safe='!')}/children?$select={SELECT}"
        while link:
            try:
                page = self._api.json("GET", link, cost=SEVERAL_UNITS)
            except ObjectGone:  # deleted meanwhile, which the feed tells
                break
            for item in page.get("value", []):
                if is_folder(item):
                    yield Change(f"{FOLDER}{drive_id}/{item['id']}", ChangeKind.SCAN)
                elif is_file(item):
                    yield Change(ref_of(self._drives, drive_id, item["id"]))
            link = page.get("@odata.nextLink")
        yield Cursor(None)

    def _pages(self, drive_id: str, link: str | None) -> Iterator[_Page]:
        paths = Paths(lambda folder_id: self._folder(drive_id, folder_id))
        url, cost = (link, 1.0) if link else (f"{_drive(drive_id)}/{_DELTA}?$select={SELECT}", SEVERAL_UNITS)
        while True:
            answer = self._ask(drive_id, url, cost)
            try:
                told = cast("dict[str, Any]", answer.json())
                more = "@odata.nextLink" in told
                url, cost = str(told["@odata.nextLink" if more else "@odata.deltaLink"]), 1.0
            except (ValueError, KeyError, TypeError) as error:  # a proxy's page, mostly
                raise SourceUnavailable(f"the feed of the drive {drive_id} answers with no page of a delta") from error
            yield _Page(_last_of_each(told.get("value", [])), paths, url, more, _date_s(answer))
            if not more:
                return

    def _ask(self, drive_id: str, url: str, cost: float) -> httpx.Response:
        try:
            # Without the folders above what changed: a folder in a delta is then one that changed itself.
            return self._api.call("GET", url, headers={"deltaExcludeParent": "true"}, cost=cost)
        except (ObjectGone, ObjectUnreadable) as error:
            self._drives.check(drive_id)  # says that the drive is gone, or that the permission ended
            raise ConnectorError(f"the feed of the drive {drive_id} does not answer: {error}") from error

    def _page(self, drive_id: str, page: _Page, since_s: float | None) -> Iterator[Change]:
        """`since_s` None: an enumeration, in which the place of each file is told by the folders beside it."""
        for item in page.items:
            if is_folder(item) and not is_deleted(item):
                page.paths.learn(item)
        for item in page.items:
            if "root" in item:
                continue
            ref = ref_of(self._drives, drive_id, item["id"])
            if is_deleted(item):
                yield Change(ref, ChangeKind.DELETED)
            elif is_folder(item):
                moved = self._known.moved(item)
                if since_s is not None and moved and not _is_new(item, since_s):
                    yield Change(f"{FOLDER}{drive_id}/{item['id']}", ChangeKind.SCAN)
            elif is_file(item):
                yield Change(ref, fingerprint=_fingerprint(item, page.paths) if since_s is None else None)

    def _folder(self, drive_id: str, folder_id: str) -> JsonItem | None:
        try:
            return self._api.json("GET", f"{_drive(drive_id)}/items/{quote(folder_id, safe='!')}?$select={SELECT}", cost=1.0)
        except ObjectGone:
            return None


@dataclass(frozen=True, slots=True)
class _Page:
    """`link` leads on: to the next page if there is `more`, else to the next delta. `told_s`: the server's time."""

    items: list[JsonItem]
    paths: Paths
    link: str
    more: bool
    told_s: float


class _Folders:
    """Names and parents of folders seen lately, so that one that only got a sharing link is not taken for one that moved.
    To forget one costs a needless listing of it, no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[Any, Any]] = OrderedDict()

    def moved(self, folder: JsonItem) -> bool:
        """Its name or parent is not what was seen last, or nothing was."""
        now = (folder.get("name"), parent_of(folder))
        with self._lock:
            before = self._seen.pop(folder["id"], None)
            self._seen[folder["id"]] = now
            if len(self._seen) > _REMEMBERED_FOLDERS:
                self._seen.popitem(last=False)
        return before != now


def _fingerprint(item: JsonItem, paths: Paths) -> str | None:
    path = paths.of(item)
    return None if path is None else fingerprint_of(item, path)


def _is_new(folder: JsonItem, told_s: float) -> bool:
    """Made since the last pass: whatever is in it came since then too, and is told by itself."""
    try:
        created_s = datetime.fromisoformat(str(folder["createdDateTime"]).replace("Z", "+00:00")).timestamp()
    except (KeyError, ValueError):
        return False
    return created_s > told_s + _MARGIN_S


def _last_of_each(items: list[JsonItem]) -> list[JsonItem]:
    """An item may recur in a feed; the last occurrence counts."""
    return list({item["id"]: item for item in items}.values())


def _date_s(answer: httpx.Response) -> float:
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return 0.0


def _drive(drive_id: str) -> str:
    return f"drives/{quote(drive_id, safe='!')}"
