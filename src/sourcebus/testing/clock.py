"""A clock to turn by hand."""

from __future__ import annotations


class ManualClock:
    """A `Clock` that stands still until told otherwise; both of its times are `now`, in milliseconds."""

    def __init__(self, now_ms: float = 1_800_000_000_000) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return int(self.now)

    def monotonic_ms(self) -> float:
        return self.now

    def advance(self, ms: float) -> None:
        """Negative values are a clock that jumps back."""
        self.now += ms
