"""Looks at every source now and then: where its objects wait, and whether the workers are shared out fairly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from sourcebus.bus import COUNTED_AS, SourceStats
from sourcebus.simulation.judge import Judge
from sourcebus.simulation.place import Place
from sourcebus.simulation.wire import Wire
from sourcebus.simulation.world import World

_FAIR_SPAN_MS = 60_000.0
_HUNGER_MS = 120_000.0
_MANY = 20


@dataclass(slots=True)
class _Run:
    """Since when a source has had more to do, at every look, than all slots could take from it; `worked_ms` was its
    worker time then."""

    since_ms: float
    worked: dict[str, float]


class Sampler:
    def __init__(self, world: World, judge: Judge, places: dict[str, Place], wire: Wire) -> None:
        self._world, self._judge, self._places, self._wire = world, judge, places, wire
        self._backlogged: dict[str, _Run] = {}
        self._hungry_ms: dict[str, float] = {}
        self._claims: dict[str, int] = {}
        self._calm = not world.lost_replies

    def disturbed(self) -> None:
        """Something failed. Shares are compared no more: a lost lease is charged to its source, and nobody worked."""
        self._calm = False
        self._backlogged.clear()
        self._hungry_ms.clear()

    def sample(self, now: float, alive: int) -> None:
        present = [source_id for source_id, place in self._places.items() if place.present]
        if self._wire.down or not present:
            return
        stats = [one for one in self._wire.stats(present) if one]
        for one in stats:
            self._waits(one)
            self._bounded(one)
            self._hunger(one, alive)
        if self._calm:
            self._fair({one.source_id for one in stats if self._is_backlogged(one)}, now)

    def _waits(self, one: SourceStats) -> None:
        waits = self._places[one.source_id].waits_ms
        ready = one.pending - one.delayed
        reason = one.reason or "no_worker"  # somebody is on the way
        for name, count in ((COUNTED_AS.get(reason, reason), ready), ("window", one.delayed)):
            if count:
                waits[name] = waits.get(name, 0.0) + count * self._world.sample_ms

    def _bounded(self, one: SourceStats) -> None:
        source = self._judge.sources[one.source_id]
        most = source.max_pending + source.quota.concurrency + 1  # what fails comes back, and one scan stands for the rest
        if one.pending > most:
            self._judge.breaks(10, f"{one.pending} objects pending in {one.source_id}, limit {source.max_pending}")

    # --- no source starves ---------------------------------------------------------------------------------------

    def _hunger(self, one: SourceStats, alive: int) -> None:
        name, claims = one.source_id, self._judge.claims[one.source_id]
        starving = one.state == "ready" and one.pending > one.delayed and claims == self._claims.get(name) and alive > 0
        self._claims[name] = claims
        self._hungry_ms[name] = self._hungry_ms.get(name, 0.0) + self._world.sample_ms if starving else 0.0
        longest = max(place.longest_ms for place in self._places.values())
        bound = _HUNGER_MS + 3 * len(self._places) * longest / max(1, alive)
        if self._hungry_ms[name] > bound:
            self._judge.breaks(5, f"{name} was ready for {self._hungry_ms[name] / 1000:.0f} s and nothing of it was claimed")

    # --- equal shares --------------------------------------------------------------------------------------------

    def _is_backlogged(self, one: SourceStats) -> bool:
        """Nothing but the fair order holds it back, now and until the next look."""
        place = self._places[one.source_id]
        most = max(_MANY, self._world.slots * self._world.claim_batch)
        free = place.source.quota.rate is None and place.source.quota.concurrency >= most
        return free and one.state == "ready" and one.pending - one.delayed >= most

    def _fair(self, backlogged: set[str], now: float) -> None:
        worked = {name: place.worked_ms for name, place in self._places.items()}
        for name in list(self._backlogged):
            if name not in backlogged:
                del self._backlogged[name]
        for name in sorted(backlogged):
            self._backlogged.setdefault(name, _Run(now, worked))
        for one, other in combinations(sorted(backlogged), 2):
            run = max(self._backlogged[one], self._backlogged[other], key=lambda run: run.since_ms)
            if now - run.since_ms >= _FAIR_SPAN_MS:
                self._compare(one, other, run, worked)

    def _compare(self, one: str, other: str, run: _Run, worked: dict[str, float]) -> None:
        """Start-time fair queueing bounds the difference by what one claim per slot can weigh."""
        got: list[float] = []
        slack = 0.0
        for name in (one, other):
            place = self._places[name]
            got.append((worked[name] - run.worked[name]) / place.source.weight)
            slack += 2 * (self._world.slots + 1) * max(place.longest_ms, self._world.slow_ms) / place.source.weight
        if abs(got[0] - got[1]) > slack:
            self._judge.breaks(5, f"{one} got {got[0]:.0f} ms of worker time, {other} {got[1]:.0f} ms, both always ready")
