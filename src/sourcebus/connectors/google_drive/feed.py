"""Listing: everything there is page by page, then the feed of changes from before it began.

Drive's page tokens of the feed do not expire; those of a listing last for hours (Google: files.list, changes.list).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sourcebus.connectors.google_drive.bounds import LIST_UNITS, OTHER_UNITS, Bounds, Parents
from sourcebus.connectors.google_drive.config import is_file_id
from sourcebus.connectors.google_drive.items import (
    FIELDS,
    JsonFile,
    fingerprint_of,
    is_folder,
    is_object,
    is_trashed,
    parent_of,
    version_of,
)
from sourcebus.connectors.http import Api
from sourcebus.errors import ConnectorError, CursorExpired, InvalidInput, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Change, ChangeKind, Cursor

IN_FOLDER = "folder:"
"""A scope of this connector: what lies directly in a folder that was moved, trashed or restored."""

_PAGE = 1_000
_BATCH = 20
"""Folders asked for in one call of a listing: it costs the same as one."""

_REMEMBERED_FOLDERS = 20_000


@dataclass(frozen=True, slots=True)
class Position:
    """Where a pass stands. While it lists: `start` is the feed's token from before it, `todo` batches of folders yet to be
    listed (a drive as a whole is one empty batch), the last one under way at `page`; `whole` until the provider admits that
    a search was incomplete. Then `todo` is empty and `start` moves along the feed; `full`: a listing went before."""

    start: str
    todo: tuple[tuple[str, ...], ...] = ()
    page: str | None = None
    full: bool = False
    whole: bool = True

    def cursor(self, *, ended: bool = False) -> Cursor:
        if ended:
            return Cursor(json.dumps({"start": self.start}), complete=self.full and self.whole)
        told = {"start": self.start, "todo": self.todo, "page": self.page, "full": self.full, "whole": self.whole}
        return Cursor(json.dumps(told))

    @classmethod
    def parse(cls, cursor: str) -> Position:
        try:
            read = cast("dict[str, Any]", json.loads(cursor))
            todo = tuple(tuple(str(one) for one in batch) for batch in read.get("todo", ()))
            start, page = read["start"], read.get("page")
            if not isinstance(start, str) or not all(is_file_id(one) for batch in todo for one in batch):
                raise ValueError
            return cls(start, todo, page and str(page), read.get("full") is True, read.get("whole", True) is True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CursorExpired("the stored cursor cannot be read") from error


class Feed:
    """What a source holds and what changes in it. Safe between threads; each pass keeps its own state."""

    def __init__(self, api: Api, bounds: Bounds) -> None:
        self._api, self._bounds = api, bounds
        self._known = _Folders()

    def start(self) -> str:
        """The feed's token of this moment."""
        told = self._ask("changes/startPageToken", self._bounds.feed(), OTHER_UNITS)
        return _text(told, "startPageToken")

    def changes(self, cursor: str | None) -> Iterator[Change | Cursor]:
        """See `Connector.changes`."""
        position = self._begin() if cursor is None else Position.parse(cursor)
        while position.todo:
            found, position = self._list(position)
            yield from found
            yield position.cursor()
        parents: Parents = {}
        while True:
            told = self._ask("changes", {**self._bounds.feed(), **_changes_fields(position.start)}, LIST_UNITS)
            yield from self._page(_items(told, "changes"), parents)
            more = told.get("nextPageToken")
            position = replace(position, start=str(more) if more else _text(told, "newStartPageToken"))
            if not more:
                break
            yield position.cursor()
        yield position.cursor(ended=True)

    def folder(self, scope: str) -> Iterator[Change | Cursor]:
        """What lies in a folder, trashed or not, in the source or out of it by now. Each folder in it is a scope again."""
        folder_id, page = scope.removeprefix(IN_FOLDER), ""
        parents: Parents = {}
        if not is_file_id(folder_id):
            raise InvalidInput("object_ref", f"{scope[:200]!r} is no scope of this source", 'scan the whole source: ""')
        while page is not None:
            try:
                told = self._files(f"'{folder_id}' in parents", page)
            except ObjectGone:  # deleted meanwhile, which the feed tells
                break
            for file in _items(told, "files"):
                if is_folder(file):
                    yield Change(f"{IN_FOLDER}{file['id']}", ChangeKind.SCAN)
                elif is_object(file):
                    yield self._judged(file, parents)
            page = told.get("nextPageToken")
        yield Cursor(None)

    def _begin(self) -> Position:
        self._bounds.check(fresh=True)
        return Position(self.start(), tuple(_batches(sorted(self._bounds.place.folders))) or ((),), full=True)

    def _list(self, at: Position) -> tuple[list[Change], Position]:
        """One page of the listing, and where it leads."""
        *rest, batch = at.todo
        try:
            told = self._files(self._query(batch), at.page or "")
        except ObjectGone:  # one of these folders is gone meanwhile
            self._bounds.check(fresh=True)
            halves = [half for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]) if half and len(batch) > 1]
            return [], replace(at, todo=(*rest, *halves), page=None)
        files = _items(told, "files")
        folders = [file["id"] for file in files if is_folder(file) and self._known.learn(file, self._bounds.whole)]
        below = () if self._bounds.whole else _batches([one for one in folders if one not in self._bounds.place.folders])
        more = told.get("nextPageToken")
        todo = (*rest, *below, batch) if more else (*rest, *below)
        found = [_change(file) for file in files if is_object(file) and not is_trashed(file)]
        return found, replace(at, todo=todo, page=more, whole=at.whole and not told.get("incompleteSearch"))

    def _query(self, batch: Sequence[str]) -> str:
        if batch:
            inside = " or ".join(f"'{folder}' in parents" for folder in batch)
            return f"({inside}) and trashed = false"
        return "trashed = false" if self._bounds.place.drive else "'me' in owners and trashed = false"

    def _page(self, changes: Sequence[JsonFile], parents: Parents) -> Iterator[Change]:
        files = [cast("JsonFile", change["file"]) for change in changes if isinstance(change.get("file"), dict)]
        parents.update({file["id"]: parent_of(file) for file in files if is_folder(file)})
        for change in changes:
            file, file_id = cast("JsonFile | None", change.get("file")), change.get("fileId")
            if not isinstance(file_id, str):
                continue  # the drive itself: its name, or that we are no member any more, which the next call says
            if change.get("removed") or file is None:
                yield Change(file_id, ChangeKind.DELETED)
            elif is_folder(file):
                if self._known.moved(file, self._bounds.whole):
                    yield Change(f"{IN_FOLDER}{file_id}", ChangeKind.SCAN)
            else:
                yield self._judged(file, parents)

    def _judged(self, file: JsonFile, parents: Parents) -> Change:
        """As it is now, or as deleted where it is no object of this source (any more)."""
        if is_trashed(file) or not is_object(file) or not self._bounds.holds(file, parents):
            return Change(file["id"], ChangeKind.DELETED)
        return _change(file)

    def _files(self, query: str, page: str) -> dict[str, Any]:
        fields = {"q": query, "pageSize": _PAGE, "fields": f"nextPageToken,incompleteSearch,files({FIELDS})"}
        return self._ask("files", {**self._bounds.listing(), **fields, **({"pageToken": page} if page else {})}, LIST_UNITS)

    def _ask(self, path: str, params: Any, cost: float) -> dict[str, Any]:
        try:
            told = self._api.json("GET", path, params=params, cost=cost)
        except ObjectGone as error:
            if path == "files":
                raise
            self._bounds.check(fresh=True)  # says that the drive is gone
            raise ConnectorError(f"Drive does not answer for this source: {error}") from error
        except ObjectUnreadable as error:
            self._bounds.check(fresh=True)  # says that the permission ended
            raise ConnectorError(f"Drive refuses to list this source: {error.detail}") from error
        if not isinstance(told, dict):
            raise SourceUnavailable(f"GET {path}: the answer is no object")
        return cast("dict[str, Any]", told)


