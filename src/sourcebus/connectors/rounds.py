"""One question to a source whose answer serves many objects and many threads: where is the branch, what is in the feed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Round(Generic[Answer]):
    """One question and everybody who waits for its answer."""

    began_s: float = 0.0
    answer: Answer | None = None
    error: Exception | None = None
    over: bool = False


class Rounds(Generic[Answer]):
    """Asks one question for many threads at the same time.

    Whoever calls gets the answer to a question that was put *after* the call began: an older one may not know of the change
    that the caller was sent to look at. So threads that wait while one question is under way share the next.
    """

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._guard, self._turn = threading.Lock(), threading.Lock()
        self._open, self._last = _Round[Answer](), _Round[Answer]()

    def now(self, since_s: float | None = None) -> Answer:
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

    def _put(self, mine: _Round[Answer]) -> None:
        with self._guard:
            self._open = _Round[Answer]()  # who comes from here on comes after the question
        mine.began_s = time.monotonic()
        try:
            mine.answer = self._ask()
        except Exception as error:  # noqa: BLE001  whatever it is, it is everybody's answer
            mine.error = error
        mine.over = True
        with self._guard:
            self._last = mine
