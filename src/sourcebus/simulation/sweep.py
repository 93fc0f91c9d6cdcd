"""The cron sweep that teams run today, on the same world: every so often list every source and process what differs.

Pure Python, no bus. A sweep that is still under way when the next is due makes it wait, as a lock in a cron job does.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from sourcebus.errors import Throttled
from sourcebus.simulation.place import Place, places
from sourcebus.simulation.provider import Answer
from sourcebus.simulation.report import Freshness
from sourcebus.simulation.truth import SimChange, schedule
from sourcebus.simulation.world import World

_TRIES = 5
_NO_HEADER_MS = 30_000.0


@dataclass(frozen=True, slots=True)
class SweepReport:
    """`sweeps` were begun, the longest took `longest_ms`; `sources` maps each source to its freshness."""

    sources: dict[str, Freshness]
    freshness: Freshness
    sweeps: int
    longest_ms: float


def sweep(world: World, *, every_ms: float = 600_000.0, slots: int = 1) -> SweepReport:
    """The world's sources, swept. `slots` 1: source after source; more: as many sources at a time.

    Each source is processed synchronously by one slot: an object after the other, waiting out every 429. Crashes and what
    happens to Redis do not concern it. It goes on after the end of the changes until nothing differs, or for twelve sweeps.
    """
    return _Sweeps(world, every_ms, slots).report()


class _Sweeps:
    def __init__(self, world: World, every_ms: float, slots: int) -> None:
        self._world, self._every_ms, self._slots = world, every_ms, slots
        self._now = 0.0
        self._places = places(world, lambda: self._now)
        ids = {source.id for source in world.sources}
        changes = [
            (change, place) for name, place in self._places.items() if name in ids for change in schedule(world, place.source)
        ]
        self._changes = sorted(changes, key=lambda pair: pair[0].at_ms)
        self._next = 0
        self._names = [source.id for source in world.sources]

    def report(self) -> SweepReport:
        at, sweeps, longest, extra = 0.0, 0, 0.0, 0
        while extra < 12 and (at < self._world.duration_ms or self._waiting()):
            extra += at >= self._world.duration_ms
            ended = self._one_sweep(at)
            sweeps, longest = sweeps + 1, max(longest, ended - at)
            at = max(ended, (at // self._every_ms + 1) * self._every_ms)
        found = {name: self._places[name].index for name in self._names}
        each = {name: Freshness.of(index.fresh_ms, index.waiting()) for name, index in found.items()}
        all_ms = [ms for index in found.values() for ms in index.fresh_ms]
        return SweepReport(each, Freshness.of(all_ms, self._waiting()), sweeps, longest)

    def _waiting(self) -> int:
        return len(self._changes) - self._next + sum(self._places[name].index.waiting() for name in self._names)

    def _world_until(self, now: float) -> None:
        """Lets the sources change up to now."""
        while self._next < len(self._changes) and self._changes[self._next][0].at_ms <= now:
            self._apply(*self._changes[self._next])
            self._next += 1
        self._now = now

    @staticmethod
    def _apply(change: SimChange, place: Place) -> None:
        place.truth.apply(change)
        place.index.changed(change, change.at_ms)

    def _one_sweep(self, began: float) -> float:
        """Answers when its last source was done."""
        queue = list(self._names)
        busy: list[tuple[float, int, Iterator[float]]] = []
        for slot in range(self._slots):
            heapq.heappush(busy, (began, slot, iter(())))
        ended = began
        while busy:
            now, slot, steps = heapq.heappop(busy)
            self._world_until(max(now, self._now))
            ms = next(steps, None)
            if ms is None and queue:
                steps = self._process(self._places[queue.pop(0)])
                ms = next(steps, None)
            if ms is not None:
                heapq.heappush(busy, (now + ms, slot, steps))
            elif queue:
                heapq.heappush(busy, (now, slot, iter(())))
            ended = max(ended, now)
        return ended

    def _process(self, place: Place) -> Iterator[float]:
        """One source's share of a sweep; yields the milliseconds that each call and each wait takes."""
        answer = yield from self._insist(place, None)
        if answer.error:
            return
        listed = dict(answer.listing)
        index = place.index
        stale = [ref for ref, version in listed.items() if index.get(ref).gone or index.get(ref).version != version]
        for ref in stale:
            answer = yield from self._insist(place, ref)
            if not answer.error:
                index.write(ref, answer.version, answer.gone, 0, self._now)
        for ref in [ref for ref, have in index.objects.items() if not have.gone and ref not in listed]:
            version, gone = place.truth.version(ref)
            if gone:
                index.write(ref, version, True, 0, self._now)

    def _insist(self, place: Place, ref: str | None) -> Generator[float, None, Answer]:
        """One call, tried again while it is throttled or fails."""
        answer = Answer(0.0)
        for _ in range(_TRIES):
            answer = place.provider.list() if ref is None else place.provider.look(ref, 0)
            yield answer.ms
            if not answer.error or not answer.error.retry:
                break
            wait_ms = answer.error.retry_after_ms if isinstance(answer.error, Throttled) else place.source.backoff_ms
            yield _NO_HEADER_MS if wait_ms is None else float(wait_ms)
        return answer
