"""What a claim, an emit and an ack cost with 100,000 sources and 1,000,000 pending events, beside 40 and 400 sources.

Three servers run at once and take turns: each round emits as many events as it then claims and acknowledges, so what is
pending stays as it was.
"""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from redis import Redis

from benchmarks.meter import Meter, Spent, medians
from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.timing import median
from sourcebus.bus import Bus
from sourcebus.model import Lease, Quota, SourceChanged
from sourcebus.testing import running_server

TIMES = 1.3

_BATCH, _EMIT = 64, 100
_QUOTA = Quota(concurrency=1_000_000)  # what is claimed in one round is held until its end
_CALLS = ("claim 64", "claim 1", "emit 100", "ack 64")


@dataclass
class _World:
    """One server with so many sources and pending events, and what each kind of call cost it, round by round."""

    sources: int
    pending: int
    bus: Bus
    meter: Meter
    source_bytes: float = 0.0
    registered: Spent = field(default_factory=Spent)
    filled: Spent = field(default_factory=Spent)
    calls: dict[str, list[Spent]] = field(default_factory=lambda: {name: list[Spent]() for name in _CALLS})
    numbers: count[int] = field(default_factory=count)
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    @property
    def name(self) -> str:
        return f"{self.sources:,} sources, {self.pending:,} pending"

    def events(self, many: int) -> list[SourceChanged]:
        """New objects of random sources."""
        chosen = self.chance.choices(range(self.sources), k=many)
        return [SourceChanged(f"source-{at}", f"folder/object-{next(self.numbers)}") for at in chosen]

    def round(self, claims: int) -> None:
        """So many claims of a batch, as many of one event, their acks, and the emits that replace them."""
        many = claims * (_BATCH + 1)
        batches = [self.events(_EMIT) for _ in range(many // _EMIT)]
        self._spend("emit 100", len(batches), lambda: [self.bus.emit(batch) for batch in batches])
        held: list[list[Lease]] = []
        self._spend("claim 64", claims, lambda: [held.append(self._claim(_BATCH)) for _ in range(claims)])
        self._spend("ack 64", claims, lambda: [self._ack(leases) for leases in held])
        single: list[Lease] = []
        self._spend("claim 1", claims, lambda: [single.extend(self._claim(1)) for _ in range(claims)])
        for start in range(0, claims, _BATCH):
            self._ack(single[start : start + _BATCH])

    def get_to_know(self) -> None:
        """One event of every source, so that the bus has learned how long its events take: turns are as long everywhere."""
        for start in range(0, self.sources, _EMIT):
            batch = [SourceChanged(f"source-{at}", "first") for at in range(start, min(start + _EMIT, self.sources))]
            self.bus.emit(batch)
            self._ack(self._claim(len(batch)))

    def _spend(self, call: str, calls: int, action: Callable[[], object]) -> None:
        self.calls[call].append(self.meter.measure(action).per(calls))

    def _claim(self, most: int) -> list[Lease]:
        leases = self.bus.claim(most, consumer="benchmark").leases
        if len(leases) != most:
            raise RuntimeError(f"{len(leases)} of {most} claimed with {self.name}")
        return leases

    def _ack(self, leases: list[Lease]) -> None:
        self.bus.ack(leases, service_ms=[1.0] * len(leases))


def run(quick: bool) -> Result:
    large = (5_000, 50_000) if quick else (100_000, 1_000_000)
    rounds, claims = (3, 50) if quick else (7, 200)
    with ExitStack() as stack:
        worlds = [stack.enter_context(_world(*size)) for size in ((40, 40_000), (400, 40_000), large)]
        with step("claims, emits and acks in turns", rounds) as shown:
            for at in range(rounds):
                for world in worlds if at % 2 else reversed(worlds):
                    world.round(claims)
                shown.advance()
        return _result(worlds, rounds, claims)


@contextmanager
def _world(sources: int, pending: int) -> Generator[_World]:
    with running_server() as url:
        client = Redis.from_url(url)
        world = _World(sources, pending, Bus(client), Meter(client))
        try:
            Bus(client, name="other").register("first")  # the server keeps the script: not a source's memory
            before = world.meter.used_bytes()
            with step(f"registering {sources:,} sources", sources) as shown:

                def register() -> None:
                    for at in range(sources):
                        world.bus.register(f"source-{at}", quota=_QUOTA)
                        if not at % 1_000:
                            shown.to(at)

                world.registered = world.meter.measure(register)
            world.source_bytes = (world.meter.used_bytes() - before) / sources
            world.get_to_know()
            with step(f"storing {pending:,} events", pending) as shown:
                for start in range(0, pending, 2_500):
                    batch = [
                        SourceChanged(f"source-{at % sources}", f"folder/object-{next(world.numbers)}")
                        for at in range(start, start + 2_500)
                    ]
                    world.filled += world.meter.measure(lambda batch=batch: world.bus.emit(batch))
                    shown.advance(2_500)
            yield world
        finally:
            world.bus.close()


def _result(worlds: list[_World], rounds: int, claims: int) -> Result:
    small, _middle, large = worlds
    goals = [
        Goal(
            f"server CPU of {what}, as a multiple of {small.sources} sources'",
            "at most",
            TIMES,
            _times(large, small, call),
            "×",
        )
        for call, what in zip(_CALLS, ("a claim of 64", "a claim of 1", "an emit of 100", "an ack of 64"), strict=True)
    ]
    rows: list[list[Cell]] = []
    for world in worlds:
        spent = {call: medians(world.calls[call]) for call in _CALLS}
        servers: list[Cell] = [round(spent[call].server_s) for call in _CALLS]
        rows.append([world.sources, world.pending, *servers, *(round(spent[call].wall_s) for call in _CALLS)])
    beside: list[list[Cell]] = [
        [call, *(round(_times(large, base, call), 2) for base in worlds[:2]), round(_times(large, small, call, wall=True), 2)]
        for call in _CALLS
    ]
    return Result(
        "scale",
        f"The cost of a call at {large.name}",
        goals,
        [
            Table(
                f"Microseconds per call, medians of {rounds} rounds of {claims} claims",
                ["sources", "pending", *(f"{call}, server µs" for call in _CALLS), *(f"{call}, wall µs" for call in _CALLS)],
                rows,
            ),
            Table(
                f"{large.sources:,} sources as a multiple, medians of each round's own",
                ["call", "of 40 sources, server", "of 400 sources, server", "of 40 sources, wall"],
                beside,
            ),
            Table(
                "Making it",
                ["sources", "registered in s", "server µs each", "bytes each", "events stored /s, by 250"],
                [
                    [
                        world.sources,
                        round(world.registered.wall_s, 1),
                        round(world.registered.per(world.sources).server_s, 1),
                        round(world.source_bytes) if world.sources >= 1_000 else None,  # a few drown in connection buffers
                        round(world.pending / world.filled.wall_s),
                    ]
                    for world in worlds
                ],
            ),
        ],
        [
            "Every source has had an event of 1 ms before, so a turn of each is 5 events, and a claim of 64 is of 13 sources, "
            "however many there are. An emit of 100 is of up to 40 sources, or of 100: that part of its difference is the "
            "batch, not the size.",
            "Events are emitted for random sources, 100 in a call. The goals are on the server's processor time, which is what "
            "all consumers share.",
        ],
        _raw(worlds),
    )


def _times(large: _World, base: _World, call: str, *, wall: bool = False) -> float:
    pairs = zip(large.calls[call], base.calls[call], strict=True)
    return median([(a.wall_s / b.wall_s) if wall else (a.server_s / b.server_s) for a, b in pairs])


def _raw(worlds: list[_World]) -> dict[str, Any]:
    return {"claim_server_us": {world.name: medians(world.calls["claim 64"]).server_s for world in worlds}}
