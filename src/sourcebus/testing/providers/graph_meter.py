"""What SharePoint Online charges and when it refuses, as far as its throttling page says, for `graph`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """Numbers from Microsoft's documentation, each beside its unit. `rate_per_s` is for one app in one small tenant."""

    rate_per_s: float = 15.0
    burst: float = 40.0
    single: float = 1.0  # one item, a delta with a token, a download
    several: float = 2.0  # a listing, a delta without a token, a write
    permissions: float = 5.0
    headers_below: float = 0.2  # RateLimit headers are sent once four fifths are used
    longest_subscription_s: float = 42_300 * 60.0
    ack_deadline_s: float = 3.0
    slow_ms: float = 2_900.0
    slow_sample: int = 100
    delayed_share: float = 0.10
    dropped_share: float = 0.15
    slow_delay_s: float = 600.0
    slow_window_s: float = 600.0
    handshake_s: float = 10.0
    client_state_chars: int = 128
    page_size: int = 200


class Meter:
    """The token bucket of one app in one tenant, in resource units. Refused calls are charged too, as the provider does."""

    def __init__(self, facts: GraphFacts, *, enforce: bool = True, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.spent = self.refused = 0.0
        self.enforce = enforce
        self._facts, self._clock_s = facts, clock_s
        self._tokens, self._at_s = facts.burst, clock_s()

    def charge(self, units: float) -> tuple[bool, dict[str, str]]:
        """Whether the call may go on, and the headers that its answer has."""
        now_s, facts = self._clock_s(), self._facts
        self._tokens = min(facts.burst, self._tokens + (now_s - self._at_s) * facts.rate_per_s)
        self._at_s = now_s
        self.spent += units
        granted = not self.enforce or self._tokens >= units
        # What is refused is charged too, but not without end: else a client that waits as told never gets through.
        self._tokens = max(self._tokens - units, -facts.burst)
        if not granted:
            self.refused += units
        return granted, self._headers(granted, units)

    def _headers(self, granted: bool, units: float) -> dict[str, str]:
        if not self.enforce:
            return {}
        facts, headers = self._facts, dict[str, str]()
        if not granted:
            headers["Retry-After"] = str(max(1, round((units - self._tokens) / facts.rate_per_s + 0.5)))
        if self._tokens <= facts.headers_below * facts.burst:
            # In the sense of the draft: so many units may be used until the reset, at which the bucket is full again.
            reset_s = max(1, round((facts.burst - self._tokens) / facts.rate_per_s))
            left = max(0.0, self._tokens + reset_s * facts.rate_per_s) if granted else 0.0
            headers |= {
                "RateLimit-Limit": f"{facts.burst:.0f}",
                "RateLimit-Remaining": f"{left:.0f}",
                "RateLimit-Reset": f"{reset_s}",
            }
        return headers
