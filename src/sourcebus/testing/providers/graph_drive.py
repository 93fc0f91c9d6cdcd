"""What a simulated tenant holds: drives with their items, as Microsoft Graph numbers, tags and tells them.

Every change gives its item the drive's next number, and a delta token is a span of numbers: so a feed shows the latest state
of each item and never one twice, items may come before their parents, and what changes while pages are read is in the
next delta. (Sources: driveItem and driveItem: delta in Microsoft's Graph documentation.)
"""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple, cast
from urllib.parse import quote

ROOT_NAME = "root"


@dataclass(slots=True)
class SimItem:
    """A file (`content`) or a folder (None). `seq` is the number of its last change, `tags` count changes of metadata or
    content, `contents` of content alone."""

    id: str
    name: str
    parent: str | None
    content: bytes | None
    created: datetime
    modified: datetime
    seq: int = 0
    tags: int = 1
    contents: int = 1
    deleted: bool = False
    forbidden: bool = False
    facets: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_folder(self) -> bool:
        return self.content is None and "package" not in self.facets


class Span(NamedTuple):
    """What a delta token stands for: changes after one number up to another; `full`: an enumeration of what is there."""

    epoch: int
    after: int
    upto: int
    full: bool

    def token(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> Span | None:
        try:
            epoch, after, upto, full = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            return cls(int(epoch), int(after), int(upto), bool(full))
        except (binascii.Error, ValueError, TypeError):
            return None


class Page(NamedTuple):
    """`rest` begins the next page; None: this was the last, and the next delta is `latest`."""

    items: list[SimItem]
    rest: Span | None
    latest: Span


class SimDrive:
    """One document library or OneDrive. Not locked: the server's lock guards it."""

    def __init__(self, drive_id: str, name: str, *, drive_type: str = "documentLibrary") -> None:
        self.id, self.name, self.type = drive_id, name, drive_type
        self.items: dict[str, SimItem] = {}
        self.epoch = 0
        self.resync_code = "resyncChangesApplyDifferences"
        self.forbidden = False
        self._seq = 0
        self._made = 0
        self._log: list[tuple[int, str]] = []
        self.root = self._make(ROOT_NAME, None, None)

    # changes

    def put(self, path: str, content: bytes, **facets: Any) -> SimItem:
        """Create or replace the file at `path` (folders are made as needed)."""
        folder = self.folder(path.rpartition("/")[0])
        name = path.rpartition("/")[2]
        found = self.find(path)
        if found is None:
            return self._make(name, folder.id, content, facets)
        found.content, found.contents = content, found.contents + 1
        found.facets.update(facets)
        self._touch(found)
        return found

    def folder(self, path: str) -> SimItem:
        """The folder at `path`, made if need be; "" is the root."""
        at = self.root
        for name in filter(None, path.split("/")):
            at = self._child(at.id, name) or self._make(name, at.id, None)
        return at

    def rename(self, item_id: str, name: str) -> SimItem:
        """A new name: eTag changes, cTag does not, and nothing below a folder is told."""
        item = self.items[item_id]
        item.name = name
        self._touch(item)
        return item

    def move(self, item_id: str, folder: str) -> SimItem:
        """Into the folder at a path of this drive; told as `rename` is."""
        item = self.items[item_id]
        item.parent = self.folder(folder).id
        self._touch(item)
        return item

    def touch(self, item_id: str) -> SimItem:
        """A change of metadata only: a column, a sharing link."""
        self._touch(self.items[item_id])
        return self.items[item_id]

    def delete(self, item_id: str) -> None:
        """The item and all below it; each is told."""
        for child in [item for item in self.items.values() if item.parent == item_id and not item.deleted]:
            self.delete(child.id)
        item = self.items[item_id]
        item.deleted = True
        self._touch(item)

    def restore(self, item_id: str) -> SimItem:
        """Out of the recycle bin, under its old id."""
        item = self.items[item_id]
        item.deleted = False
        self._touch(item)
        return item

    def expire_tokens(self, code: str = "resyncChangesApplyDifferences") -> None:
        """No token handed out until now is good any more: 410 with this code."""
        self.epoch += 1
        self.resync_code = code

    # looking

    def find(self, path: str) -> SimItem | None:
        at: SimItem | None = self.root
        for name in filter(None, path.split("/")):
            at = self._child(at.id, name) if at else None
        return at

    def living(self, item_id: str) -> SimItem | None:
        item = self.root if item_id == ROOT_NAME else self.items.get(item_id)
        return None if item is None or item.deleted else item

    def children(self, item_id: str) -> list[SimItem]:
        return sorted((i for i in self.items.values() if i.parent == item_id and not i.deleted), key=lambda item: item.name)

    def path(self, item: SimItem) -> str:
        """Of the folder it lies in, as in ``parentReference.path``: percent-encoded, from the drive's root."""
        names: list[str] = []
        at = self.items.get(item.parent or "")
        while at is not None and at.parent is not None:
            names.append(quote(at.name))
            at = self.items.get(at.parent)
        return f"/drives/{self.id}/root:" + "".join("/" + name for name in reversed(names))

    def latest(self) -> Span:
        return Span(self.epoch, self._seq, self._seq, False)

    def start(self) -> Span:
        return Span(self.epoch, 0, self._seq, True)

    def page(self, span: Span, size: int) -> Page:
        """The changes of a span, oldest first. A span whose end is its beginning goes up to now."""
        upto = span.upto if span.upto > span.after or span.full else self._seq
        items: list[SimItem] = []
        at = bisect_right(self._log, span.after, key=lambda entry: entry[0])
        while at < len(self._log) and self._log[at][0] <= upto:
            seq, item_id = self._log[at]
            item = self.items[item_id]
            if item.seq == seq and not (span.full and item.deleted):
                if len(items) == size:
                    return Page(items, Span(span.epoch, items[-1].seq, upto, span.full), self.latest())
                items.append(item)
            at += 1
        return Page(items, None, Span(span.epoch, upto, upto, False))

    def facet(self, item: SimItem, *, in_delta: bool = False) -> dict[str, Any]:
        """An item as JSON. A delta leaves out ``cTag``, the path of the parent and, of what is deleted, the name."""
        told: dict[str, Any] = {
            "id": item.id,
            "name": item.name,
            "eTag": f'"{{{item.id}}},{item.tags}"',
            "createdDateTime": _iso(item.created),
            "lastModifiedDateTime": _iso(item.modified),
            "webUrl": f"https://simulated.example/{quote(item.name)}",
            "size": len(item.content or b""),
            "parentReference": {"driveId": self.id, "driveType": self.type, **({"id": item.parent} if item.parent else {})},
            **item.facets,
        }
        if item.is_folder:
            told["folder"] = {"childCount": 0 if in_delta else len(self.children(item.id))}
        elif "package" not in item.facets:
            told["file"] = {"mimeType": "text/plain", "hashes": {"quickXorHash": _hash(item.content or b"")}}
        if item.parent is None:
            told["root"] = {}
        if not in_delta:
            told["parentReference"]["path"] = self.path(item)
            if not item.is_folder:
                told["cTag"] = f'"c:{{{item.id}}},{item.contents}"'
        if item.deleted:
            told["deleted"] = {"state": "deleted"}
            del told["name"]
        return told

    def _child(self, parent: str, name: str) -> SimItem | None:
        return next((i for i in self.items.values() if i.parent == parent and i.name == name and not i.deleted), None)

    def _make(self, name: str, parent: str | None, content: bytes | None, facets: dict[str, Any] | None = None) -> SimItem:
        self._made += 1
        item_id = "01" + base64.b32encode(sha256(f"{self.id}/{self._made}".encode()).digest())[:32].decode()
        now = datetime.now(UTC)
        item = self.items[item_id] = SimItem(item_id, name, parent, content, now, now, facets=facets or {})
        self._note(item)
        return item

    def _touch(self, item: SimItem) -> None:
        item.tags, item.modified = item.tags + 1, datetime.now(UTC)
        self._note(item)

    def _note(self, item: SimItem) -> None:
        self._seq += 1
        item.seq = self._seq
        self._log.append((self._seq, item.id))


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _hash(content: bytes) -> str:
    return base64.b64encode(sha256(content).digest()[:20]).decode()


def parse_time(text: Any) -> datetime:
    """An ``expirationDateTime``. ValueError."""
    at = datetime.fromisoformat(cast("str", text).replace("Z", "+00:00"))
    if at.tzinfo is None:
        raise ValueError("has no time zone")
    return at
