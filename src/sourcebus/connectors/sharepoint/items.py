"""A driveItem, as far as it matters here: what it is, where it lies, and how its state is told apart.

Version = content tag and place; fingerprint = eTag and place. Why: docs/decisions/0022-sharepoint-versions.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, cast
from urllib.parse import unquote

JsonItem = Mapping[str, Any]

SELECT = "id,name,eTag,size,file,folder,package,bundle,remoteItem,deleted,root,parentReference,createdDateTime"
"""The properties that a listing needs."""

_DEEPEST = 500
"""More levels than a path of 400 characters, SharePoint's longest, can have."""


def facet(item: JsonItem, name: str) -> Mapping[str, Any]:
    """A property that is an object itself; {} where the item has none."""
    found = item.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def parent_of(item: JsonItem) -> str | None:
    """The id of the folder that the item lies in."""
    return facet(item, "parentReference").get("id")


def is_deleted(item: JsonItem) -> bool:
    return "deleted" in item or "@removed" in item


def is_folder(item: JsonItem) -> bool:
    return "folder" in item and "package" not in item


def is_file(item: JsonItem) -> bool:
    """A file's own bytes are here: not those of a notebook (package), a link into another drive (remoteItem), a bundle."""
    return "file" in item and not any(facet in item for facet in ("folder", "package", "remoteItem", "bundle", "root"))


def folder_of(item: JsonItem) -> str | None:
    """The path of the folder that the item lies in, from the drive's root; "" is the root. None: the item does not say."""
    path = facet(item, "parentReference").get("path")
    if not isinstance(path, str) or "root:" not in path:
        return "" if "root" in item else None
    return unquote(path.partition("root:")[2]).strip("/")


def path_of(item: JsonItem) -> str:
    """Where the item lies, with its name, from the drive's root."""
    return f"{folder_of(item) or ''}/{item.get('name', '')}".lstrip("/")


def version_of(item: JsonItem) -> str:
    hashes = facet(facet(item, "file"), "hashes")
    tag = (
        item.get("cTag") or hashes.get("quickXorHash") or hashes.get("sha256Hash") or hashes.get("sha1Hash") or item.get("eTag")
    )
    return f"{tag}|{_digest(path_of(item))}"


def fingerprint_of(item: JsonItem, path: str | None = None) -> str | None:
    """`path` where the item itself does not say it."""
    tag = item.get("eTag")
    return f"{tag}|{_digest(path_of(item) if path is None else path)}" if tag else None


def _digest(path: str) -> str:
    return sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Paths:
    """The folders of one drive, during one listing: delta names an item's parent by its id only.

    `fetch` asks for a folder that the listing has not shown (yet), once each.
    """

    def __init__(self, fetch: Callable[[str], JsonItem | None]) -> None:
        self._fetch = fetch
        self._folders: dict[str, tuple[str, str | None]] = {}
        self._fetched: dict[str, str | None] = {}

    def learn(self, folder: JsonItem) -> None:
        parent = None if "root" in folder else parent_of(folder)
        if parent == folder["id"]:  # no drive of Microsoft's, but a server that is like one may say so of its root
            parent = None
        self._folders[folder["id"]] = ("" if parent is None else str(folder.get("name", "")), parent)

    def of(self, item: JsonItem) -> str | None:
        """The item's path with its name; None if a folder above it is not there any more."""
        names, at = [str(item.get("name", ""))], parent_of(item)
        for _ in range(_DEEPEST):
            if at not in self._folders:
                break
            name, at = self._folders[at]
            if at is None:
                return "/".join(reversed(names))
            names.append(name)
        above = self._above(at) if isinstance(at, str) else None
        return None if above is None else "/".join([*filter(None, [above]), *reversed(names)])

    def _above(self, folder_id: str) -> str | None:
        if folder_id not in self._fetched:
            folder = self._fetch(folder_id)
            self._fetched[folder_id] = None if folder is None else "" if "root" in folder else path_of(folder)
        return self._fetched[folder_id]
