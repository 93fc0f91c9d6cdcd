"""A bare copy of one branch on this machine: its newest commit only, without the blobs that are too large to read.

Shared by all processes and sources that name the same repository, branch and size limit. One of them fetches at a time;
reading needs no lock, because git only ever adds to a repository. What is damaged, or has grown by many fetches, is replaced
as a whole.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from sourcebus.connectors.git.command import Git, GitFailed, meaning
from sourcebus.errors import CursorExpired, NeedsAuth, SourceUnavailable, Throttled

_log = structlog.get_logger(__name__)

MOST_PACKS = 200
"""Every fetch adds a pack. With more the mirror is made anew, which also drops what no branch has any more."""

GROWTH_BYTES = 256_000_000
"""The same, once it is more than twice as large as it began, and larger by this."""

_HEAD = "refs/sourcebus/head"
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BLOB_MODES = (b"100644", b"100755", b"100664")

_PACKS = "sourcebus-packs"
_NOT_GIVEN = ("not our ref", "unadvertised object", "no such remote ref", "find remote ref")

T = TypeVar("T")


class Entry(NamedTuple):
    """A file in a tree, or one that left it (`blob` None)."""

    path: str
    blob: str | None


class Mirror:
    """The copy below `place`. Any thread, any process."""

    def __init__(self, git: Git, place: Path, *, ref: str, max_bytes: int, max_mirror_bytes: int, timeout_s: float) -> None:
        self._git, self._place, self._ref = git, place, ref
        self._max_bytes, self._max_mirror_bytes, self._timeout_s = max_bytes, max_mirror_bytes, timeout_s
        self._repository = place / "repo.git"

    def head(self) -> str | None:
        """The commit fetched last, None if there is none (or none that can be read)."""
        try:
            found = (
                self._git.local(self._repository, "rev-parse", "--verify", "--quiet", f"{_HEAD}^{{commit}}").decode().strip()
            )
        except GitFailed:
            return None
        return found if _COMMIT.fullmatch(found) else None

    def fetch(self, wanted: str) -> tuple[str, int]:
        """Bring the branch here, unless it is. Answers the commit that is here now (`wanted`, or one that came after it),
        and how often the server was asked."""
        with self._alone():
            here = self.head()
            if here == wanted:
                return wanted, 0
            if here is not None and self._is_whole() and not self._is_overgrown():
                try:
                    return self._fetch_head(self._repository, wanted), 1
                except GitFailed as failed:
                    _raise_if_said_by_server(failed)
                    _log.warning("connectors.mirror_remade", place=str(self._place), why=str(failed))
            return self._remake(wanted), 1

    def remake(self, commit: str) -> None:
        """Reading `commit` from the copy failed: have it anew, unless somebody else just did."""
        with self._alone():
            if self._is_whole() and self._is_sound(commit):
                return
            _log.warning("connectors.mirror_remade", place=str(self._place), why="it is damaged")
            self._remake(commit)

    def has(self, commit: str) -> bool:
        """Whether this commit and its whole tree are here."""
        return _COMMIT.fullmatch(commit) is not None and self._is_sound(commit)

    def bring(self, commit: str) -> None:
        """Fetch one more commit, by its id. Raises `CursorExpired` if the server does not give it."""
        with self._alone():
            try:
                self._fetch_into(self._repository, commit, "refs/sourcebus/before")
            except GitFailed as failed:
                _raise_if_said_by_server(failed)
                raise CursorExpired(f"commit {commit[:12]} is not to be had any more: {failed}") from failed

    def files(self, commit: str) -> Iterator[Entry]:
        """Every file of a commit. Symbolic links and submodules are none."""
        listed = self._git.local(self._repository, "ls-tree", "-r", "-z", "--full-tree", commit)
        for line in listed.split(b"\0")[:-1]:
            about, _, path = line.partition(b"\t")
            mode, _kind, oid = about.split()
            if mode in _BLOB_MODES:
                yield Entry(path.decode("utf-8", "surrogateescape"), oid.decode())

    def difference(self, before: str, after: str) -> Iterator[Entry]:
        """What differs between two commits, whichever way history went: a rename is one path gone and one there."""
        args = ("-r", "-z", "--raw", "--no-renames", "--no-ext-diff", "--no-abbrev", before, after, "--")
        parts = self._git.local(self._repository, "diff-tree", *args).split(b"\0")
        for about, path in zip(parts[0:-1:2], parts[1::2], strict=True):
            _before, mode, _oid, oid, _status = about.split()
            yield Entry(path.decode("utf-8", "surrogateescape"), oid.decode() if mode in _BLOB_MODES else None)

    def blob(self, oid: str) -> bytes | int | None:
        """A blob's bytes; its size where that is over the limit; None where it was too large to be fetched."""
        found = self._git.blob(self._repository, oid, self._max_bytes)
        if found is None and not self._is_whole():
            raise GitFailed("cat-file", f"{oid} is missing, and so are packs")
        return found

    @contextmanager
    def _alone(self) -> Generator[None]:
        """While the block runs, nobody else on this machine changes the mirror."""
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            lock = (self._place / "lock").open("w")
        except OSError as error:
            raise SourceUnavailable(f"the mirror cannot be kept: {error}. Set config.cache_dir to a place to write") from error
        with lock:
            ends_s = time.monotonic() + self._timeout_s
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > ends_s:
                        raise SourceUnavailable("another process has been fetching for too long") from None
                    time.sleep(0.02)
            yield

    def _is_sound(self, commit: str) -> bool:
        try:
            self._git.local(self._repository, "ls-tree", "-r", "-z", "--full-tree", commit)
        except GitFailed:
            return False
        return True

    def _is_whole(self) -> bool:
        """Whether every pack that was fetched is here, as long as it was. Tells what was lost from what was left out."""
        try:
            noted = (self._repository / _PACKS).read_text("utf-8").splitlines()
        except OSError:
            return False
        return set(noted) <= set(_packs(self._repository))

    def _is_overgrown(self) -> bool:
        packs, size_bytes = _weight(self._repository)
        try:
            began_bytes = int((self._repository / "sourcebus-bytes").read_text("ascii"))
        except (OSError, ValueError):
            began_bytes = 0
        return packs > MOST_PACKS or size_bytes > max(2 * began_bytes, began_bytes + GROWTH_BYTES)

    def _remake(self, wanted: str) -> str:
        for left in self._place.glob("new-*"):  # of a process that died
            shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=self._place))
        try:
            try:
                self._git.local(fresh, "init", "--quiet", "--bare", "--template=")
                head = self._fetch_head(fresh, wanted)
            except GitFailed as failed:
                raise meaning(failed) from failed
            (fresh / "sourcebus-bytes").write_text(str(_weight(fresh)[1]), "ascii")
            if self._repository.exists():
                self._repository.rename(fresh / "replaced")
            fresh.rename(self._repository)
            shutil.rmtree(self._repository / "replaced", ignore_errors=True)
            return head
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _fetch_head(self, repository: Path, wanted: str) -> str:
        """By its id, so that a server of several machines cannot hand out an older state than the one it told of."""
        try:
            return self._fetch_into(repository, wanted)
        except GitFailed as failed:
            if not any(sign in failed.words for sign in _NOT_GIVEN):
                raise
        return self._fetch_into(repository, self._ref)  # moved again since

    def _fetch_into(self, repository: Path, what: str, into: str = _HEAD) -> str:
        # Told here and not stored, so that only a fetch knows of blobs that the server has and this copy has not:
        # every other command calls them missing instead of asking for them.
        partial = {"remote.origin.promisor": "true", "remote.origin.partialclonefilter": f"blob:limit={self._max_bytes + 1}"}
        plain = ("--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--no-recurse-submodules")

        def watch() -> None:
            if (size_bytes := _weight(repository)[1]) > self._max_mirror_bytes:
                raise SourceUnavailable(
                    f"the branch needs more than {self._max_mirror_bytes} bytes (at {size_bytes} now): set max_mirror_bytes"
                )

        self._git.remote(
            "fetch", *plain, "--", "origin", f"+{what}:{into}", repository=repository, settings=partial, watch=watch
        )
        watch()
        (repository / _PACKS).write_text("\n".join(_packs(repository)), "utf-8")
        return self._git.local(repository, "rev-parse", "--verify", f"{into}^{{commit}}").decode().strip()


