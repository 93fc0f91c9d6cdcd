"""Promise 5: among sources that are always ready, worker time is shared by weight, and nobody has credit for having been idle.

Start-time fair queueing bounds by how much two of them may ever differ (Goyal, Vin, Cheng 1996, theorem 1): by what is in
flight of each, once for the order, once for what was estimated and not yet known, once for what it owed when it came. The
bound does not grow with time; unfairness does.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations, count
from random import Random
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis import Redis

from sourcebus.bus import Bus, Settle
from sourcebus.model import Lease, Quota, SourceChanged
from sourcebus.testing import ManualClock
from tests.keyspace import check, read
from tests.properties.driver import Driver

_names = count(1)

MOST = 2
BACKLOG = 3 * MOST
LEAST_MS = 0.05  # settle.lua's: nothing is free
SLACK_MS = 20.0
"""A turn of very short work may be several objects at once, and giving back costs a trifle: docs/bus.md, promise 5."""

SHARED = Quota(concurrency=64, bucket="shared")
SERVICE_MS = {"slow": 20.0, "fast": 4.0, "heavy": 15.0, "twin": 10.0, "twin too": 5.0, "instant": 0.1}
WEIGHTS = {"heavy": 2.0}
QUOTAS = {"twin": SHARED, "twin too": SHARED}
SPREAD = (0.2, 0.2, 2.6)
SEEN = {"slow", "twin"}
"""Their calls last long enough for a heartbeat."""


class Fairness(RuleBasedStateMachine):
    redis: Redis
    steps: ClassVar[Counter[str]] = Driver.steps

    def __init__(self) -> None:
        super().__init__()
        self.name = f"fair{next(_names)}"
        self.clock = ManualClock()
        self.bus = Bus(self.redis, name=self.name, clock_ms=lambda: self.clock.now)
        self.busy: set[str] = set()
        self.done = dict.fromkeys(SERVICE_MS, 0.0)  # worker time by weight
        self.apart: dict[tuple[str, str], float] = {}  # how far two were apart when both became busy
        self.dice = Random(1)

    @initialize(first=st.sets(st.sampled_from(sorted(SERVICE_MS)), min_size=2, max_size=3))
    def begin(self, first: set[str]) -> None:
        for source_id in SERVICE_MS:
            quota, weight = QUOTAS.get(source_id, Quota()), WEIGHTS.get(source_id, 1.0)
            self.bus.register(source_id, quota=quota, weight=weight, window_ms=0)
        for source_id in sorted(first):
            self.enter(source_id)

    @precondition(lambda self: len(self.busy) < len(SERVICE_MS))
    @rule(pick=st.integers(0, 5))
    def comes(self, pick: int) -> None:
        """From idleness or a pause: nothing of what it did not use then is owed to it."""
        idle = sorted(SERVICE_MS.keys() - self.busy)
        self.enter(idle[pick % len(idle)])
        self.work(80, 1)

    def enter(self, source_id: str) -> None:
        self.bus.resume(source_id)
        self.bus.emit([SourceChanged(source_id, f"o{at}") for at in range(BACKLOG)])
        self.busy.add(source_id)
        for a, b in combinations(sorted(self.busy), 2):
            if source_id in (a, b):
                self.apart[a, b] = self.done[a] - self.done[b]

    @precondition(lambda self: len(self.busy) > 1)
    @rule(pick=st.integers(0, 5), held=st.booleans())
    def goes(self, pick: int, held: bool) -> None:
        source_id = sorted(self.busy)[pick % len(self.busy)]
        self.busy.remove(source_id)
        if held:
            self.bus.pause(source_id)

    @rule(rounds=st.sampled_from([40, 160]), most=st.integers(1, MOST))
    def work(self, rounds: int, most: int) -> None:
        """The heartbeat charges what runs; the ack charges the rest, not all of it once more."""
        for _ in range(rounds):
            leases = self.bus.claim(most).leases
            took = [SERVICE_MS[lease.source_id] * self.varies(lease.source_id) for lease in leases]
            for lease, service_ms in zip(leases, took, strict=True):
                self.clock.advance(service_ms * 3 / 4)
                if lease.source_id in SEEN:
                    self.bus.extend([lease], running=lease)
                self.clock.advance(service_ms / 4)
            self.finish(leases, took)
            self.nobody_is_ahead()

    def varies(self, source_id: str) -> float:
        """Calls of one source differ; those on a shared bucket do not, because its order forgets what comes back."""
        return 1.0 if source_id in QUOTAS else self.dice.choice(SPREAD)

    @rule()
    def give_back(self) -> None:
        """What was never begun is not charged."""
        self.bus.nack(self.bus.claim(MOST).leases, how=Settle.RELEASE)

    def finish(self, leases: list[Lease], took: list[float]) -> None:
        assert self.bus.ack(leases, service_ms=took).done == [True] * len(leases)
        for lease, service_ms in zip(leases, took, strict=True):
            self.done[lease.source_id] += max(service_ms, LEAST_MS) / WEIGHTS.get(lease.source_id, 1.0)
        self.bus.emit([SourceChanged(lease.source_id, lease.object_ref) for lease in leases if lease.source_id in self.busy])

    def nobody_is_ahead(self) -> None:
        for a, b in combinations(sorted(self.busy), 2):
            turn_a, turn_b = (max(SPREAD) * SERVICE_MS[s] / WEIGHTS.get(s, 1.0) for s in (a, b))
            apart = self.done[a] - self.done[b] - self.apart[a, b]
            most = 3 * MOST * (turn_a + turn_b) + SLACK_MS
            assert abs(apart) <= most, f"promise 5: {a!r} is {apart:.0f} ms of work ahead of {b!r}, {most:.0f} may be"

    @invariant()
    def step_is_counted(self) -> None:
        self.steps[type(self).__name__] += 1

    def teardown(self) -> None:
        check(read(self.redis, self.name))
        self.redis.flushdb()  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
