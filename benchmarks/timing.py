"""Waiting for a condition, and what is said of a list of times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

POLL_S = 0.001
"""Between two looks: the same for every system, so that what polling adds (0.5 ms in the mean) is the same too."""


_STALLED_S = 60.0


class NotSeen(Exception):
    """What was waited for did not happen in time."""


def seen_ns(look: Callable[[], bool], *, within_s: float, every_s: float = POLL_S) -> int:
    """Looks until `look` answers True; the monotonic nanoseconds right after that look. NotSeen after `within_s`."""
    deadline = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline:
            raise NotSeen(f"not seen within {within_s:g} s")
        time.sleep(every_s)
    return time.monotonic_ns()


@dataclass(frozen=True)
class Filled:
    """When the last one was there (monotonic nanoseconds), and the longest time in which no new one came."""

    ended_ns: int
    longest_pause_s: float


def filled(
    count: Callable[[], int], total: int, *, check: Callable[[], None], show: Callable[[int], None], every_s: float
) -> Filled:
    """Waits until `count` answers `total`, telling `show` of every step.

    `check` raises where the system has died. NotSeen when the count has not grown for a minute.
    """
    done, grew, longest = 0, time.monotonic(), 0.0
    while done < total:
        check()
        now = count()
        pause = time.monotonic() - grew
        if now > done:
            longest = max(longest, pause)
            done, grew = now, time.monotonic()
            show(done)
        elif pause > _STALLED_S:
            raise NotSeen(f"{done:,} of {total:,} are there, and for {_STALLED_S:g} s there came no more")
        if done < total:
            time.sleep(every_s)
    return Filled(time.monotonic_ns(), longest)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle one; the mean of the middle two for an even number."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
