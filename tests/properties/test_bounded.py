"""Promise 12: a call's work is bounded, whatever is waiting. Counted in commands and in records, not in seconds."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import cast

import pytest
from redis import Redis

from sourcebus.bus import Bus
from sourcebus.model import Quota, SourceChanged
from sourcebus.testing import ManualClock
from tests.keyspace import read
from tests.properties.mutants import UNBOUNDED, Mutant

_names = count(1)
SIZES = (1_500, 4_500)
MOST_RECORDS = 1_000
"""More than any call may move; the exact limits are claim.lua's."""


class Backlog:
    """A bus with very much of one kind of work to look after, at the moment when all of it comes up."""

    def __init__(self, redis: Redis, size: int) -> None:
        self.redis, self.size, self.name, self.clock = redis, size, f"bounded{next(_names)}", ManualClock()
        self.bus = Bus(redis, name=self.name, clock_ms=lambda: self.clock.now)

    def claimed(self) -> None:
        self.bus.register("s", quota=Quota(concurrency=100_000), window_ms=1_000)
        self.bus.emit([SourceChanged("s", f"o{at}") for at in range(self.size)])
        self.leases = [lease for _ in range(0, self.size, 1_000) for lease in self.bus.claim(1_000, lease_ms=900).leases]

    def lost(self) -> None:
        self.claimed()
        self.clock.advance(901)

    def cooling(self) -> None:
        self.claimed()
        self.bus.ack(self.leases)
        self.clock.advance(5_000)

    def delayed(self) -> None:
        self.claimed()
        self.bus.emit([SourceChanged("s", f"o{at}") for at in range(self.size)])
        self.bus.ack(self.leases)
        self.clock.advance(1_001)

    def ready(self) -> None:
        self.bus.register("s", quota=Quota(concurrency=100_000))
        self.bus.emit([SourceChanged("s", f"o{at}") for at in range(self.size)])

    def sources_waking(self) -> None:
        for at in range(self.size // 10):
            self.bus.register(f"s{at}", quota=Quota(rate=1, burst=1), window_ms=0)
        self.bus.emit([SourceChanged(f"s{at}", f"o{of}") for at in range(self.size // 10) for of in range(2)])
        self.bus.ack(self.bus.claim(1_000).leases)
        self.clock.advance(1_000)

    def states(self) -> dict[str, tuple[float, float]]:
        space = read(self.redis, self.name)
        buckets = {f"bucket {name}": (bucket["where"], bucket["at"]) for name, bucket in space.buckets.items()}
        return buckets | {name: (record["state"], record["at"]) for name, record in space.records.items()}

    def work_of(self, call: Callable[[Bus], object]) -> tuple[int, int]:
        """How many commands one call ran in Redis, and how many records and buckets it moved."""
        before, commands = self.states(), self.commands()
        call(self.bus)
        ran, after = self.commands() - commands, self.states()
        return ran, sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())

    def commands(self) -> int:
        stats = cast("dict[str, dict[str, int]]", self.redis.info("commandstats"))
        return sum(each["calls"] for each in stats.values())


CALLS: dict[str, Callable[[Bus], object]] = {
    "claim": lambda bus: bus.claim(10),
    "tick": lambda bus: bus.tick(100),
    "pause": lambda bus: bus.pause(bus.source_ids()[0]),
}


KINDS = ("lost", "cooling", "delayed", "ready", "sources_waking")


def work_is_bounded(redis: Redis, kind: str, call: str) -> None:
    done: list[tuple[int, int]] = []
    for size in SIZES:
        backlog = Backlog(redis, size)
        getattr(backlog, kind)()
        done.append(backlog.work_of(CALLS[call]))
        redis.flushall()
    (commands, records), (more_commands, more_records) = done
    assert more_commands <= commands + 20, f"promise 12: {commands} commands, {more_commands} when more is {kind}"
    assert more_records <= min(records, MOST_RECORDS), f"promise 12: {records} records, {more_records} when more is {kind}"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_12_a_call_works_no_more_for_a_backlog_three_times_as_long(redis: Redis, kind: str, call: str):
    work_is_bounded(redis, kind, call)


@pytest.mark.parametrize("mutant", UNBOUNDED, ids=lambda mutant: mutant.name)
def test_12_unbounded_work_is_seen(mutant: Mutant, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    mutant.plant(monkeypatch)
    with pytest.raises(AssertionError):
        for kind in KINDS:
            work_is_bounded(redis, kind, "tick")
