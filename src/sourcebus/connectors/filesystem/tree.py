"""A directory tree as a source: its objects, reached without ever following a link, and what can be said of each.

Every access starts from a descriptor of the root and takes one name at a time with ``O_NOFOLLOW``, so that neither a link
nor a rename at the wrong moment leads out of the root. Objects are regular files, and FIFOs, sockets and devices as
unreadable ones. Links are no objects: what they point to inside the root is indexed under its own path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from sourcebus.connectors.patterns import Selection, parents
from sourcebus.errors import ConnectorError, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import MAX_REF_BYTES, WHOLE_SOURCE, Change, Cursor

DENIED = "denied"
"""The version of a file that may not be read. Never equal to a hash, so that the file is read once it may be."""

RACY_NS = 100_000_000
"""A file touched less than this ago may change again without a new timestamp: kernels stamp files once per tick (1–10 ms)."""

RACY_WHOLE_SECONDS_NS = 2_100_000_000
"""The same for file systems that keep whole seconds (FAT: two)."""

_CHUNK = 1 << 20
_TRIES = 3
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_SOURCE_DOWN = {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV}

_log = structlog.stdlib.get_logger("sourcebus.connectors.filesystem")


class Content(NamedTuple):
    """What was read of a file: the bytes (empty if only the version was wanted), their hash and the file's stamp.

    `settled` is False for a file that was written to while it was read, each time it was tried. The hash is that of the bytes
    read all the same, so the write's own event finds another one.
    """

    data: bytes
    version: str
    fingerprint: str | None
    settled: bool


class Tree:
    """The objects below `root`. Thread-safe; holds no descriptor between calls."""

    def __init__(self, root: str, selection: Selection, max_bytes: int, *, mounted: bool = False) -> None:
        self.root, self.selection, self.max_bytes = root, selection, max_bytes
        self._mounted = mounted

    @contextmanager
    def opened(self) -> Generator[int]:
        """A descriptor of the root. Raises `SourceUnavailable` where the root is not there, or its mount is gone."""
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            fault = ConnectorError if error.errno in _OURS else SourceUnavailable
            raise fault(f"the root {self.root!r} cannot be opened: {error.strerror}") from error
        try:
            self._check_mount(fd)
            yield fd
        finally:
            os.close(fd)

    def _check_mount(self, fd: int) -> None:
        """An unmounted file system leaves an empty directory behind, which must not pass for an emptied source."""
        here, above = os.fstat(fd), os.stat("..", dir_fd=fd)
        mounted = here.st_dev != above.st_dev or here.st_ino == above.st_ino
        if self._mounted and not mounted:
            raise SourceUnavailable(f"nothing is mounted at the root {self.root!r} (it was, or its config says `mounted`)")
        self._mounted = mounted

    @contextmanager
    def _parent(self, ref: str) -> Generator[tuple[int, str]]:
        """The directory that holds the object, and the object's name in it. Errors are those of `_answer`."""
        *above, name = _names(ref)
        with self.opened() as root, self._answer(ref, root):
            fd = os.dup(root)
            try:
                for directory in above:
                    below = os.open(directory, _STEP, dir_fd=fd)
                    os.close(fd)
                    fd = below
                yield fd, name
            finally:
                os.close(fd)

    @contextmanager
    def _answer(self, ref: str, root: int) -> Generator[None]:
        """Turn what the kernel says of an object into what a connector says."""
        try:
            yield
        except OSError as error:
            if error.errno in _ABSENT:
                if os.fstat(root).st_nlink == 0:
                    raise SourceUnavailable(f"the root {self.root!r} was removed") from error
                raise ObjectGone(f"{ref!r} is not a file below the root: {error.strerror}") from error
            if error.errno in (errno.EACCES, errno.EPERM):
                # No fingerprint: permission may come back without a trace on the file itself, so every listing asks again.
                raise ObjectUnreadable("permission", f"may not be read: {error.strerror}", version=DENIED) from error
            if error.errno in (errno.ENXIO, errno.EAGAIN):
                raise ObjectUnreadable("not_a_file", f"has no content to read: {error.strerror}", version=DENIED) from error
            if error.errno in _SOURCE_DOWN:
                raise SourceUnavailable(f"the file system of {self.root!r} does not answer: {error.strerror}") from error
            raise ConnectorError(f"{ref!r} cannot be read: {error.strerror}") from error

    def status(self, ref: str) -> os.stat_result:
        """The object's own status. Raises `ObjectGone` for what is no object here: absent, excluded, a link, a directory."""
        with self._parent(ref) as (parent, name):
            return self._status(ref, parent, name)

    def _status(self, ref: str, parent: int, name: str) -> os.stat_result:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise ObjectGone(f"{ref!r} is a symbolic link; links are not followed")
        if stat.S_ISDIR(status.st_mode):
            raise ObjectGone(f"{ref!r} is a directory")
        if not self.selection.selects(ref):
            raise ObjectGone(f"{ref!r} is left out by the include and exclude patterns")
        return status

    def read(self, ref: str, *, keep: bool = True) -> Content:
        """Read the file. `version` is the hash of exactly the bytes in `data`; `keep=False` returns the version alone.

        Raises `ObjectGone`, or `ObjectUnreadable` with the reasons ``too_large``, ``not_a_file``, ``permission``.
        """
        with self._parent(ref) as (parent, name):
            # Looked at first: opening a FIFO or a device can wake a writer or rewind a tape.
            self._check(self._status(ref, parent, name))
            fd = os.open(name, _FILE, dir_fd=parent)
            try:
                return self._content(fd, keep)
            finally:
                os.close(fd)

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
            raise ObjectUnreadable(
                "not_a_file", f"is {kind}", version=f"special:{self._stamp(status)}", fingerprint=self.fingerprint(status)
            )
        if status.st_size > self.max_bytes:
            raise self._too_large(status)

    def _too_large(self, status: os.stat_result) -> ObjectUnreadable:
        # Not hashed, which could take hours. Two contents written within one tick may share this version; neither is indexed.
        return ObjectUnreadable(
            "too_large",
            f"has {max(status.st_size, self.max_bytes + 1)} bytes or more, the limit (max_bytes) is {self.max_bytes}",
            version=f"stat:{self._stamp(status)}",
            fingerprint=self.fingerprint(status),
        )

    def _content(self, fd: int, keep: bool) -> Content:
        content = self._content_once(fd, keep)
        for _ in range(_TRIES - 1):
            if content.settled:
                break
            content = self._content_once(fd, keep)
        return content

    def _content_once(self, fd: int, keep: bool) -> Content:
        before = os.fstat(fd)
        self._check(before)
        chunks: list[bytes] = []
        version = self._consume(fd, chunks.append if keep else None)
        after = os.fstat(fd)
        settled = self._stamp(before) == self._stamp(after)
        return Content(b"".join(chunks), version, self.fingerprint(after) if settled else None, settled)

    def _consume(self, fd: int, keep: Callable[[bytes], None] | None) -> str:
        digest, size = hashlib.blake2b(digest_size=16), 0
        os.lseek(fd, 0, os.SEEK_SET)
        while chunk := os.read(fd, _CHUNK):
            size += len(chunk)
            if size > self.max_bytes:
                raise self._too_large(os.fstat(fd))
            digest.update(chunk)
            if keep is not None:
                keep(chunk)
        return digest.hexdigest()

    def _stamp(self, status: os.stat_result) -> str:
        # The limit is in it so that raising the limit makes the listing offer the file again.
        large = "+" if status.st_size > self.max_bytes else ""
        return f"{status.st_size:x}{large}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_ino:x}"

    def fingerprint(self, status: os.stat_result) -> str | None:
        """Size, times and inode; None while a further change could leave all of them as they are ("racy", as git says)."""
        # Only the change time counts: it cannot be set by hand, and every write moves it.
        coarse = status.st_ctime_ns % 1_000_000_000 == 0
        settled = time.time_ns() - status.st_ctime_ns > (RACY_WHOLE_SECONDS_NS if coarse else RACY_NS)
        return self._stamp(status) if settled else None

    def listing(self, scope: str) -> Iterator[Change | Cursor]:
        """Every object below the directory `scope`, or the file `scope` itself; then the `Cursor` that says how it went."""
        scope = scope.rstrip("/")
        failed: list[str] = []
        with self.opened() as root:
            if scope == WHOLE_SOURCE or self._is_directory(scope, failed):
                for ref, status in self._walk(root, scope, failed):
                    yield Change(ref, fingerprint=self.fingerprint(status))
            elif (status := self._lone(scope)) is not None:
                yield Change(scope, fingerprint=self.fingerprint(status))
            self._check_same(root)
        if failed:
            _log.warning(
                "connectors.listing_incomplete",
                root=self.root,
                scope=scope,
                failed=len(failed),
                directories=failed[:10],
                fix="make them readable or exclude them; until then this listing deletes nothing",
            )
        yield Cursor(None, complete=not failed)

    def _is_directory(self, scope: str, failed: list[str]) -> bool:
        """Whether objects can be below `scope`: it is a directory, reached without a link, and not excluded."""
        try:
            with self._parent(scope) as (parent, name):
                is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except ObjectGone:
            return False
        except ObjectUnreadable as error:
            failed.append(f"{scope}: {error.detail}")
            return False
        return is_directory and all(self.selection.enters(directory) for directory in [*parents(scope), scope])

    def _lone(self, ref: str) -> os.stat_result | None:
        try:
            return self.status(ref)
        except (ObjectGone, ObjectUnreadable):
            return None

    def _check_same(self, root: int) -> None:
        """The root that was listed is still the one at its path; else what is missing may only have moved."""
        try:
            same = os.path.samestat(Path(self.root).stat(), os.fstat(root))
        except OSError:
            same = False
        if not same:
            raise SourceUnavailable(f"the root {self.root!r} was removed or replaced while it was listed")

    def _walk(self, root: int, scope: str, failed: list[str]) -> Iterator[tuple[str, os.stat_result]]:
        pending = [scope]
        while pending:
            directory = pending.pop()
            try:
                fd = self._open_directory(root, directory)
                if fd is None:
                    continue
                try:
                    yield from self._entries(fd, directory, pending, failed)
                finally:
                    os.close(fd)
            except OSError as error:
                failed.append(f"{directory or '.'}: {error.strerror}")

    def _open_directory(self, root: int, directory: str) -> int | None:
        try:
            return os.open(directory or ".", _DIRECTORY, dir_fd=root)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise

    def _entries(self, fd: int, directory: str, pending: list[str], failed: list[str]) -> Iterator[tuple[str, os.stat_result]]:
        prefix = f"{directory}/" if directory else ""
        with os.scandir(fd) as entries:
            for entry in entries:
                ref = prefix + entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if self.selection.enters(ref):
                            pending.append(ref)
                        continue
                    if entry.is_symlink() or not self.selection.takes(ref) or _too_long(ref):
                        continue
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    failed.append(f"{ref}: {error.strerror}")
                    continue
                yield ref, status


_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _names(ref: str) -> list[str]:
    """The path's names, outermost first. Raises `ObjectGone` for what cannot be a path below the root."""
    names = ref.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise ObjectGone(f"{ref!r} is not a path below the root")
    try:
        os.fsencode(ref)
    except UnicodeEncodeError as error:
        raise ObjectGone(f"{ref!r} is not a name that a file can have") from error
    return names


def _too_long(ref: str) -> bool:
    if len(ref) * 3 <= MAX_REF_BYTES or len(ref.encode("utf-8", "surrogatepass")) <= MAX_REF_BYTES:
        return False
    _log.warning("connectors.path_too_long", path=f"{ref[:200]}…", limit_bytes=MAX_REF_BYTES)
    return True
