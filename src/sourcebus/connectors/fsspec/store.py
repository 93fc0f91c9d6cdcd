"""A filesystem of fsspec's as the connector sees it: listings that are true, and errors that say what to do next.

Filesystems cache listings and share instances; both hide changes, so neither is used. Most are not made for several threads, so
each thread has one of its own.
"""

from __future__ import annotations

import errno
import ftplib
import os
import re
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fsspec import core

from sourcebus.connectors.refs import is_ref, parent_of
from sourcebus.errors import (
    ConnectorError,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
    Throttled,
)

_LOCAL = ("file", "local")
_WITHOUT_FOLDERS = ("s3", "s3a", "gs", "gcs", "abfs", "az", "oss", "memory")
_FTP_UNKNOWN_COMMAND = ("500", "502", "504")
_REFUSED = re.compile(
    r"\bauth(entication|orization)?\b|AuthenticationException|login (incorrect|failed)|credentials?\b|access ?denied"
    r"|\bforbidden\b|\b(401|403|530)\b|SignatureDoesNotMatch",
    re.IGNORECASE,
)
_THROTTLED = re.compile(r"\b429\b|slow.?down|too many|throttl|rate.?limit|request limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A name below the root. `kind`: ``file``, ``directory``, or anything else that cannot be read."""

    ref: str
    kind: str
    info: Mapping[str, Any]

    @property
    def size(self) -> int | None:
        size = self.info.get("size")
        return int(size) if isinstance(size, int | float) else None


@dataclass
class _Opened:
    """One thread's filesystem, and the path of the root in it."""

    fs: Any
    root: str


class Store:
    """What is below `url`. `options` are the filesystem's own, secrets included; they are never shown."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url, self._options = url, dict(options)
        self.protocol = url.partition("://")[0].partition("::")[0]
        self._mine = threading.local()

    def entries(self, collection: str) -> list[Entry]:
        """What is in a directory ("", or a path and a slash). Raises `ObjectGone`, `ObjectUnreadable` (``permission``)."""
        with self._opened(collection) as opened:
            path = _joined(opened.root, collection.rstrip("/"))
            self._check_inside(path)
            self._count()
            infos = cast("list[Mapping[str, Any]]", opened.fs.ls(path, detail=True))
            if not infos and self.protocol == "ftp":
                _check_ftp_folder(opened.fs, path)
            found = [self._entry(opened.root, info) for info in infos]
            return [entry for entry in found if entry is not None and parent_of(entry.ref) == collection]

    def entry(self, ref: str) -> Entry:
        """One file as it is now. Raises `ObjectGone`, where the root is there and the file is not."""
        if not is_ref(ref):
            raise ObjectGone(f"{ref!r} names no file")
        if self.protocol == "ftp":
            return self._entry_of_ftp(ref)
        with self._opened(ref) as opened:
            path = _joined(opened.root, ref)
            self._check_inside(path)
            self._count()
            try:
                found = self._entry(opened.root, cast("Mapping[str, Any]", opened.fs.info(path)))
            except (FileNotFoundError, NotADirectoryError, ValueError) as error:
                self._check_root(opened)
                raise ObjectGone(f"{ref!r} is not there") from error
            except OSError as error:
                if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):  # no file has such a name
                    raise ObjectGone(f"{ref!r} names no file") from error
                raise
        if found is None or found.ref != ref or found.kind != "file":
            raise ObjectGone(f"{ref!r} is no file")
        return found

    def read(self, ref: str, max_bytes: int) -> bytes:
        """The content, of at most `max_bytes`: `ObjectUnreadable` (``too_large``) beyond."""
        with self._opened(ref) as opened:
            path = _joined(opened.root, ref)
            self._check_inside(path)
            self._count()
            try:
                with opened.fs.open(path, "rb") as file:
                    data = cast("bytes", file.read(max_bytes + 1))
            except FileNotFoundError as error:
                raise ObjectGone(f"{ref!r} is not there any more") from error
        if len(data) > max_bytes:
            raise ObjectUnreadable("too_large", f"is longer than {max_bytes} bytes")
        return data

    def take_cost(self) -> float:
        spent = getattr(self._mine, "spent", 0.0)
        self._mine.spent = 0.0
        return spent

    def close(self) -> None:
        """Lets go of every thread's filesystem; each ends its connections when nothing holds it any more."""
        self._mine = threading.local()

    def _count(self) -> None:
        self._mine.spent = getattr(self._mine, "spent", 0.0) + 1

    @contextmanager
    def _opened(self, what: str) -> Generator[_Opened]:
        """This thread's filesystem. After an error that is no answer it is opened anew the next time."""
        opened = getattr(self._mine, "opened", None) or self._open()
        try:
            opened.fs.invalidate_cache()
            yield opened
        except ConnectorError as error:
            if isinstance(error, SourceUnavailable):
                self._mine.opened = None
            raise
        except FileNotFoundError as error:
            raise ObjectGone(f"{what!r} is not there") from error
        except PermissionError as error:
            raise ObjectUnreadable("permission", f"{what!r} may not be read") from error
        except Exception as error:
            self._mine.opened = None
            raise _meaning(error, self.protocol) from error

    def _open(self) -> _Opened:
        """Raises no word on any file: what is wrong with the whole filesystem says nothing of what is in it."""
        options: dict[str, Any] = {**self._options, "skip_instance_cache": True, "use_listings_cache": False}
        _, archived, base = self._url.rpartition("::")
        untyped: Any = core
        try:
            # An archive's options are those of the filesystem that holds it.
            found = untyped.url_to_fs(self._url, **({base.partition("://")[0]: options} if archived else options))
        except Exception as error:
            raise _meaning(error, self.protocol) from error
        fs, root = cast("tuple[Any, str]", found)
        opened = _Opened(fs, root.rstrip("/"))
        if archived:
            fs.clear_instance_cache()  # and not kept: an archive's list of contents is read once, when it is opened
        else:
            self._mine.opened = opened
        return opened

    def _entry(self, root: str, info: Mapping[str, Any]) -> Entry | None:
        name, base = str(info["name"]).strip("/"), root.strip("/")
        if base and not name.startswith(base + "/"):
            return None
        ref = name[len(base) :].lstrip("/")
        kind = "link" if info.get("islink") else str(info.get("type", "other"))
        return Entry(ref, kind, info) if is_ref(ref) else None

    def _entry_of_ftp(self, ref: str) -> Entry:
        """By the directory's listing, which is checked: `FTPFileSystem.info` takes a refused listing for an empty one."""
        above = ""
        for name in ref.split("/"):
            found = next((entry for entry in self.entries(above) if entry.ref == above + name), None)
            if found is None:
                raise ObjectGone(f"{ref!r} is not there")
            if found.ref == ref:
                break
            above = f"{found.ref}/"
        else:
            raise ObjectGone(f"{ref!r} is not there")
        if found.kind != "file":
            raise ObjectGone(f"{ref!r} is no file")
        return found

    def _check_root(self, opened: _Opened) -> None:
        """Nothing below a root that is missing is known to be gone. In a store of objects a root without any is no folder."""
        if self.protocol not in ("s3", "s3a", "gs", "gcs", "abfs", "az", "oss", "memory") and not opened.fs.isdir(
            opened.root or "/"
        ):
            raise SourceUnavailable("config.url: the root is not there")

    def _check_inside(self, path: str) -> None:
        """On the local disk no link leads out of the root, or anywhere at all."""
        if self.protocol in _LOCAL and "::" not in self._url and _has_link(path, self._local_root()):
            raise ObjectGone(f"{path!r} leads through a link")

    def _local_root(self) -> str:
        return self._url.partition("://")[2].rstrip("/")


def _has_link(path: str, root: str) -> bool:
    below = os.path.relpath(path, root or "/")
    return Path(os.path.realpath(path)) != Path(os.path.realpath(root or "/")) / below


def _joined(root: str, ref: str) -> str:
    if not ref:
        return root or "/"
    return f"{root}/{ref}" if root else ref


def _check_ftp_folder(fs: Any, path: str) -> None:
    """`FTPFileSystem.ls` answers a refused or failed listing with an empty one. Only a list that came is believed."""
    try:
        list(cast("Iterator[Any]", fs.ftp.mlsd(path)))
    except ftplib.error_perm as error:
        if str(error)[:3] not in _FTP_UNKNOWN_COMMAND:
            raise PermissionError(str(error)) from error
        fs.ftp.cwd(path)


def _meaning(error: Exception, protocol: str) -> ConnectorError:
    text = f"{type(error).__name__}: {error}"
    shown = f"{protocol}: {text}"[:500]
    if isinstance(error, ConnectionError | TimeoutError | EOFError):
        return SourceUnavailable(shown)
    if _THROTTLED.search(text):
        return Throttled(shown)
    if _REFUSED.search(text):
        return NeedsAuth(shown)
    return SourceUnavailable(shown)
