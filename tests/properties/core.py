"""Promises 1 to 4, 6, 9 and 12: signals meet objects, leases end in every way, providers say wait, clocks jump."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from sourcebus.bus import Settle
from sourcebus.model import ChangeKind, Lease, Quota, Signal
from tests.properties.driver import LEASE_MS, Driver
from tests.properties.model import Object, Ref, Rules, Source

TWINS = Quota(rate=5.0, burst=2, concurrency=2, bucket="twins")
REFS: tuple[Ref, ...] = tuple((ref, ChangeKind.UPDATED) for ref in ("s", "1:s\x1f\n\ud83d"))
"""Few, so that calls meet on one object; odd, so that names might collide."""

PICK = st.integers(0, 5)


class Core(Driver):
    RULES: ClassVar = {
        "plain": Rules(Quota(concurrency=1), window_ms=1_000),
        "limited": Rules(Quota(rate=0.5, burst=2, concurrency=2), window_ms=500),
        "costly": Rules(Quota(rate=2.0, burst=3, concurrency=3), window_ms=0, cost=2.0),
        "twin:a": Rules(TWINS, window_ms=2_000),
        "twin\x1f€": Rules(TWINS, window_ms=0),
    }

    FIRST: ClassVar[Ref] = REFS[0]

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, list[list[float]]] = {}  # bucket → [when, units]: as charged, and as settled later

    # --- promise 4, told twice: the model's GCRA, and plainly, over every span of time ---------------------------

    def may_run(self, source_id: str, source: Source, o: Object, now: float) -> None:
        super().may_run(source_id, source, o, now)
        quota, name = source.rules.quota, self.model.bucket_name(source_id, source.rules.quota)
        spent = self.spent.setdefault(name, [])
        spent.append([now, source.rules.cost])
        if quota.rate:
            units = 0.0
            for began, cost in reversed(spent):
                units += cost
                allowed = quota.burst + quota.rate * (now - began) / 1000
                assert units <= allowed + 1e-6, f"promise 4: {units} units in a span that allows {allowed}"

    def end(self, lease: Lease, how: Settle | None, cost: float, wait_ms: float) -> None:
        """What a call really cost counts from its claim on, as if it had been known then."""
        super().end(lease, how, cost, wait_ms)
        rules = self.RULES[lease.source_id]
        spent = self.spent[self.model.bucket_name(lease.source_id, rules.quota)]
        next(e for e in spent if e == [lease.claimed_at_ms, rules.cost])[1] = 0.0 if how is Settle.RELEASE else cost

    # --- signals -------------------------------------------------------------------------------------------------

    @rule(
        source_id=st.sampled_from(sorted(RULES)),
        ref=st.sampled_from(REFS),
        signal=st.sampled_from([Signal.WEBHOOK, Signal.RECONCILE]),
    )
    def signal(self, source_id: str, ref: Ref, signal: Signal) -> None:
        self.emit(source_id, [ref], signal)

    @rule(
        source_id=st.sampled_from(sorted(RULES)),
        refs=st.lists(st.sampled_from(REFS), min_size=2, max_size=6),
        then_take=st.booleans(),
    )
    def storm(self, source_id: str, refs: Sequence[Ref], then_take: bool) -> None:
        self.emit(source_id, list(refs), Signal.WEBHOOK)
        if then_take:
            self.claim(8)

    def signal_for(self, lease: Lease) -> None:
        self.emit(lease.source_id, [(lease.object_ref, ChangeKind.UPDATED)], Signal.WEBHOOK)

    # --- leases --------------------------------------------------------------------------------------------------

    @rule(most=st.sampled_from([1, 2, 8]), lost_answer=st.booleans())
    def take(self, most: int, lost_answer: bool) -> None:
        """Twice where the answer was lost: nobody will ever settle what it held."""
        self.claim(most)
        if lost_answer:
            self.claim(most)

    @rule(most=st.sampled_from([2, 8]))
    def take_and_give_back(self, most: int) -> None:
        for lease in self.claim(most):
            self.settle(lease, Settle.RELEASE)

    @rule(
        pick=PICK,
        cost=st.sampled_from([1.0, 1.0, 0.0, 2.0, 6.0]),
        service_ms=st.sampled_from([0.0, 900.0]),
        dirty=st.booleans(),
        then=st.sampled_from(["rest", "take", "signal"]),
    )
    def finish(self, pick: int, cost: float, service_ms: float, dirty: bool, then: str) -> None:
        if lease := self.one(pick):
            if dirty:
                self.signal_for(lease)
            self.settle(lease, cost=cost, service_ms=service_ms)
            if then == "signal":
                self.signal_for(lease)
            elif then == "take":
                self.claim(8)

    @rule(
        pick=PICK,
        how=st.sampled_from(list(Settle)),
        wait_ms=st.sampled_from([300.0, 1_500.0]),
        dirty=st.booleans(),
        cost=st.sampled_from([1.0, 0.5, 3.0]),
    )
    def finish_badly(self, pick: int, how: Settle, wait_ms: float, dirty: bool, cost: float) -> None:
        if lease := self.one(pick):
            if dirty:
                self.signal_for(lease)
            self.settle(lease, how, cost=cost, wait_ms=wait_ms)

    @rule(pick=PICK, running=st.booleans(), how_long=st.sampled_from([10, 6_000]))
    def keep(self, pick: int, running: bool, how_long: float) -> None:
        """Others whose time is up meanwhile are lost; this one is not."""
        if lease := self.one(pick):
            self.clock.advance(how_long)
            self.extend(lease, running=running)
            self.clock.advance(how_long)
            self.tick()

    @precondition(lambda self: self.zombies)
    @rule(pick=st.integers(0, 20), how=st.integers(0, 7))
    def zombie_speaks(self, pick: int, how: int) -> None:
        self.settle_late(self.zombies[-1 - pick % len(self.zombies)], how)

    @rule(pick=PICK, returns=st.booleans())
    def every_worker_crashes(self, pick: int, returns: bool) -> None:
        """Zombies whose objects are at work again elsewhere must not end that."""
        self.one(pick)
        self.clock.advance(LEASE_MS + 1)
        if returns:
            self.tick()
            self.clock.advance(1_100)
            for _ in range(3):
                self.claim(8)
            again = {(lease.source_id, lease.object_ref): lease.fence for lease in self.live()}
            late = [z for z in self.zombies if again.get((z.source_id, z.object_ref), z.fence) != z.fence]
            for at, lease in enumerate(late[-4:]):
                self.settle_late(lease, at)

    @rule()
    def housekeeping(self) -> None:
        self.tick()

    # --- dead letters --------------------------------------------------------------------------------------------

    @rule(pick=PICK, decision=st.sampled_from(["replay", "drop", "later"]), dirty=st.booleans())
    def dies(self, pick: int, decision: str, dirty: bool) -> None:
        """And somebody decides about a dead letter: of this object, or of one that died earlier."""
        if lease := self.one(pick):
            if dirty:
                self.signal_for(lease)
            self.settle(lease, Settle.HOPELESS)
        dead = [(s, ref, letter) for s in self.model.sources.values() for ref, letter in s.dead.items()]
        if decision == "later" or not dead:
            return
        source, ref, letter = dead[pick % len(dead)]
        now = self.now()
        found = self.bus.replay(letter) is not None if decision == "replay" else self.bus.drop(letter)
        assert found, f"promise 9: dead letter {letter} is not there"
        if decision == "replay":
            source.replay(ref, now)
        else:
            del source.dead[ref]
        assert self.bus.replay(letter) is None and not self.bus.drop(letter), "promise 9: a dead letter was replayed twice"

    # --- what the provider says, and time ------------------------------------------------------------------------

    @rule(
        source_id=st.sampled_from(sorted(RULES)),
        how=st.sampled_from([Settle.THROTTLED, Settle.UNAVAILABLE, Settle.FAILED]),
        pause_ms=st.sampled_from([0, 700]),
    )
    def all_calls_fail(self, source_id: str, how: Settle, pause_ms: float) -> None:
        """One episode: all calls under way are refused, and the provider names shorter waits from one to the next."""
        self.emit(source_id, list(REFS), Signal.WEBHOOK)
        self.claim(8)
        for at, lease in enumerate(self.live()):
            self.settle(lease, how, wait_ms=2_000.0 / (at + 1))
        self.clock.advance(pause_ms)
        self.claim(8)

    @rule(
        source_id=st.sampled_from(sorted(RULES)),
        said=st.lists(
            st.tuples(st.sampled_from([0.0, 0.9, 1.0, 3.0, 1_000.0]), st.sampled_from([700.0, 4_000.0])), min_size=1, max_size=3
        ),
    )
    def headers(self, source_id: str, said: list[tuple[float, float]]) -> None:
        for remaining, left_ms in said:
            now = self.now()
            self.bus.feedback(source_id, remaining, left_ms)
            self.model.bucket_of(source_id).hear(remaining, left_ms, now)

    @rule(ms=st.sampled_from([1, 20, 200, 600, 1_100, 4_000, 11_000, 90_000]))
    def time_passes(self, ms: float) -> None:
        self.clock.advance(ms)

    @rule(ms=st.sampled_from([1, 700, 30_000]))
    def clock_jumps_back(self, ms: float) -> None:
        self.clock.advance(-ms)
