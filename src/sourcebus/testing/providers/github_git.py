"""Git's objects in memory, named as git names them: blobs, trees, commits and the branches that point to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

FILE, LINK, TREE = "100644", "120000", "040000"

Files = dict[str, tuple[str, str]]
"""Path → mode and blob."""


class Line(NamedTuple):
    """One entry of a tree. `kind` is blob or tree."""

    name: str
    mode: str
    kind: str
    sha: str


@dataclass(frozen=True, slots=True)
class Commit:
    sha: str
    parents: tuple[str, ...]
    tree: str
    message: str


@dataclass
class Git:
    """One repository's objects. Nothing is ever collected: what no branch reaches stays readable, as at GitHub for a while."""

    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    trees: dict[str, list[Line]] = field(default_factory=dict[str, list[Line]])
    commits: dict[str, Commit] = field(default_factory=dict[str, Commit])
    branches: dict[str, str] = field(default_factory=dict[str, str])

    def blob(self, data: bytes) -> str:
        sha = _name("blob", data)
        self.blobs[sha] = data
        return sha

    def commit(self, files: Files, parents: tuple[str, ...], message: str) -> Commit:
        tree = self._tree(files)
        sha = _name("commit", f"tree {tree}\nparents {parents}\n\n{message} {len(self.commits)}".encode())
        self.commits[sha] = Commit(sha, parents, tree, message)
        return self.commits[sha]

    def files(self, commit: str | None) -> Files:
        return dict(self._files(self.commits[commit].tree, "")) if commit else {}

    def entries(self, tree: str, prefix: str = "", *, recursive: bool = False) -> Iterator[Line]:
        """A tree's lines, with whole paths; below it too if `recursive`."""
        for line in self.trees[tree]:
            yield line._replace(name=prefix + line.name)
            if recursive and line.kind == "tree":
                yield from self.entries(line.sha, f"{prefix}{line.name}/", recursive=True)

    def reaches(self, commit: str, ancestor: str) -> bool:
        return ancestor in self.history(commit)

    def history(self, commit: str) -> set[str]:
        seen, todo = set[str](), [commit]
        while todo:
            sha = todo.pop()
            if sha not in seen:
                seen.add(sha)
                todo += self.commits[sha].parents
        return seen

    def merge_base(self, one: str, other: str) -> str | None:
        theirs, todo = self.history(other), [one]
        while todo:
            sha = todo.pop(0)
            if sha in theirs:
                return sha
            todo += self.commits[sha].parents
        return None

    def _files(self, tree: str, prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
        for line in self.entries(tree, prefix, recursive=True):
            if line.kind == "blob":
                yield line.name, (line.mode, line.sha)

    def _tree(self, files: Files) -> str:
        here: list[Line] = []
        below: dict[str, Files] = {}
        for path, entry in files.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = entry
            else:
                here.append(Line(name, entry[0], "blob", entry[1]))
        here += [Line(name, TREE, "tree", self._tree(inside)) for name, inside in below.items()]
        here.sort(key=lambda line: (line.name + "/" * (line.kind == "tree")).encode())
        written = b"".join(f"{line.mode.lstrip('0')} {line.name}\0".encode() + bytes.fromhex(line.sha) for line in here)
        sha = _name("tree", written)
        self.trees[sha] = here
        return sha


def compared(old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]]) -> list[dict[str, str]]:
    """The differences as GitHub's compare API tells them; a file that turned up elsewhere unchanged was renamed."""
    gone = {path: sha for path, (_mode, sha) in old.items() if path not in new}
    told: list[dict[str, str]] = []
    for path, (_mode, sha) in sorted(new.items()):
        if path not in old:
            before = next((name for name, was in gone.items() if was == sha), None)
            if before is None:
                told.append({"filename": path, "status": "added", "sha": sha})
            else:
                del gone[before]
                told.append({"filename": path, "status": "renamed", "sha": sha, "previous_filename": before})
        elif old[path] != new[path]:
            told.append({"filename": path, "status": "modified", "sha": sha})
    return told + [{"filename": path, "status": "removed", "sha": sha} for path, sha in gone.items()]


def _name(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
