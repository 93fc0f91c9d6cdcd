"""The files of one branch: which there are, which changed between two commits, and what is in one.

An object is a blob at a path; its version is the blob's SHA, which git makes of the content. A symbolic link is an object whose
version only GitHub's contents API tells (it resolves links); a submodule is none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

from sourcebus.connectors.documents import document
from sourcebus.connectors.github.repository import Repository
from sourcebus.connectors.github.settings import CONTENTS, Settings, can_be
from sourcebus.errors import CursorExpired, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Change, ChangeKind, Extraction, JsonObject

PREFIX = f"{CONTENTS}/"

_MOST_COMPARED = 300
"""GitHub's compare API names at most this many files, and does not say when there were more."""

_LINK = "120000"
_LFS = b"version https://git-lfs.github.com/spec/"
_RAW = "application/vnd.github.raw+json"


class Entry(NamedTuple):
    """A line of a git tree. `path` is from the root, with a slash at the end for a subtree."""

    path: str
    mode: str
    sha: str

    def change(self) -> Change:
        return Change(PREFIX + self.path, version=None if self.mode == _LINK else self.sha)


class Contents:
    """The files of `settings.branch` that its patterns take."""

    def __init__(self, repository: Repository, settings: Settings) -> None:
        self._repository, self._settings, self._takes = repository, settings, settings.takes()

    # listing

    def list(self, state: JsonObject, scope: str) -> Iterator[Change | JsonObject]:
        """What changed since `state`, and the states to go on from: ``{"head": commit}``, and ``after`` within a long listing.

        Without ``head`` everything there is. Raises `CursorExpired` before it yields anything.
        """
        below = scope.removeprefix(PREFIX)
        if "after" in state:
            yield from self._walk_all(state["head"], below, state["after"])
        else:
            head = self._head()
            if state.get("head") is None:
                yield from self._everything(head, below)
            elif head != state["head"]:
                yield from self._between(state["head"], head, below)
            yield {"head": head}
            return
        yield {"head": state["head"]}

    def _head(self) -> str | None:
        """The branch's commit. None: the repository is empty, or the branch was deleted."""
        branch = self._settings.branch or str(self._repository.home()["default_branch"])
        try:
            told = self._repository.read(f"git/ref/heads/{quote(branch)}", accept=(409,))
        except ObjectGone as gone:
            self._repository.confirm_gone(CONTENTS, gone)
            return None
        return None if told.status == 409 else str(told.json()["object"]["sha"])

    def _everything(self, head: str | None, below: str) -> Iterator[Change | JsonObject]:
        if head is None:
            return
        whole = self._whole(head)
        if whole is None:
            yield from self._walk_all(head, below, "")
            return
        yield from (entry.change() for entry in whole if self._wanted(entry.path, below))

    def _between(self, old: str, new: str | None, below: str) -> Iterator[Change]:
        """Exactly what differs. A push that only added commits is compared by GitHub, any other one (rewritten history, very
        many files) by the two trees."""
        if new is not None and (files := self._compared(old, new)) is not None:
            yield from (
                change for file in files for change in _changes(file) if self._wanted(change.object_ref[len(PREFIX) :], below)
            )
            return
        for path, entry in self._differing(old, new, ""):
            if self._wanted(path, below):
                yield Change(PREFIX + path, ChangeKind.DELETED) if entry is None else entry.change()

    def _compared(self, old: str, new: str) -> list[Any] | None:
        try:
            told = self._repository.read(f"compare/{old}...{new}", params={"per_page": 1}).json()
        except ObjectGone:
            return None
        files: list[Any] = told.get("files") or []
        # Three dots compare with the merge base: only where that is `old` itself it is what changed since `old`.
        return files if told["status"] == "ahead" and len(files) < _MOST_COMPARED else None

    def _differing(self, old: str, new: str | None, prefix: str) -> Iterator[tuple[str, Entry | None]]:
        before = self._old_tree(old)
        after = self._whole(new) if new is not None else []
        if before is not None and after is not None:
            yield from _differences({entry.path: entry for entry in before}, {entry.path: entry for entry in after})
        else:
            yield from self._descend(old, new, prefix)

    def _old_tree(self, sha: str) -> list[Entry] | None:
        try:
            return self._whole(sha)
        except ObjectGone as error:
            raise CursorExpired(f"the commit {sha} of the last listing is not there any more") from error

    def _descend(self, old: str | None, new: str | None, prefix: str) -> Iterator[tuple[str, Entry | None]]:
        """The differences of two trees too large to be had whole: level by level, and only where they differ."""
        before = {entry.path: entry for entry in (self._level(old, prefix) if old else [])}
        after = {entry.path: entry for entry in (self._level(new, prefix) if new else [])}
        for path, entry in _differences(before, after):
            if not path.endswith("/"):
                yield path, entry
            elif self._takes.enters(path[:-1]):
                was, now = before.get(path), after.get(path)
                yield from self._descend(was.sha if was else None, now.sha if now else None, path)

    def _walk_all(self, head: str, below: str, after: str) -> Iterator[Change | JsonObject]:
        """Everything of a tree too large to be had whole, directory by directory in the order of their paths, with a state
        after each. `after`: the directory that was listed last."""
        todo = [Entry("", "", head)]
        while todo:
            directory = todo.pop()
            entries = self._level(directory.sha, directory.path)
            subtrees = [entry for entry in entries if entry.path.endswith("/") and self._takes.enters(entry.path[:-1])]
            todo += sorted((tree for tree in subtrees if _ahead(tree.path, after)), reverse=True)
            files = [entry for entry in entries if not entry.path.endswith("/")]
            yield from (entry.change() for entry in files if self._wanted(entry.path, below))
            yield {"head": head, "after": max(directory.path, after)}

    def _whole(self, sha: str) -> list[Entry] | None:
        """All files below a tree; None where GitHub cuts the answer (100,000 entries, 7 MB)."""
        told = self._repository.read(f"git/trees/{sha}", params={"recursive": "1"}).json()
        return None if told.get("truncated") else [entry for entry in _entries(told, "") if not entry.path.endswith("/")]

    def _level(self, sha: str, prefix: str) -> list[Entry]:
        told = self._repository.read(f"git/trees/{sha}").json()
        if told.get("truncated"):
            raise SourceUnavailable(
                f"GitHub cuts the listing of the single directory {prefix or '/'!r}: it cannot be listed whole"
            )
        return list(_entries(told, prefix))

    def _wanted(self, path: str, below: str) -> bool:
        return path.startswith(below) and self.selects(path)

    # one object

    def version(self, path: str) -> str | None:
        found = self._read(path)
        return str(found["sha"]) if found else None

    def extract(self, path: str) -> Extraction:
        found = self._read(path)
        if found is None:
            raise ObjectGone(f"{PREFIX}{path} is no file of the branch")
        sha, size = str(found["sha"]), int(found["size"])
        try:
            if size > self._settings.max_bytes:
                raise ObjectUnreadable("too_large", f"is {size} bytes long, more than {self._settings.max_bytes}")
            data = self._bytes(found)
            if data.startswith(_LFS) and size < 1024:
                raise ObjectUnreadable("lfs", "is kept in Git LFS; the repository has only a pointer to it")
            read = document(path.rsplit("/", 1)[-1], data)
        except ObjectUnreadable as error:
            raise ObjectUnreadable(error.reason, error.detail, version=sha) from error
        return Extraction([replace(read, metadata={**read.metadata, "path": path, "url": found.get("html_url")})], sha)

    def selects(self, path: str) -> bool:
        """Whether this path can be an object: the patterns take it, and git allows the name (git-fast-import(1), `path`)."""
        named = all(part not in ("", ".", "..") for part in path.split("/")) and "\0" not in path
        return named and can_be(PREFIX + path) and self._takes.selects(path)

    def _read(self, path: str) -> Any | None:
        """The contents API's word on a path; None where no file is there."""
        if not self.selects(path):
            return None
        try:
            found = self._at(path)
        except ObjectGone as gone:
            self._repository.confirm_gone(CONTENTS, gone)
            return None
        except ObjectUnreadable as error:
            if error.reason != "too_large":
                raise
            found = self._beside(path)
        return found if isinstance(found, dict) and found.get("type") == "file" else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  a directory is a list

    def _at(self, path: str) -> Any:
        params = {"ref": self._settings.branch} if self._settings.branch else None
        return self._repository.read(f"contents/{quote(path)}".rstrip("/"), params=params).json()

    def _beside(self, path: str) -> Any | None:
        """What the directory says of a file over 100 MB, which the contents API itself says nothing of."""
        entries = self._at(path.rpartition("/")[0])
        return next((entry for entry in entries if entry["path"] == path), None)

    def _bytes(self, found: JsonObject) -> bytes:
        """The file's bytes: with the answer up to 1 MB, else from its blob."""
        if found.get("encoding") == "base64" and (found["content"] or found["size"] == 0):
            try:
                return base64.b64decode(found["content"])
            except (binascii.Error, ValueError) as error:
                raise SourceUnavailable("GitHub's answer is no base64") from error
        return self._repository.read(f"git/blobs/{found['sha']}", media_type=_RAW).body


