"""What a simulated installation is made of: plain frozen values, all times in virtual milliseconds from the start.

A `World` says everything that a run depends on, so equal worlds give equal runs, to the byte of their traces. Write one by
hand for a team's own sources, or take one of a million from `random_world`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from sourcebus.model import Quota


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls take. `spread` 0: always `median_ms`; else the sigma of a lognormal around it (0.5 is lively, 1.5 wild).
    A share `tail` of the calls is drawn out further by a heavy (Pareto, 1.2) tail. No call takes more than `most_ms`."""

    median_ms: float
    spread: float = 0.0
    tail: float = 0.0
    most_ms: float = 120_000.0

    def draw(self, random: Random) -> float:
        ms = self.median_ms
        if self.spread:
            ms *= math.exp(random.gauss(0.0, self.spread))
        if self.tail and random.random() < self.tail:
            ms *= random.paretovariate(1.2)
        return min(ms, self.most_ms)


@dataclass(frozen=True, slots=True)
class Webhooks:
    """How a provider announces changes. Announcements overtake each other where `delay` varies."""

    delay: Latency = Latency(300.0, 0.8)
    lost: float = 0.0
    """Share of the changes that are never announced."""
    duplicated: float = 0.0
    """Share of the announcements that come a second time, after a delay of their own."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Somebody moves a folder: `objects` objects change, each `times` times, within `over_ms`."""

    at_ms: float
    objects: int
    times: int = 1
    over_ms: float = 1_000.0


@dataclass(frozen=True, slots=True)
class SimSource:
    """One source: what changes in it, how it says so, what its API does, and what the bus is told of it.

    `quota` is what the bus is told; `true_rate` and `true_burst` (None: as in `quota`) are what the API really grants,
    per bucket; beyond them it answers 429 with a Retry-After of at least `retry_after_ms` (None: without one).
    """

    id: str
    objects: int = 100
    changes_per_hour: float = 60.0
    skew: float = 1.0
    """1: all objects change alike; 3: a tenth of them has half of the changes."""
    deletes: float = 0.05
    bursts: tuple[Burst, ...] = ()
    known: bool = True
    """Indexed already when the run begins; else a first scan finds all of it."""

    webhooks: Webhooks | None = field(default_factory=Webhooks)
    poll_ms: float = 0.0
    reconcile_ms: float = 0.0

    extract: Latency = Latency(200.0, 0.5)
    recheck: Latency = Latency(40.0, 0.3)
    listing: Latency = Latency(800.0, 0.5)
    failures: float = 0.0
    """Share of the calls that fail and may succeed when tried again."""
    hopeless: float = 0.0
    """Share of the objects' versions that can never be extracted."""
    outages: tuple[tuple[float, float], ...] = ()
    """(begin, end): the whole API answers 5xx."""

    quota: Quota = field(default_factory=Quota)
    true_rate: float | None = None
    true_burst: float | None = None
    retry_after_ms: float | None = 1_000.0

    window_ms: float = 30_000.0
    weight: float = 1.0
    max_attempts: int = 5
    backoff_ms: float = 1_000.0
    backoff_cap_ms: float = 300_000.0
    max_pending: int = 200_000

    @property
    def bucket(self) -> str:
        return self.quota.bucket or self.id


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker slot dies with all it holds, without a word; `slot` None: all of them. Back after `down_ms`."""

    at_ms: float
    down_ms: float
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class Stall:
    """A worker slot stands still, its heartbeat too, and then goes on as if nothing had been: a zombie."""

    at_ms: float
    for_ms: float
    slot: int


@dataclass(frozen=True, slots=True)
class RedisRestart:
    """Redis is away for `down_ms`, and Celery's queue, which lives there too, is lost. So is the end of the bus's log with
    `loses_ms`."""

    at_ms: float
    down_ms: float
    loses_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class RedisWipe:
    """Redis loses everything."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The server's clock is set, `by_ms` forward or (negative) back. True time goes on."""

    at_ms: float
    by_ms: float


@dataclass(frozen=True, slots=True)
class Put:
    """A source is added, or registered again with other numbers (its `objects` and changes are then those of the first)."""

    at_ms: float
    source: SimSource


@dataclass(frozen=True, slots=True)
class Remove:
    at_ms: float
    source_id: str


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator holds a source."""

    at_ms: float
    source_id: str
    for_ms: float


@dataclass(frozen=True, slots=True)
class Refresh:
    """A person wants one object, or the whole source (""), looked at now."""

    at_ms: float
    source_id: str
    object_ref: str


Happening = Crash | Stall | RedisRestart | RedisWipe | ClockJump | Put | Remove | Pause | Refresh


@dataclass(frozen=True, slots=True)
class World:
    """A whole installation for `duration_ms`. After that nothing changes any more, and what is owed must be delivered.

    `lost_replies` is the share of bus calls whose answer never arrives. The other numbers bear the names of `Settings`.
    """

    seed: int
    sources: tuple[SimSource, ...]
    slots: int = 4
    duration_ms: float = 3_600_000.0
    happenings: tuple[Happening, ...] = ()
    lost_replies: float = 0.0
    tick_ms: float = 1_000.0
    sample_ms: float = 5_000.0
    celery_ms: float = 4.0
    lease_ms: int = 30_000
    claim_batch: int = 128
    claim_ms: float = 20.0
    slow_ms: float = 250.0
    slice_ms: float = 15_000.0
    commit_ms: float = 25.0
    extract_timeout_ms: float = 600_000.0
    settle_ms: float = 6 * 3_600_000.0
    """How long after the end all that is owed may take."""

    def random(self, *what: object) -> Random:
        """A stream of chance of its own for each purpose, so that one more draw here changes nothing there."""
        return Random("/".join(map(str, (self.seed, *what))))

    def all_sources(self) -> dict[str, SimSource]:
        """Every source that there ever is, as it is first put."""
        found = {source.id: source for source in self.sources}
        for happening in self.happenings:
            if isinstance(happening, Put):
                found.setdefault(happening.source.id, happening.source)
        return found
