"""The files of one commit, and the one place that knows which commit is the newest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sourcebus.connectors.filesystem.patterns import Selection
from sourcebus.connectors.git.mirror import Entry
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


@dataclass(slots=True)
class _Round:
    """One question and everybody who waits for its answer."""

    began_s: float = 0.0
    answer: Snapshot | None = None
    error: Exception | None = None
    over: bool = False


class Rounds:
    """Asks one question for many threads at the same time.

    Whoever calls gets the answer to a question that was put *after* the call began: an older one may not know of the change
    that the caller was sent to look at. So threads that wait while one question is under way share the next.
    """

    def __init__(self, ask: Callable[[], Snapshot]) -> None:
        self._ask = ask
        self._guard, self._turn = threading.Lock(), threading.Lock()
        self._open, self._last = _Round(), _Round()

    def now(self, since_s: float | None = None) -> Snapshot:
        """What `ask` answers or raises. With `since_s` (of `time.monotonic`) an answer to a question put after that will do."""
        with self._guard:
            mine = self._open
            if since_s is not None and self._last.answer is not None and self._last.began_s >= since_s:
                return self._last.answer
        with self._turn:
            if not mine.over:
                self._put(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return mine.answer

    def _put(self, mine: _Round) -> None:
        with self._guard:
            self._open = _Round()  # who comes from here on comes after the question
        mine.began_s = time.monotonic()
        try:
            mine.answer = self._ask()
        except Exception as error:  # noqa: BLE001  whatever it is, it is everybody's answer
            mine.error = error
        mine.over = True
        with self._guard:
            self._last = mine
