"""Watching a tree: from the kernel's events to batches of changes.

inotify where there is Linux, watchfiles elsewhere, a listing every `rescan_s` where the kernel grants no watch. Whenever a
watch begins, or may have lost something, the first batch asks for a scan of the whole source.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from sourcebus.connectors.filesystem.inotify import Event, Inotify, LimitReached, Mask
from sourcebus.connectors.filesystem.tree import Tree
from sourcebus.connectors.patterns import Selection, parents
from sourcebus.errors import ConnectorError
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind

CHECK_S = 0.2
"""How late a watch may notice that it shall stop, or that its root is gone or back."""

WRITING_S = 0.1
"""A file that is written and not closed is announced this long after the write; a closed one at once. Reading a file that
was just truncated would index it empty, and cost the whole dedup window until the next look."""

STORM_STEP_S = 0.05
"""While changes come without a pause, batches grow to this length, so that a storm of thousands is not as many batches."""

_WHOLE = Change(WHOLE_SOURCE, ChangeKind.SCAN)
_FIX = "raise fs.inotify.max_user_watches or max_user_instances, or exclude directories; until then it is listed every rescan_s"
_log = structlog.stdlib.get_logger("sourcebus.connectors.filesystem")

Batches = Iterator[Sequence[Change]]


class Watch:
    """One watch of one tree. `watcher`: ``inotify``, ``watchfiles``, ``poll`` or ``auto`` (the best that this system has)."""

    def __init__(self, tree: Tree, stop: threading.Event, *, step_ms: int, watcher: str, rescan_s: float) -> None:
        self._tree, self._stop, self._step_s, self._rescan_s = tree, stop, step_ms / 1_000, rescan_s
        if watcher == "auto":
            watcher = "inotify" if sys.platform == "linux" else "watchfiles"
        self._session = {"inotify": self._inotify, "watchfiles": self._watchfiles, "poll": self._poll}[watcher]
        self._root: os.stat_result | None = None
        self._checked = 0.0
        self._said = ""

    def batches(self) -> Batches:
        """As `Watches.watch`. Nothing comes while the root is missing."""
        while not self._stop.is_set():
            self._root = self._look()
            if self._root is None:
                self._stop.wait(CHECK_S)
                continue
            if self._said == "root_missing":
                self._said = ""
                _log.info("connectors.root_back", root=self._tree.root)
            yield from self._session()

    def _look(self) -> os.stat_result | None:
        try:
            with self._tree.opened() as root:
                return os.fstat(root)
        except ConnectorError as error:
            self._say("root_missing", reason=str(error))
            return None

    def _say(self, event: str, **details: object) -> None:
        """Log a state once, when it begins."""
        if event != self._said:
            self._said = event
            _log.warning(f"connectors.{event}", root=self._tree.root, **details)

    def _goes_on(self) -> bool:
        """False when the session has to end: stopped, or another directory (or none) is at the root's path."""
        if self._stop.is_set():
            return False
        now = time.monotonic()
        if now - self._checked >= CHECK_S:
            self._checked = now
            root = self._look()
            return root is not None and self._root is not None and os.path.samestat(root, self._root)
        return True

    def _poll(self) -> Batches:
        yield [_WHOLE]
        self._pause(self._rescan_s)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._goes_on() and (left := until - time.monotonic()) > 0:
            self._stop.wait(min(left, CHECK_S))

    def _inotify(self) -> Batches:
        try:
            notify = Inotify(self._tree.root, self._tree.selection.enters)
        except LimitReached as error:
            self._say("watch_limit", watched=0, reason=str(error), rescan_s=self._rescan_s, fix=_FIX)
            yield from self._poll()
            return
        except OSError as error:
            self._say("watch_refused", reason=str(error), rescan_s=self._rescan_s)
            self._pause(CHECK_S)
            return
        try:
            if notify.limited:
                self._limit(notify)
            else:
                self._said = ""
                _log.info("connectors.watching", root=self._tree.root, directories=notify.directories)
            yield [_WHOLE]
            yield from self._events(notify)
        finally:
            notify.close()

    def _limit(self, notify: Inotify) -> None:
        self._say("watch_limit", watched=notify.directories, reason="no watch left", rescan_s=self._rescan_s, fix=_FIX)

    def _events(self, notify: Inotify) -> Batches:
        """Batches until the session has to end, events were lost, or (with directories unwatched) `rescan_s` is over."""
        began, batch = time.monotonic(), Batch(self._tree.selection, self._step_s)
        while self._goes_on():
            notify.wait(min(CHECK_S, batch.due_in(time.monotonic())) * 1_000)
            for event in notify.read():
                if event.mask & Mask.IGNORED:
                    return
                if event.mask & Mask.OVERFLOW:
                    _log.warning("connectors.watch_overflow", root=self._tree.root, then="the whole source is listed again")
                    return
                batch.add(event, time.monotonic())
            if batch.due_in(time.monotonic()) <= 0:
                yield batch.take(time.monotonic())
            if notify.limited:
                self._limit(notify)
                if time.monotonic() - began > self._rescan_s:
                    return

    def _watchfiles(self) -> Batches:
        """Without inotify. What watchfiles hides (lost events, names it cannot decode) is made up for every `rescan_s`."""
        from watchfiles import watch

        top = os.path.realpath(self._tree.root)
        began = time.monotonic()
        answers = watch(
            top,
            watch_filter=None,
            debounce=int(STORM_STEP_S * 1_000),
            step=max(1, int(self._step_s * 1_000)),
            rust_timeout=int(CHECK_S * 1_000),
            yield_on_timeout=True,
            stop_event=self._stop,
            ignore_permission_denied=True,
            raise_interrupt=False,
        )
        # The first answer, a time-out at the latest, proves that the watch is in place.
        first = True
        try:
            for changes in answers:
                found = [change for raw, path in sorted(changes) for change in self._translate(raw, path[len(top) + 1 :])]
                if first or found:
                    yield [_WHOLE] if first else found
                first = False
                if not self._goes_on() or time.monotonic() - began > self._rescan_s:
                    return
        except (OSError, RuntimeError) as error:
            self._say("watch_refused", reason=str(error), rescan_s=self._rescan_s)
            self._pause(CHECK_S)

    def _translate(self, kind: int, ref: str) -> Iterator[Change]:
        """watchfiles does not say what was a directory, so what is gone is looked for as both."""
        added, deleted = kind == 1, kind == 3
        directory = not deleted and Path(self._tree.root, ref).is_dir()
        if ref and (deleted or (added and directory)) and self._tree.selection.enters(ref):
            yield Change(f"{ref}/", ChangeKind.SCAN)
        if ref and not directory and self._tree.selection.selects(ref):
            yield Change(ref, ChangeKind.CREATED if added else ChangeKind.DELETED if deleted else ChangeKind.UPDATED)


