"""Promises 7 and 8: what a person asks for, what is announced, and backfill, on one small quota and one that is not."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sourcebus.bus import Settle
from sourcebus.model import ChangeKind, Lease, Quota, Signal
from tests.properties.driver import LEASE_MS, Driver
from tests.properties.model import WHOLE, Ref, Rules

REFS: tuple[Ref, ...] = tuple((f"o{at}", ChangeKind.UPDATED) for at in range(12))
PICK = st.integers(0, 11)


class Lanes(Driver):
    """Half of an hour of requests is what `tiny` may spend on refreshes; the others are capped at one a minute."""

    RULES: ClassVar = {
        "tiny": Rules(Quota(rate=1 / 90, burst=1, concurrency=2), window_ms=30_000, live_weight=2),
        "dear": Rules(Quota(rate=1, burst=4, concurrency=3), window_ms=0, cost=3.0, refresh_ms=2_000, live_weight=1),
        "wide": Rules(
            Quota(concurrency=30),
            window_ms=9_000,
            live_weight=3,
            max_attempts=2,
            backoff_ms=5_000,
            backoff_cap_ms=9_000,
            refresh_ms=2_000,
        ),
    }

    def __init__(self) -> None:
        super().__init__()
        self.refreshes: dict[str, list[float]] = {source_id: [] for source_id in self.RULES}

    @rule(
        source_id=st.sampled_from(sorted(RULES)),
        first=PICK,
        many=st.integers(1, 6),
        live=st.booleans(),
        then_take=st.sampled_from([0, 0, 2]),
    )
    def signals(self, source_id: str, first: int, many: int, live: bool, then_take: int) -> None:
        refs = [REFS[(first + at) % len(REFS)] for at in range(many)]
        self.emit(source_id, refs, Signal.WEBHOOK if live else Signal.RECONCILE)
        if then_take:
            self.claim(then_take)

    @rule(most=st.integers(1, 9))
    def take(self, most: int) -> None:
        self.claim(most)

    @rule(source_id=st.sampled_from(sorted(RULES)), ref=st.one_of(st.just(WHOLE), st.sampled_from(REFS)))
    def person_asks(self, source_id: str, ref: Ref) -> None:
        """Twice, as impatient people do: the second is refused, whatever became of the first."""
        status = self.refresh(source_id, ref)
        if status != "capped":
            self.at_most_half(source_id)
        assert self.refresh(source_id, ref) == "capped", "promise 7: two refreshes at one moment"

    def at_most_half(self, source_id: str) -> None:
        """Promise 7, told a second time: over any span, refreshes cost at most half of what the quota gives, and one more."""
        now, rules, taken = self.model.time.now, self.RULES[source_id], self.refreshes[source_id]
        taken.append(now)
        for at, began in enumerate(taken):
            calls, span = len(taken) - at, now - began
            assert calls <= 1 + span / rules.refresh_ms, f"promise 7: {calls} refreshes in {span} ms"
            if rules.quota.rate:
                half = rules.quota.rate * span / 1000 / 2
                assert (calls - 1) * rules.cost <= half + 1e-6, f"promise 7: {calls} refreshes in {span} ms take more than half"

    @rule(pick=PICK, ask=st.booleans())
    def asks_for_what_is_read(self, pick: int, ask: bool) -> None:
        if lease := self.one(pick):
            self.newer(lease, ask=ask)

    def newer(self, lease: Lease, *, ask: bool) -> None:
        ref = lease.object_ref, lease.change_kind
        if ask:
            self.refresh(lease.source_id, ref)
        else:
            self.emit(lease.source_id, [ref], Signal.RECONCILE)

    @rule(pick=PICK, good=st.booleans(), cost=st.sampled_from([1.0, 3.0, 8.0]), asks=st.booleans())
    def finish(self, pick: int, good: bool, cost: float, asks: bool) -> None:
        """And somebody asks for it at once: neither its window nor its backoff counts then."""
        if lease := self.one(pick):
            self.settle(lease, None if good else Settle.FAILED, cost=cost)
            if asks:
                self.newer(lease, ask=True)

    @rule(
        pick=PICK,
        signal=st.sampled_from([Signal.RECONCILE, Signal.POLL, Signal.MANUAL]),
        caught_up=st.booleans(),
        told=st.sampled_from([None, Signal.RECONCILE, Signal.WEBHOOK]),
        others=st.integers(0, 3),
    )
    def a_listing_is_cut(self, pick: int, signal: Signal, caught_up: bool, told: Signal | None, others: int) -> None:
        """It goes on in the lane of its pass, behind others there, or in that of who told of something newer."""
        if lease := self.one_scan(pick):
            scope = lease.object_ref, lease.change_kind
            self.emit(lease.source_id, [*([scope] if told else []), *REFS[:others]], told or signal)
            self.requeue(lease, signal, caught_up=caught_up, cost=3.0)

    @rule(cost=st.sampled_from([1.0, 3.0]))
    def finish_all(self, cost: float) -> None:
        for lease in self.live():
            self.settle(lease, cost=cost)

    @rule(pick=PICK, how=st.sampled_from([Settle.THROTTLED, Settle.UNAVAILABLE, Settle.RELEASE]))
    def give_up(self, pick: int, how: Settle) -> None:
        if lease := self.one(pick):
            self.settle(lease, how, wait_ms=7_000)

    @rule(pick=PICK, asked=st.booleans())
    def dies(self, pick: int, asked: bool) -> None:
        """Even while somebody asks for it."""
        if lease := self.one(pick):
            if asked:
                self.clock.advance(2_000)
                self.newer(lease, ask=True)
            self.settle(lease, Settle.HOPELESS)

    @rule(pick=PICK)
    def crash(self, pick: int) -> None:
        self.one(pick)
        self.clock.advance(LEASE_MS + 1)
        self.tick()

    @rule(ms=st.sampled_from([100, 1_000, 7_000, 45_000, 100_000]))
    def time_passes(self, ms: float) -> None:
        self.clock.advance(ms)
