"""Linux inotify through libc: whole trees, excluded directories left out, links never followed, no event lost in silence.

watchfiles, which sits on the same kernel interface, drops the kernel's "queue overflowed", stops for good at the first name
that is not UTF-8, follows links out of the root, and watches what is excluded too (see docs/connectors/filesystem.md).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Mask:
    """Bits of ``sys/inotify.h``; see inotify(7). Plain integers: a storm tests millions of them."""

    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x1000000
    DONT_FOLLOW = 0x2000000
    EXCL_UNLINK = 0x4000000
    ISDIR = 0x40000000


_WANTED = (
    Mask.MODIFY | Mask.ATTRIB | Mask.CLOSE_WRITE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.CREATE | Mask.DELETE
    | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR | Mask.EXCL_UNLINK
)  # fmt: skip
_ROOT_LOST = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED
_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 18


class Event(NamedTuple):
    """`ref` is the path below the root of what `mask` happened to. OVERFLOW: events were lost; IGNORED: the root is."""

    mask: int
    ref: str


class LimitReached(Exception):
    """The kernel grants no further watch or instance (``fs.inotify.max_user_watches``, ``max_user_instances``)."""


class _Directory:
    """A watched directory: its place in the tree, so that a path is never stored twice and moves with its parent."""

    __slots__ = ("children", "name", "parent", "wd")

    def __init__(self, name: str, parent: _Directory | None, wd: int) -> None:
        self.name, self.parent, self.wd = name, parent, wd
        self.children: dict[str, _Directory] = {}

    def path(self) -> str:
        names: list[str] = []
        at = self
        while at.parent is not None:
            names.append(at.name)
            at = at.parent
        return "/".join(reversed(names))


class Inotify:
    """The events of one tree. `enters(ref)` says which directories are watched. Not thread-safe.

    Raises `LimitReached` where no instance is granted, `OSError` where the root cannot be watched. With `limited` set, some
    directories are without a watch.
    """

    def __init__(self, root: str, enters: Callable[[str], bool]) -> None:
        self.root, self.limited = root, False
        self._enters = enters
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
        self._by_wd: dict[int, _Directory] = {}
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise LimitReached(os.strerror(ctypes.get_errno()))
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        try:
            self._root = _Directory("", None, self._add("", follow=True))
            self._by_wd[self._root.wd] = self._root
            self._descend(self._root)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._by_wd)

    def wait(self, timeout_ms: float) -> bool:
        """Whether events are there, at the latest after `timeout_ms`; 0 or less looks without waiting."""
        return bool(self._poll.poll(max(0.0, timeout_ms)))  # poll(2) takes a negative time for "for ever"

    def read(self) -> Iterator[Event]:
        """The events that are there now. A new directory is already watched, with all below it, when its event comes."""
        try:
            data = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            wd, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            event = self._event(wd, mask, name)
            if event is not None:
                yield event

    def _event(self, wd: int, mask: int, name: str) -> Event | None:
        if mask & Mask.OVERFLOW:
            return Event(Mask.OVERFLOW, "")
        directory = self._by_wd.get(wd)
        if directory is None:
            return None  # queued before its watch was taken away
        if not name:
            return self._of_itself(directory, mask)
        if mask & Mask.ISDIR and not self._follow(directory, mask, name):
            return None
        path = directory.path()
        return Event(mask, f"{path}/{name}" if path else name)

    def _of_itself(self, directory: _Directory, mask: int) -> Event | None:
        if directory is self._root:
            return Event(Mask.IGNORED, "") if mask & _ROOT_LOST else None
        if mask & (Mask.IGNORED | Mask.UNMOUNT):
            lost = directory.path()
            self._forget(directory)
            return Event(Mask.DELETE | Mask.ISDIR, lost)
        return None

    def _follow(self, parent: _Directory, mask: int, name: str) -> bool:
        """Keep the watches in step with what happened to a directory. False if nothing below it can have changed."""
        known = parent.children.get(name)
        if mask & (Mask.DELETE | Mask.MOVED_FROM | Mask.CREATE | Mask.MOVED_TO):
            if known is not None:
                self._forget(known)
            if mask & (Mask.CREATE | Mask.MOVED_TO):
                self._place(parent, name)
            return True
        if known is None:  # its permissions changed: perhaps it can be watched now
            self._place(parent, name)
            return name in parent.children
        return False

    def _place(self, parent: _Directory, name: str) -> None:
        """Watch a directory and all below it. What appears meanwhile is seen by the watch, the listing, or both."""
        child = self._adopt(parent, name)
        if child is not None:
            self._descend(child)

    def _descend(self, top: _Directory) -> None:
        pending = [top]
        while pending and not self.limited:
            directory = pending.pop()
            for name in self._subdirectories(directory.path()):
                child = self._adopt(directory, name)
                if child is not None:
                    pending.append(child)

    def _adopt(self, parent: _Directory, name: str) -> _Directory | None:
        path = parent.path()
        ref = f"{path}/{name}" if path else name
        if not self._enters(ref):
            return None
        try:
            wd = self._add(ref)
        except LimitReached:
            self.limited = True
            return None
        except OSError:
            return None  # gone again, or not readable: a listing will say so
        if wd in self._by_wd:
            self._detach(self._by_wd[wd])  # moved here from elsewhere in the tree
        child = parent.children[name] = self._by_wd[wd] = _Directory(name, parent, wd)
        return child

    def _add(self, ref: str, *, follow: bool = False) -> int:
        mask = _WANTED if follow else _WANTED | Mask.DONT_FOLLOW
        path = f"{self.root}/{ref}"
        wd: int = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if wd < 0:
            number = ctypes.get_errno()
            if number in (errno.ENOSPC, errno.ENOMEM):
                raise LimitReached(os.strerror(number))
            raise OSError(number, os.strerror(number), path)
        return wd

    def _subdirectories(self, ref: str) -> list[str]:
        try:
            with os.scandir(f"{self.root}/{ref}") as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def _forget(self, directory: _Directory) -> None:
        """Take away the watches of a directory and all below it."""
        self._detach(directory)
        pending = [directory]
        while pending:
            gone = pending.pop()
            pending.extend(gone.children.values())
            if self._by_wd.get(gone.wd) is gone:
                del self._by_wd[gone.wd]
                self._libc.inotify_rm_watch(self._fd, gone.wd)  # EINVAL where the kernel was first

    def _detach(self, directory: _Directory) -> None:
        parent = directory.parent
        if parent is not None and parent.children.get(directory.name) is directory:
            del parent.children[directory.name]
