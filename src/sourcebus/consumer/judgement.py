"""What an error means for its lease: the policy alone, so that the pipeline and the simulation cannot differ in it."""

from __future__ import annotations

from sourcebus.bus import Settle
from sourcebus.errors import ConnectorError, NeedsAuth, SourceUnavailable, Throttled

_THROTTLE_MS = 30_000  # providers that send 429 without Retry-After mostly mean "this minute"
_UNAVAILABLE_MS = 2_000
_NEEDS_AUTH_MS = 60_000


def judge(error: Exception) -> tuple[Settle, float]:
    """How a lease that met this error ends, and for how many milliseconds its bucket (429) or source waits (0: not)."""
    match error:
        case Throttled():
            return Settle.THROTTLED, _THROTTLE_MS if error.retry_after_ms is None else error.retry_after_ms
        case NeedsAuth():
            return Settle.UNAVAILABLE, _NEEDS_AUTH_MS
        case SourceUnavailable():
            return Settle.UNAVAILABLE, _UNAVAILABLE_MS
        case ConnectorError() if not error.retry:
            return Settle.HOPELESS, 0
        case _:
            return Settle.FAILED, 0
