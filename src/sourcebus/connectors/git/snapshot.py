"""The files of one commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sourcebus.connectors.git.mirror import Entry
from sourcebus.connectors.patterns import Selection
from sourcebus.model import MAX_REF_BYTES


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The objects of a commit: path → blob id. `commit` None: a repository without any commit."""

    commit: str | None
    files: Mapping[str, str]

    @classmethod
    def of(cls, commit: str, entries: Iterable[Entry], selection: Selection) -> Snapshot:
        return cls(commit, {path: blob for path, blob in selected(entries, selection) if blob is not None})

    def then(self, commit: str, entries: Iterable[Entry], selection: Selection) -> Snapshot:
        """The snapshot of another commit, by what differs."""
        files = dict(self.files)
        for path, blob in selected(entries, selection):
            if blob is None:
                files.pop(path, None)
            else:
                files[path] = blob
        return Snapshot(commit, files)


EMPTY = Snapshot(None, {})


def selected(entries: Iterable[Entry], selection: Selection) -> Iterable[Entry]:
    """Those that are objects of this source."""
    return (entry for entry in entries if selection.selects(entry.path) and len(_bytes(entry.path)) <= MAX_REF_BYTES)


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")
