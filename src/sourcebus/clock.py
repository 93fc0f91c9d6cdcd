"""Time as an argument. Policy code takes a `Clock`; only this module reads the machine's, or says a span of it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks in one: the calendar's and a stopwatch's."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        ...

    def monotonic_ms(self) -> float:
        """Milliseconds from an unknown start; never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        return time.monotonic_ns() / 1e6


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``42 s``, ``3 min``, ``5 h``, ``2 d``."""
    for limit, unit, size in ((90, "s", 1), (90 * 60, "min", 60), (36 * 3600, "h", 3600)):
        if seconds < limit:
            count = seconds / size
            return f"{count:.1f} {unit}" if 0 < count < 2 else f"{max(count, 0):.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
