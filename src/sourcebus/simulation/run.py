"""Runs a world: real scripts, virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sourcebus.bus import DeadLetter
from sourcebus.bus.store import Store
from sourcebus.simulation.ending import judge_leaks, judge_truth
from sourcebus.simulation.intake import Intake
from sourcebus.simulation.judge import Books, Judge
from sourcebus.simulation.loop import Loop
from sourcebus.simulation.place import Celery, Place, places
from sourcebus.simulation.report import Freshness, Report, report_of
from sourcebus.simulation.sampler import Sampler
from sourcebus.simulation.slot import Slot
from sourcebus.simulation.trace import Trace
from sourcebus.simulation.truth import SimChange, schedule
from sourcebus.simulation.wire import Wire
from sourcebus.simulation.world import (
    ClockJump,
    Crash,
    Happening,
    Pause,
    Put,
    RedisRestart,
    RedisWipe,
    Refresh,
    Remove,
    Stall,
    World,
)

START_MS = 1_800_000_000_000.0
"""The server's clock when a run begins."""

_LOOK_MS = 5_000.0
_FORGOTTEN_MS = 90_000.0
"""After this long the bus has forgotten every consumer and invitation that is gone."""


def simulate(
    world: World,
    redis_url: str,
    *,
    bus_name: str = "simulation",
    trace: Callable[[str], object] | None = None,
    audit: Callable[[], object] | None = None,
) -> Report:
    """Runs `world` on the server at `redis_url`, under `bus_name`, whose keys are wiped first.

    `trace` takes every step as a JSON line. `audit` is called at each sample and may raise `AssertionError`, which counts as
    a broken promise. Raises `BusUnavailable` where the server does not answer.
    """
    store = Store.from_url(redis_url, name=bus_name)
    try:
        store.wipe()
        return _Run(world, store, trace, audit).report()
    finally:
        store.wipe()
        store.close()


