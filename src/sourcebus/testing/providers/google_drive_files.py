"""What a simulated Drive holds: files in folders, in shared drives and in users' own, each with Google's count of changes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5, sha256
from typing import Any

FOLDER = "application/vnd.google-apps.folder"
DOCUMENT = "application/vnd.google-apps.document"
SPREADSHEET = "application/vnd.google-apps.spreadsheet"
SHORTCUT = "application/vnd.google-apps.shortcut"
APPS = "application/vnd.google-apps."


@dataclass(slots=True)
class SimFile:
    """A file or folder. `content` is its bytes, or what one of Google's own documents exports. `refused`: the reason of the
    403 that its content is answered with; `forbidden`: the file itself is."""

    id: str
    name: str
    mime_type: str
    parent: str | None
    owner: str
    content: bytes = b""
    trashed: bool = False
    forbidden: bool = False
    refused: str = ""
    version: int = 1
    revision: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))


class SimDrive:
    """A shared drive (`owner` None) or a user's My Drive. `changed` is told each file that a change is announced of.

    A folder that is moved or put into the bin is announced alone: what lies in it follows without a word, which is the least
    that Google promises. Not locked: the server's lock guards it.
    """

    def __init__(self, owner: str | None, members: set[str], changed: Callable[[SimDrive, str], None]) -> None:
        self.id, self.owner, self.members = f"0A{secrets.token_urlsafe(14)}PVA", owner, members
        self.files: dict[str, SimFile] = {}
        self.shares: dict[str, set[str]] = {}
        self._changed = changed
        if owner:
            self.files[self.id] = SimFile(self.id, "My Drive", FOLDER, None, owner)

    # what there is

    def children(self, folder_id: str) -> list[SimFile]:
        return [file for file in self.files.values() if file.parent == folder_id]

    def above(self, file: SimFile) -> list[SimFile]:
        """The file and the folders above it, the nearest first."""
        found: list[SimFile] = []
        at: SimFile | None = file
        while at is not None and len(found) <= 101:
            found.append(at)
            at = self.files.get(at.parent or "")
        return found

    def is_trashed(self, file: SimFile) -> bool:
        return any(one.trashed for one in self.above(file))

    def seen_by(self, user: str, file: SimFile) -> bool:
        """A member sees everything; others see what was shared with them and what lies in it."""
        return user in self.members or any(user in self.shares.get(one.id, ()) for one in self.above(file))

    def to_json(self, file: SimFile, user: str) -> dict[str, Any]:
        """The file as `user` sees it, with the properties that depend on what it is."""
        above = self.above(file)[1:]
        told: dict[str, Any] = {
            "id": file.id,
            "name": file.name,
            "mimeType": file.mime_type,
            "trashed": self.is_trashed(file),
            "version": str(file.version),
            "modifiedTime": file.modified.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "webViewLink": f"https://drive.google.com/file/d/{file.id}/view",
        }
        if file.parent and (not above or self.seen_by(user, above[0])):
            told["parents"] = [file.parent]
        if self.owner is None:
            told["driveId"] = self.id
        else:
            told["ownedByMe"] = file.owner == user
        if not file.mime_type.startswith(APPS):
            told |= {
                "size": str(len(file.content)),
                "md5Checksum": md5(file.content, usedforsecurity=False).hexdigest(),
                "sha256Checksum": sha256(file.content).hexdigest(),
                "headRevisionId": file.revision,
            }
        return told

    # what people do

    def put(self, path: str, content: bytes | str, mime_type: str = "text/plain", *, owner: str = "") -> SimFile:
        """Write the file of that path; folders above it are made."""
        data = content.encode() if isinstance(content, str) else content
        folder, _, name = path.rpartition("/")
        parent = self.folder(folder)
        file = next((one for one in self.children(parent) if one.name == name and not one.trashed), None)
        if file is None:
            file = SimFile(_id(), name, mime_type, parent, owner or self.owner or "", data, version=0)
            self.files[file.id] = file
        file.content, file.revision, file.modified = data, secrets.token_urlsafe(24), datetime.now(UTC)
        return self.touch(file.id)

    def folder(self, path: str) -> str:
        """The id of the folder of that path, "" being the drive's root; made where it is missing."""
        at = self.id
        for name in filter(None, path.split("/")):
            found = next((one for one in self.children(at) if one.name == name and one.mime_type == FOLDER), None)
            if found is None:
                found = SimFile(_id(), name, FOLDER, at, self.owner or "", version=0)
                self.files[found.id] = found
                self.touch(found.id)
            at = found.id
        return at

    def touch(self, file_id: str) -> SimFile:
        """Something that changes nothing of the content: a view, a share, a star."""
        file = self.files[file_id]
        file.version += 1
        self._changed(self, file_id)
        return file

    def rename(self, file_id: str, name: str) -> SimFile:
        self.files[file_id].name = name
        return self.touch(file_id)

    def move(self, file_id: str, folder_id: str) -> SimFile:
        self.files[file_id].parent = folder_id
        return self.touch(file_id)

    def trash(self, file_id: str, *, trashed: bool = True) -> SimFile:
        """Into the bin, or out of it again."""
        self.files[file_id].trashed = trashed
        return self.touch(file_id)

    def delete(self, file_id: str) -> None:
        """For good, with all that lies in it."""
        for child in self.children(file_id):
            self.delete(child.id)
        del self.files[file_id]
        self._changed(self, file_id)


def _id() -> str:
    return "1" + secrets.token_urlsafe(24)
