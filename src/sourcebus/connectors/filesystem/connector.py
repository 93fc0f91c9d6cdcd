"""The connector itself: its settings, and the calls of `Connector` and `Watches` on a `Tree`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from sourcebus.connectors.base import Connector, Recommended, refuse_unknown
from sourcebus.connectors.config import flag_at, number_at, patterns_at
from sourcebus.connectors.documents import document
from sourcebus.connectors.filesystem.tree import Tree
from sourcebus.connectors.filesystem.watching import Watch
from sourcebus.connectors.patterns import DEFAULT_EXCLUDES, Selection
from sourcebus.errors import InvalidInput, ObjectGone, ObjectUnreadable
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Extraction, Quota

SETTINGS = ("root", "include", "exclude", "exclude_defaults", "max_bytes", "mounted", "watcher", "rescan_s")

WATCHERS = ("auto", "inotify", "watchfiles", "poll")


class FilesystemConnector(Connector):
    """The files below a directory. An `object_ref` is the path below the root, a scope a directory's path.

    Names that are not UTF-8 are kept reversibly (`os.fsdecode`): their reference holds lone surrogates.
    """

    name = "filesystem"
    recommended = Recommended(quota=Quota(rate=None, burst=1, concurrency=64), window_ms=1_000, poll_interval_s=600.0)

    def __init__(self, tree: Tree, *, watcher: str = "auto", rescan_s: float = 30.0) -> None:
        self._tree, self._watcher, self._rescan_s = tree, watcher, rescan_s

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None = None) -> Self:
        """See docs/connectors/filesystem.md for the settings. The root need not exist yet."""
        del secret  # a directory needs none
        refuse_unknown(config, SETTINGS)
        exclude = patterns_at(config, "exclude")
        if flag_at(config, "exclude_defaults", default=True):
            exclude = [*DEFAULT_EXCLUDES, *exclude]
        selection = Selection(patterns_at(config, "include"), exclude)
        max_bytes = int(number_at(config, "max_bytes", default=20_000_000, least=1))
        tree = Tree(_root(config), selection, max_bytes, mounted=flag_at(config, "mounted", default=False))
        watcher = config.get("watcher", "auto")
        if watcher not in WATCHERS:
            raise InvalidInput("config.watcher", f"is {watcher!r}", "use one of " + ", ".join(WATCHERS))
        return cls(tree, watcher=watcher, rescan_s=number_at(config, "rescan_s", default=30.0, least=0.05))

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """List everything below `scope`; a file system keeps no record of changes, so `cursor` is not used."""
        del cursor
        return self._tree.listing(scope)

    def version(self, ref: str) -> str | None:
        try:
            return self._tree.read(ref, keep=False).version
        except ObjectGone:
            return None
        except ObjectUnreadable as unreadable:
            return unreadable.version

    def fingerprint(self, ref: str) -> str | None:
        try:
            return self._tree.fingerprint(self._tree.status(ref))
        except (ObjectGone, ObjectUnreadable):
            return None

    def extract(self, ref: str) -> Extraction:
        content = self._tree.read(ref)
        try:
            found = document(_shown(ref.rpartition("/")[2]), content.data)
        except ObjectUnreadable as unreadable:
            raise ObjectUnreadable(
                unreadable.reason, unreadable.detail, version=content.version, fingerprint=content.fingerprint
            ) from unreadable
        return Extraction([found], content.version, content.fingerprint)

    def scope_prefix(self, scope: str) -> str:
        return scope if scope == WHOLE_SOURCE or scope.endswith("/") else f"{scope}/"

    def watch(self, stop: threading.Event, *, step_ms: int) -> Iterator[Sequence[Change]]:
        """As `Watches.watch`. A directory's scan is asked for under its path with a slash at the end."""
        return Watch(self._tree, stop, step_ms=step_ms, watcher=self._watcher, rescan_s=self._rescan_s).batches()


def _shown(name: str) -> str:
    """The file's name as a title that every database stores: bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _root(config: Mapping[str, Any]) -> str:
    root = config.get("root")
    if not isinstance(root, str) or not root or "\0" in root:
        raise InvalidInput("config.root", "is missing" if root is None else f"is {root!r}", "give the path of a directory")
    if not root.startswith("/"):
        raise InvalidInput("config.root", f"{root!r} is relative", "give the full path: workers run in other directories")
    return root
