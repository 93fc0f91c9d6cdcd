"""The leases one consumer holds, shared between the thread that works and the heartbeat that keeps them alive."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from sourcebus.clock import Clock
from sourcebus.model import Lease


class Batch:
    """Leases in the order they were claimed: waiting to begin, then begun, then settled.

    One thread calls `begin` and `settled`, another `take_back` and `held`; every method is safe between them.
    """

    def __init__(self, leases: Sequence[Lease], clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = deque(leases)
        self._begun: dict[int, Lease] = {}
        self._current: Lease | None = None
        self._began_ms = 0.0

    def begin(self) -> Lease | None:
        """The next lease to work on, or None at the end."""
        with self._lock:
            self._current = lease = self._waiting.popleft() if self._waiting else None
            self._began_ms = self._clock.monotonic_ms()
            if lease:
                self._begun[lease.fence] = lease
            return lease

    def settled(self, leases: Sequence[Lease]) -> None:
        """These are off our hands."""
        with self._lock:
            for lease in leases:
                self._begun.pop(lease.fence, None)

    def take_back(self, of: Callable[[Lease], bool] = lambda _: True) -> list[Lease]:
        """Removes and returns what was not begun; only those leases for which `of` is true."""
        with self._lock:
            taken = [lease for lease in self._waiting if of(lease)]
            gone = {lease.fence for lease in taken}
            self._waiting = deque(lease for lease in self._waiting if lease.fence not in gone)
            return taken

    def held(self) -> list[Lease]:
        with self._lock:
            return [*self._begun.values(), *self._waiting]

    def current(self) -> tuple[Lease | None, float]:
        """What is being worked on, and for how many milliseconds."""
        with self._lock:
            return self._current, self._clock.monotonic_ms() - self._began_ms