class _Folders:
    """Where folders seen lately lie, so that one that was only renamed or shared is not taken for one that moved. To forget
    one costs a needless listing of it, no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[str | None, bool]] = OrderedDict()

    def moved(self, folder: JsonFile, whole: bool) -> bool:
        """Its place (where that matters) or its being in the bin is not what was seen last, or nothing was."""
        now = (None if whole else parent_of(folder), is_trashed(folder))
        with self._lock:
            before = self._seen.pop(folder["id"], None)
            self._seen[folder["id"]] = now
            if len(self._seen) > _REMEMBERED_FOLDERS:
                self._seen.popitem(last=False)
        return before != now

    def learn(self, folder: JsonFile, whole: bool) -> bool:
        """It is listed now, so only what happens to it from here on matters. True."""
        self.moved(folder, whole)
        return True


def _change(file: JsonFile) -> Change:
    return Change(file["id"], version=version_of(file), fingerprint=fingerprint_of(file))


def _batches(folders: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(folders), _BATCH):
        yield tuple(folders[start : start + _BATCH])


def _changes_fields(token: str) -> dict[str, Any]:
    return {
        "pageToken": token,
        "pageSize": _PAGE,
        "includeRemoved": "true",
        "fields": f"nextPageToken,newStartPageToken,changes(changeType,removed,fileId,file({FIELDS}))",
    }


def _items(told: dict[str, Any], name: str) -> list[JsonFile]:
    found = told.get(name, [])
    if not isinstance(found, list):
        raise SourceUnavailable(f"Drive's answer has no list of {name}")
    return [cast("JsonFile", one) for one in cast("list[Any]", found) if isinstance(one, dict)]


def _text(told: dict[str, Any], name: str) -> str:
    if not isinstance(value := told.get(name), str):
        raise SourceUnavailable(f"Drive's answer has no {name}: a proxy's page, perhaps")
    return value