class _Run:
    def __init__(
        self,
        world: World,
        store: Store,
        trace: Callable[[str], object] | None,
        audit: Callable[[], object] | None,
    ) -> None:
        self.world, self.store, self.audit = world, store, audit
        self.loop = loop = Loop(0.0)
        self.skew_ms = 0.0
        self.bus = store.bus(self.server_ms)
        self.judge = Judge(lambda: loop.now, self.server_ms)
        self.trace = Trace(lambda: loop.now, trace)
        self.places = places(world, lambda: loop.now)
        self.wire = Wire(
            self.bus,
            store,
            self.judge,
            self.trace,
            lambda source_id, ref: self.places[source_id].truth.version(ref)[0],
            lost_replies=world.lost_replies,
            random=world.random("replies"),
        )
        self.celery = Celery(loop, world.celery_ms)
        self.intake = Intake(world, loop, self.wire, self.celery, self.places)
        self.sampler = Sampler(world, self.judge, self.places, self.wire)
        self.slots = [
            Slot(number, world, loop, self.wire, self.celery, self.places, self.intake.accept, self.trace)
            for number in range(world.slots)
        ]
        self.letters: list[DeadLetter] = []

    def server_ms(self) -> float:
        return START_MS + self.loop.now + self.skew_ms

    def stop(self) -> bool:
        return len(self.judge.broken) > 0

    def report(self) -> Report:
        self._plan()
        self.loop.run(self.world.duration_ms, self.stop)
        busy = sum(slot.busy_ms for slot in self.slots) / (self.world.slots * self.world.duration_ms)
        self._settle()
        settled_ms = self.loop.now - self.world.duration_ms
        if not self.stop():
            self._judge_the_end()
        return self._report(busy, settled_ms)

    # --- what is planned -----------------------------------------------------------------------------------------

    def _plan(self) -> None:
        for source in self.world.sources:
            self.intake.put(source)
        for source_id, place in self.places.items():
            for change in schedule(self.world, place.source):
                self.loop.at(change.at_ms, lambda place=place, change=change: self._change(place, change))
            if place.source.reconcile_ms:
                self.intake.reconcile_later(source_id)
        for happening in self.world.happenings:
            self.loop.at(happening.at_ms, lambda happening=happening: self._happens(happening))
            if isinstance(happening, RedisRestart) and happening.loses_ms:
                self._plan_loss(happening)
        self._tick()
        self._sample()

    def _change(self, place: Place, change: SimChange) -> None:
        place.truth.apply(change)
        if place.present:
            place.changes += 1
            place.index.changed(change, self.loop.now)
        self.intake.changed(place, change)

    def _tick(self) -> None:
        if any(slot.alive for slot in self.slots):
            self.intake.tick()
        self.loop.after(self.world.tick_ms, self._tick)

    def _sample(self) -> None:
        self.sampler.sample(self.loop.now, sum(slot.alive for slot in self.slots))
        self._audit()
        self.loop.after(self.world.sample_ms, self._sample)

    def _audit(self) -> None:
        if self.audit:
            try:
                self.audit()
            except AssertionError as error:
                self.judge.breaks(12, f"the keyspace: {error}")

    # --- what happens --------------------------------------------------------------------------------------------

    def _happens(self, happening: Happening) -> None:
        self.trace.line("happens", what=type(happening).__name__)
        match happening:
            case Put(source=source):
                self.intake.put(source)
            case Remove(source_id=source_id):
                self.intake.remove(source_id)
            case Pause(source_id=source_id, for_ms=for_ms):
                self.intake.hold(source_id, True)
                self.loop.after(for_ms, lambda: self.intake.hold(source_id, False))
            case Refresh(source_id=source_id, object_ref=ref):
                self.intake.refresh(source_id, ref)
            case _:
                self.sampler.disturbed()
                self._fault(happening)

    def _fault(self, fault: Happening) -> None:
        match fault:
            case Crash(down_ms=down_ms, slot=number):
                for slot in self.slots if number is None else [self.slots[number]]:
                    slot.crash(down_ms)
            case Stall(for_ms=for_ms, slot=number):
                self.slots[number].stall(for_ms)
            case RedisWipe():
                self.store.wipe()
                self.celery.lose_all()
                self.judge.lost(Books())
            case RedisRestart(down_ms=down_ms):
                self.wire.down, self.celery.reachable = True, False
                self.celery.lose_all()
                while self.wire.waiters:
                    self.wire.waiters.popleft().wake()  # to find that the connection is gone
                self.loop.after(down_ms, self._redis_is_back)
            case ClockJump(by_ms=by_ms):
                self.judge.clock_was_set()
                self.skew_ms += by_ms
            case _:
                raise AssertionError(fault)

    def _redis_is_back(self) -> None:
        self.wire.down, self.celery.reachable = False, True

    def _plan_loss(self, restart: RedisRestart) -> None:
        """What is lost is all since a copy that is taken at the right moment before."""

        def take() -> None:
            if self.wire.down:
                return  # it is away already: nothing happens that could be lost
            copy, books = self.store.copy(), self.judge.books.copy()
            self.loop.at(restart.at_ms, lambda: self._put_back(copy, books))

        self.loop.at(max(0.0, restart.at_ms - restart.loses_ms), take)

    def _put_back(self, copy: dict[bytes, bytes], books: Books) -> None:
        self.store.put_back(copy)
        self.judge.lost(books)
        self.trace.line("put_back", keys=len(copy))

    # --- the end -------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Nothing changes any more; polls go on until each has begun once more, then until nothing is owed."""
        self.loop.run(self.world.duration_ms + self._longest_happening(), self.stop)
        for place in self.places.values():
            if place.held:
                self.intake.hold(place.source.id, False)
        deadline = self.world.duration_ms + self.world.settle_ms
        for done in (self._all_polled, self._quiet):
            if done == self._quiet:
                self.intake.end_polls()
            while not done() and not self.stop():
                if self.loop.now > deadline:
                    self.judge.breaks(
                        1, f"{self.world.settle_ms / 60_000:.0f} minutes after the last change work is still owed"
                    )
                self.loop.run(self.loop.now + _LOOK_MS, self.stop)

    def _longest_happening(self) -> float:
        ends = [getattr(h, "for_ms", 0.0) + getattr(h, "down_ms", 0.0) + h.at_ms for h in self.world.happenings]
        return max(0.0, max(ends, default=0.0) - self.world.duration_ms)

    def _all_polled(self) -> bool:
        return all(
            place.listed_at_ms >= self.world.duration_ms
            for place in self.places.values()
            if place.present and (place.source.poll_ms or place.source.reconcile_ms)
        )

    def _quiet(self) -> bool:
        if self.intake.outstanding:
            return False
        stats = self.wire.stats([source_id for source_id, place in self.places.items() if place.present])
        return all(one is not None and one.pending == one.in_flight == 0 for one in stats)

    def _judge_the_end(self) -> None:
        self.letters = self.wire.dead_letters()
        judge_truth(self.judge, self.places, self.judge.all_delivered(self.letters))
        longest = max((source.window_ms for source in self.judge.sources.values()), default=0.0)
        self.loop.run(self.loop.now + _FORGOTTEN_MS + longest, self.stop)
        self._audit()
        judge_leaks(self.judge, self.bus, self.store)

    def _report(self, busy: float, settled_ms: float) -> Report:
        dead = Counter(letter.source_id for letter in self.letters)
        seconds = self.world.duration_ms / 1000
        sources = tuple(report_of(place, dead[source_id], seconds) for source_id, place in self.places.items())
        arrived = [ms for place in self.places.values() for ms in place.index.fresh_ms]
        missing = sum(place.index.waiting() for place in self.places.values())
        return Report(
            self.world.seed,
            sources,
            Freshness.of(arrived, missing),
            busy,
            self.loop.now,
            settled_ms,
            self.wire.calls,
            self.trace.lines,
            self.trace.digest,
            tuple(self.judge.broken),
        )
