"""Virtual time: a heap of what happens when, and processes that can be killed and frozen."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from itertools import count

Steps = Generator[float, bool, None]
"""A process: yields the milliseconds it wants to sleep; is resumed with True where it was woken before they were over."""


class Loop:
    """Discrete events. `now` in milliseconds; what is due at one moment happens in the order in which it was planned."""

    def __init__(self, now_ms: float) -> None:
        self.now = now_ms
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, when_ms: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when_ms, self.now), next(self._numbers), act))

    def after(self, ms: float, act: Callable[[], None]) -> None:
        self.at(self.now + ms, act)

    def run(self, until_ms: float, stop: Callable[[], bool]) -> None:
        """Lets everything up to `until_ms` happen, unless `stop` says that it is enough."""
        heap = self._heap
        while heap and heap[0][0] <= until_ms and not stop():
            self.now, _, act = heapq.heappop(heap)
            act()
        if not stop():
            self.now = max(self.now, until_ms)

    # A `Clock` too, for the parts of the product that take one.

    def now_ms(self) -> int:
        return int(self.now)

    def monotonic_ms(self) -> float:
        return self.now


class Process:
    """Runs a generator in virtual time. `ended` is called when it comes to its end, not when it is killed."""

    def __init__(self, loop: Loop, steps: Steps, ended: Callable[[], None]) -> None:
        self._loop, self._steps, self._ended = loop, steps, ended
        self._turn = 0  # grows with every resumption, so that an alarm for an earlier sleep is known as stale
        self._frozen_until = float("-inf")
        loop.after(0, lambda: self._resume(0, woken=False, first=True))

    @property
    def frozen_until(self) -> float:
        return self._frozen_until

    def wake(self) -> None:
        """Ends its sleep early."""
        turn = self._turn
        self._loop.after(0, lambda: self._resume(turn, woken=True))

    def freeze(self, until_ms: float) -> None:
        self._frozen_until = max(self._frozen_until, until_ms)

    def kill(self) -> None:
        self._turn = -1
        self._steps.close()

    def _resume(self, turn: int, *, woken: bool, first: bool = False) -> None:
        if turn != self._turn:
            return
        if self._loop.now < self._frozen_until:
            self._loop.at(self._frozen_until, lambda: self._resume(turn, woken=woken, first=first))
            return
        try:
            ms = next(self._steps) if first else self._steps.send(woken)
        except StopIteration:
            self._turn = -1
            self._ended()
            return
        if self._turn < 0:  # killed by what it did
            return
        self._turn += 1
        turn = self._turn
        self._loop.after(ms, lambda: self._resume(turn, woken=False))