def healing(mirror: Mirror, commit: str, read: Callable[[], T]) -> T:
    """What `read` finds in the mirror, which is made anew once if it cannot be read."""
    try:
        return read()
    except GitFailed:
        mirror.remake(commit)
    try:
        return read()
    except GitFailed as failed:
        raise SourceUnavailable(f"the mirror cannot be read: {failed}") from failed


def _raise_if_said_by_server(failed: GitFailed) -> None:
    """A refusal is the server's, and making the mirror anew cannot help; of anything else we do not know whose fault it is."""
    said = meaning(failed)
    if isinstance(said, NeedsAuth | Throttled):
        raise said from failed


def _packs(repository: Path) -> list[str]:
    """Name and length of every pack."""
    with os.scandir(repository / "objects" / "pack") as found:
        return [f"{entry.name} {entry.stat().st_size}" for entry in found if entry.name.endswith(".pack")]


def _weight(repository: Path) -> tuple[int, int]:
    """Number of packs, and bytes of all files among them, half-written ones too."""
    packs = size_bytes = 0
    try:
        with os.scandir(repository / "objects" / "pack") as found:
            for entry in found:
                packs += entry.name.endswith(".pack")
                size_bytes += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        pass  # nothing fetched yet, or replaced while we looked
    return packs, size_bytes
