"""The other side of the API: it has the truth, takes its time, and enforces its own quota."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sourcebus.errors import ConnectorError, SourceUnavailable, Throttled
from sourcebus.simulation.truth import Truth
from sourcebus.simulation.world import SimSource, World


class ExtractionFailed(ConnectorError):
    """This time it did not work."""


class NeverWorks(ConnectorError):
    """This version of the object cannot be extracted, however often it is tried."""

    retry = False


class TrueQuota:
    """A plain token bucket, `rate` in calls per second; None grants everything."""

    def __init__(self, rate: float | None, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, 0.0

    def take(self, now: float) -> float:
        """Milliseconds until the next call is granted; 0 where this one is."""
        if self._rate is None:
            return 0.0
        self._level = min(self._burst, self._level + (now - self._at) / 1000 * self._rate)
        self._at = now
        if self._level >= 0.99:  # the bus counts in whole milliseconds
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self._rate * 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back after `ms`: an object as it was when the call began, a listing, or an error."""

    ms: float
    version: int = 0
    gone: bool = False
    listing: tuple[tuple[str, int], ...] = ()
    error: ConnectorError | None = None


class Provider:
    """One source's API. An answer shows the truth at the beginning of the call: the change that comes while it is under way
    is not in it, which is the worst case for whoever must not lose it."""

    def __init__(self, world: World, source: SimSource, truth: Truth, quota: TrueQuota, now: Callable[[], float]) -> None:
        self._source, self._truth, self._quota, self._now = source, truth, quota, now
        self._seed = world.seed
        self._random = world.random("api", source.id)

    def _refused(self) -> Answer | None:
        wait_ms = self._quota.take(self._now())
        if wait_ms:
            least = self._source.retry_after_ms
            told = None if least is None else int(max(least, math.ceil(wait_ms / 1000) * 1000))
            return Answer(5.0 + 20 * self._random.random(), error=Throttled("429 Too Many Requests", told))
        if any(begin <= self._now() < end for begin, end in self._source.outages):
            return Answer(self._source.recheck.draw(self._random), error=SourceUnavailable("503 Service Unavailable"))
        return None

    def _fails(self) -> bool:
        return self._source.failures > 0 and self._random.random() < self._source.failures

    def _is_hopeless(self, ref: str, version: int) -> bool:
        share = self._source.hopeless
        return share > 0 and (int(ref) * 7919 + version * 104729 + self._seed) % 1000 < share * 1000

    def look(self, ref: str, known: int) -> Answer:
        """The object's version, and unless it is the `known` one its content."""
        refused = self._refused()
        if refused:
            return refused
        version, gone = self._truth.version(ref)
        if gone or version == known:
            return Answer(self._source.recheck.draw(self._random), version, gone)
        ms = self._source.extract.draw(self._random)
        if self._fails():
            return Answer(ms, error=ExtractionFailed("the connection was reset"))
        if self._is_hopeless(ref, version):
            return Answer(ms, error=NeverWorks("broken beyond repair"))
        return Answer(ms, version, gone)

    def list(self) -> Answer:
        """Every object that exists."""
        refused = self._refused()
        if refused:
            return refused
        ms = self._source.listing.draw(self._random)
        if self._fails():
            return Answer(ms, error=ExtractionFailed("the listing broke off"))
        return Answer(ms, listing=tuple(self._truth.listing()))
