"""Which files belong to a source: those of a shared drive, those that the user owns, or those below some folders."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping

from sourcebus.connectors.google_drive.config import Place
from sourcebus.connectors.google_drive.items import FIELDS, JsonFile, is_trashed, parent_of
from sourcebus.connectors.http import Api
from sourcebus.errors import ConnectorError, ObjectGone, ObjectUnreadable

GET_UNITS, LIST_UNITS, DOWNLOAD_UNITS, OTHER_UNITS = 5.0, 100.0, 200.0, 5.0
"""Google: "Usage limits" of the Drive API, quota units since 2026-05."""

_THERE_S = 30.0
_DEEPEST = 101
"""Levels of folders: a shared drive may have 100."""

Parents = MutableMapping[str, str | None]
"""Folders whose parents are known, for one pass or one look: kept longer, a folder that moved would not be noticed."""


class Bounds:
    """Safe between threads."""

    def __init__(self, api: Api, place: Place) -> None:
        self._api, self.place = api, place
        self._there_s = float("-inf")

    @property
    def whole(self) -> bool:
        """The source is a whole drive: where in it a file lies does not matter."""
        return not self.place.folders

    def feed(self) -> Mapping[str, str]:
        """The parameters that make a feed of changes, or a watch on it, this drive's."""
        shared = {"driveId": self.place.drive, "includeItemsFromAllDrives": "true"} if self.place.drive else {}
        return {"supportsAllDrives": "true", **shared}

    def listing(self) -> Mapping[str, str]:
        """The parameters that make a listing of files this drive's."""
        return {**self.feed(), "corpora": "drive" if self.place.drive else "user"}

    def holds(self, file: JsonFile, parents: Parents) -> bool:
        """Whether the file belongs to the source. Asks for the folders above it that are not in `parents`, 5 units each."""
        if file.get("driveId") != self.place.drive:
            return False
        if self.whole:
            return self.place.drive is not None or file.get("ownedByMe") is not False
        at = parent_of(file)
        for _ in range(_DEEPEST):
            if at is None or at in self.place.folders:
                return at is not None
            if at not in parents:
                parents[at] = self._parent(at)
            at = parents[at]
        return False

    def get(self, file_id: str, fields: str = FIELDS) -> JsonFile:
        return self._api.json("GET", f"files/{file_id}", params={"fields": fields, "supportsAllDrives": "true"}, cost=GET_UNITS)

    def check(self, *, fresh: bool = False) -> None:
        """The drive and the folders are there and open to us, else ConnectorError. Asked when a file is missing or refused,
        so that a withdrawn share does not pass for the end of each of its files."""
        if not fresh and time.monotonic() - self._there_s < _THERE_S:
            return
        # A plain ConnectorError: one drive that is gone must not make the bus pause the quota that others share.
        if self.place.drive and self.whole:
            try:
                self._api.call("GET", f"drives/{self.place.drive}", params={"fields": "id"}, cost=GET_UNITS)
            except (ObjectGone, ObjectUnreadable) as error:
                raise ConnectorError(f"the shared drive does not exist, or the account is no member of it: {error}") from error
        for folder in sorted(self.place.folders):
            self._check_folder(folder)
        self._there_s = time.monotonic()

    def _check_folder(self, folder: str) -> None:
        try:
            found = self.get(folder, "id,trashed,driveId")
        except (ObjectGone, ObjectUnreadable) as error:
            raise ConnectorError(f"the folder {folder} does not exist, or is not shared with the account: {error}") from error
        if is_trashed(found):
            raise ConnectorError(f"the folder {folder} lies in the bin: restore it, or take it out of config.folders")
        if found.get("driveId") != self.place.drive:
            drive = found.get("driveId")
            fix = f'set config.drive to "{drive}"' if drive else "leave config.drive out"
            raise ConnectorError(f"the folder {folder} lies in another drive: {fix}")

    def _parent(self, folder_id: str) -> str | None:
        try:
            return parent_of(self.get(folder_id, "id,parents"))
        except (ObjectGone, ObjectUnreadable):  # gone meanwhile, or above what is shared with us
            return None