class Batch:
    """Collects events until a batch of changes is due. All times are monotonic seconds given by the caller.

    Of several changes to one object the last one counts. A directory that came, went or moved is one scan under its path
    with a slash at the end, so it can never be taken for a file that has or had the same path.
    """

    def __init__(self, selection: Selection, step_s: float) -> None:
        self._selection, self._step_s = selection, step_s
        self._ready: dict[str, ChangeKind] = {}
        self._writing: dict[str, tuple[float, ChangeKind]] = {}
        self._due = float("inf")
        self._wait_s, self._last = step_s, float("-inf")

    def add(self, event: Event, now: float) -> None:
        mask, ref = event
        if mask & Mask.ISDIR:
            if self._selection.enters(ref):
                self._put(f"{ref}/", ChangeKind.SCAN, now)
        elif self._selection.takes(ref):
            self._file(mask, ref, now)

    def _file(self, mask: int, ref: str, now: float) -> None:
        if mask & (Mask.DELETE | Mask.MOVED_FROM):
            self._writing.pop(ref, None)
            self._put(ref, ChangeKind.DELETED, now)
        elif mask & (Mask.CLOSE_WRITE | Mask.MOVED_TO):
            _, kind = self._writing.pop(ref, (now, ChangeKind.UPDATED))
            self._put(ref, ChangeKind.CREATED if mask & Mask.MOVED_TO else kind, now)
        else:
            self._writing.setdefault(ref, (now, ChangeKind.CREATED if mask & Mask.CREATE else ChangeKind.UPDATED))

    def _put(self, ref: str, kind: ChangeKind, now: float) -> None:
        if not self._ready:
            self._due = now + self._wait_s
        self._ready[ref] = kind

    def due_in(self, now: float) -> float:
        """Seconds until the batch is to be taken; 0 or less: now; infinite while there is nothing."""
        oldest = next(iter(self._writing.values()), None)  # in the order of their first write
        writing = oldest[0] + WRITING_S if oldest else float("inf")
        return min(self._due, writing) - now

    def take(self, now: float) -> list[Change]:
        """The batch. Leaves out files that are still being written, but for those that have been for `WRITING_S`."""
        for ref, (since, kind) in [*self._writing.items()]:
            if since + WRITING_S > now:
                break
            del self._writing[ref]
            self._ready[ref] = kind
        ready, self._ready, self._due = self._ready, {}, float("inf")
        without_pause = now - self._last < self._wait_s + self._step_s
        self._wait_s = min(2 * self._wait_s, max(self._step_s, STORM_STEP_S)) if without_pause else self._step_s
        self._last = now
        return [Change(ref, kind) for ref, kind in ready.items() if not _covered(ref, kind, ready)]


def _covered(ref: str, kind: ChangeKind, ready: dict[str, ChangeKind]) -> bool:
    """Whether a scan is part of another scan of the same batch."""
    return kind is ChangeKind.SCAN and any(f"{parent}/" in ready for parent in parents(ref[:-1]))