def _entries(told: JsonObject, prefix: str) -> Iterator[Entry]:
    """The files and subtrees of a tree; a submodule (``commit``) is neither."""
    for line in told["tree"]:
        if line["type"] == "blob":
            yield Entry(prefix + line["path"], line["mode"], line["sha"])
        elif line["type"] == "tree":
            yield Entry(f"{prefix}{line['path']}/", line["mode"], line["sha"])


def _differences(before: dict[str, Entry], after: dict[str, Entry]) -> Iterator[tuple[str, Entry | None]]:
    """Each path that differs, with what it is now; None: it is gone."""
    yield from ((path, entry) for path, entry in after.items() if before.get(path) != entry)
    yield from ((path, None) for path in before if path not in after)


def _changes(file: JsonObject) -> Iterator[Change]:
    """What one file of a comparison means: a rename is two objects."""
    status, ref = file["status"], PREFIX + file["filename"]
    if status == "renamed":
        yield Change(PREFIX + file["previous_filename"], ChangeKind.DELETED)
    if status == "removed":
        yield Change(ref, ChangeKind.DELETED)
    elif status != "unchanged":
        kind = ChangeKind.UPDATED if status in ("modified", "changed") else ChangeKind.CREATED
        yield Change(ref, kind, version=file.get("sha"))


def _ahead(directory: str, after: str) -> bool:
    """Whether a directory is still to be listed: it comes after the one listed last, or holds it, or is it."""
    return directory > after or after.startswith(directory)
