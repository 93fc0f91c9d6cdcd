"""The bus against a small pure-Python model, promise by promise (DESIGN §4).

Each rule is one call that a program could make at any moment, also with a lease it lost long ago. A crash is a lease that
nobody settles. Time is turned by hand and also jumps back. After every step the whole keyspace must be consistent; at the
end everything still owed must be delivered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis import Redis

from sourcebus.bus import Bus, Settle
from sourcebus.model import ChangeKind, Lease, Quota, Signal, SourceChanged
from sourcebus.testing import ManualClock
from tests.keyspace import check, read

_names = count(1)

SOURCES = ("plain", "limited", "twin:a", "twin\x1f€")
OBJECTS = ("s", "1:s\x1f\n\ud83d")  # few, so that calls meet on one object; odd, so that names might collide
LEASE_MS = 10_000
EPSILON_MS = 0.01

QUOTAS = {
    "plain": Quota(concurrency=1),
    "limited": Quota(rate=0.5, burst=2, concurrency=2),
    "twin:a": Quota(rate=5.0, burst=2, concurrency=2, bucket="twins"),
    "twin\x1f€": Quota(rate=5.0, burst=2, concurrency=2, bucket="twins"),
}
WINDOWS_MS = {"plain": 1_000, "limited": 500, "twin:a": 2_000, "twin\x1f€": 0}
MAX_ATTEMPTS = 3

Key = tuple[str, str]


@dataclass
class Held:
    lease: Lease
    deadline: float
    began: float


@dataclass
class Owed:
    """What the model knows of one object."""

    newest: float | None = None  # the newest accepted signal that no claim has begun after
    live: Held | None = None
    open_after: float = float("-inf")  # no claim before this: the window of the last successful one
    attempts: int = 0


@dataclass
class Bucket:
    """Spent tokens, in order: the GCRA bound is checked over every span that ends now."""

    spent: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    paused_until: float = float("-inf")


class BusMachine(RuleBasedStateMachine):
    """`redis` is set by the test that runs the machine."""

    redis: Redis

    def __init__(self) -> None:
        super().__init__()
        self.name = f"machine{next(_names)}"
        self.clock = ManualClock()
        self.high = self.clock.now  # the bus's time never goes back, so the model keeps the highest
        self.bus = Bus(self.redis, name=self.name, clock_ms=lambda: self.clock.now)
        self.owed: dict[Key, Owed] = {}
        self.buckets: dict[str, Bucket] = {}
        self.zombies: list[Lease] = []
        self.paused: set[str] = set()

    # --- the model's view ----------------------------------------------------------------------------------------

    def object(self, source_id: str, ref: str) -> Owed:
        return self.owed.setdefault((source_id, ref), Owed())

    def bucket(self, source_id: str) -> Bucket:
        return self.buckets.setdefault(QUOTAS[source_id].bucket or source_id, Bucket())

    def live(self) -> list[Held]:
        return [owed.live for owed in self.owed.values() if owed.live]

    def lose_expired(self) -> None:
        """A lease past its deadline is lost as soon as the bus looks; its holder becomes a zombie."""
        for owed in self.owed.values():
            if owed.live and owed.live.deadline <= self.high:
                self.zombies.append(owed.live.lease)
                self.failed(owed, owed.live, hopeless=False)
                owed.live = None

    # --- rules ---------------------------------------------------------------------------------------------------

    @initialize()
    def register(self) -> None:
        for source_id in SOURCES:
            self.bus.register(
                source_id,
                quota=QUOTAS[source_id],
                window_ms=WINDOWS_MS[source_id],
                max_attempts=MAX_ATTEMPTS,
                backoff_ms=100,
                backoff_cap_ms=1_000,
                refresh_ms=60_000,
            )

    @rule(ms=st.sampled_from([1, 20, 200, 600, 1_100, 4_000, 11_000]))
    def time_passes(self, ms: float) -> None:
        self.clock.advance(ms)
        self.high = max(self.high, self.clock.now)

    @rule(ms=st.sampled_from([1, 700, 30_000]))
    def clock_jumps_back(self, ms: float) -> None:
        self.clock.advance(-ms)
        # the bus's clock stands, then runs at half speed; the model need not know how far: it waits for the bus
        self.clock.now = self.clock.now + ms if ms > 20_000 else self.clock.now
        self.clock.now = max(self.clock.now, self.high)

    @rule(
        source_id=st.sampled_from(SOURCES),
        ref=st.sampled_from(OBJECTS),
        signal=st.sampled_from([Signal.WEBHOOK, Signal.RECONCILE]),
        kind=st.sampled_from([ChangeKind.UPDATED, ChangeKind.DELETED]),
    )
    def emit(self, source_id: str, ref: str, signal: Signal, kind: ChangeKind) -> None:
        emitted = self.bus.emit(SourceChanged(source_id, ref, kind, signal=signal))
        assert emitted.accepted + emitted.merged + emitted.deferred == 1
        self.object(source_id, ref).newest = self.high

    @rule(source_id=st.sampled_from(SOURCES), refs=st.lists(st.sampled_from(OBJECTS), min_size=2, max_size=8))
    def storm(self, source_id: str, refs: list[str]) -> None:
        emitted = self.bus.emit([SourceChanged(source_id, ref) for ref in refs])
        assert emitted.accepted + emitted.merged + emitted.deferred == len(refs)
        for ref in refs:
            self.object(source_id, ref).newest = self.high

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def emit_while_in_flight(self, data: Any) -> None:
        lease = data.draw(st.sampled_from(self.live())).lease
        self.emit(lease.source_id, lease.object_ref, Signal.WEBHOOK, ChangeKind.UPDATED)

    @rule(most=st.integers(1, 8))
    def claim(self, most: int) -> None:
        self.lose_expired()
        claimed = self.bus.claim(most, lease_ms=LEASE_MS, consumer="m")
        assert len(claimed.leases) <= most
        for lease in claimed.leases:
            self.begun(lease)

    def begun(self, lease: Lease) -> None:
        owed = self.object(lease.source_id, lease.object_ref)
        assert owed.live is None, f"promise 3: two live leases on {lease.object_ref!r}"
        assert owed.newest is not None, "a claim that nobody asked for"
        assert lease.source_id not in self.paused, "a paused source was claimed"
        assert self.high >= owed.open_after - EPSILON_MS, "promise 2: claimed again within the window"
        assert lease.attempt == owed.attempts + 1, "attempts are counted wrongly"
        bucket, quota = self.bucket(lease.source_id), QUOTAS[lease.source_id]
        assert self.high >= bucket.paused_until - EPSILON_MS, "promise 6: claimed during the provider's pause"
        owed.live = Held(lease, self.high + LEASE_MS, self.high)
        owed.newest = None
        busy = [held for held in self.live() if self.bucket(held.lease.source_id) is bucket]
        assert len(busy) <= quota.concurrency, "promise 4: above the concurrency cap"
        if quota.rate:
            bucket.spent.append((self.high, 1.0))
            self.within_rate(bucket, quota)

    def within_rate(self, bucket: Bucket, quota: Quota) -> None:
        assert quota.rate is not None
        for at, (began, _) in enumerate(bucket.spent):
            units = sum(cost for _, cost in bucket.spent[at:])
            allowed = quota.burst + quota.rate * (self.high - began) / 1000
            assert units <= allowed + 1e-6, f"promise 4: {units} units in a span that allows {allowed}"

    @precondition(lambda self: self.live())
    @rule(data=st.data(), service_ms=st.sampled_from([0.0, 3.0, 900.0]))
    def ack(self, data: Any, service_ms: float) -> None:
        self.lose_expired()
        self.reap()
        if not self.live():
            return
        held = data.draw(st.sampled_from(self.live()))
        lease = held.lease
        assert self.bus.ack([lease], service_ms=[service_ms]).done == [True]
        owed = self.object(lease.source_id, lease.object_ref)
        owed.live, owed.attempts = None, 0
        owed.open_after = held.began + WINDOWS_MS[lease.source_id]
        self.zombies.append(lease)

    def reap(self) -> None:
        """Lets the bus see what the model knows to be lost, so that both stand at the same moment."""
        self.bus.tick()

    @precondition(lambda self: self.live())
    @rule(
        data=st.data(),
        how=st.sampled_from(list(Settle)),
        wait_ms=st.sampled_from([300, 1_500]),
        then_claim=st.booleans(),
        dirty=st.booleans(),
    )
    def nack(self, data: Any, how: Settle, wait_ms: int, then_claim: bool, dirty: bool) -> None:
        self.lose_expired()
        self.reap()
        if not self.live():
            return
        held = data.draw(st.sampled_from(self.live()))
        lease, owed = held.lease, self.object(held.lease.source_id, held.lease.object_ref)
        if dirty:
            self.emit(lease.source_id, lease.object_ref, Signal.WEBHOOK, ChangeKind.UPDATED)
        assert self.bus.nack([lease], "no", how=how, wait_ms=wait_ms).done == [True]
        self.zombies.append(lease)
        owed.live = None
        bucket = self.bucket(lease.source_id)
        if how in (Settle.THROTTLED, Settle.UNAVAILABLE):
            bucket.paused_until = max(bucket.paused_until, self.high + wait_ms)
        if how is Settle.RELEASE and QUOTAS[lease.source_id].rate:
            bucket.spent = self.refunded(bucket, held.began)
        if how in (Settle.FAILED, Settle.HOPELESS):
            self.failed(owed, held, hopeless=how is Settle.HOPELESS)
        elif owed.newest is None:
            owed.newest = held.began
        owed.open_after = float("-inf")
        if then_claim:
            self.time_passes(wait_ms * 3 // 5)
            self.claim(8)

    @staticmethod
    def refunded(bucket: Bucket, began: float) -> list[tuple[float, float]]:
        left = list(bucket.spent)
        left.remove((began, 1.0))
        return left

    def failed(self, owed: Owed, held: Held, *, hopeless: bool) -> None:
        owed.attempts += 1
        owed.open_after = float("-inf")
        if hopeless or owed.attempts >= MAX_ATTEMPTS:
            owed.attempts = 0  # a dead letter; a newer change lives on with fresh attempts
        elif owed.newest is None:
            owed.newest = held.began

    @precondition(lambda self: self.zombies)
    @rule(data=st.data(), acked=st.booleans())
    def zombie_settles(self, data: Any, acked: bool) -> None:
        lease = data.draw(st.sampled_from(self.zombies))
        before = read(self.redis, self.name).records
        settled = self.bus.ack([lease]) if acked else self.bus.nack([lease], "late")
        assert settled.done == [False], "promise 3: a lease that was over settled something"
        assert read(self.redis, self.name).records == before, "promise 3: a zombie changed a record"

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def extend(self, data: Any) -> None:
        self.lose_expired()
        self.reap()
        if not self.live():
            return
        held = data.draw(st.sampled_from(self.live()))
        assert self.bus.extend([held.lease], lease_ms=LEASE_MS, running=held.lease) == [True]
        held.deadline = self.high + LEASE_MS

    @precondition(lambda self: self.live())
    @rule()
    def every_worker_crashes(self) -> None:
        self.time_passes(LEASE_MS + 1)
        self.tick()
        self.time_passes(1_100)
        self.claim(8)

    @precondition(lambda self: self.live())
    @rule(data=st.data(), dirty=st.booleans())
    def ack_then_claim(self, data: Any, dirty: bool) -> None:
        if dirty:
            for held in self.live():
                self.emit(held.lease.source_id, held.lease.object_ref, Signal.WEBHOOK, ChangeKind.UPDATED)
        self.ack(data, 0.0)
        self.claim(8)

    @rule()
    def tick(self) -> None:
        self.lose_expired()
        self.bus.tick()

    @rule(source_id=st.sampled_from(SOURCES))
    def pause(self, source_id: str) -> None:
        self.bus.pause(source_id)
        self.paused.add(source_id)

    @rule(source_id=st.sampled_from(SOURCES))
    def resume(self, source_id: str) -> None:
        self.bus.resume(source_id)
        self.paused.discard(source_id)

    # --- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def keyspace_is_consistent(self) -> None:
        check(read(self.redis, self.name))

    def teardown(self) -> None:
        """Promise 1: with a worker that always succeeds, everything owed is delivered, and then nothing is left."""
        if not self.buckets and not self.owed:
            return
        for source_id in SOURCES:
            self.bus.resume(source_id)
        self.paused.clear()
        for _ in range(400):
            self.lose_expired()
            claimed = self.bus.claim(8, lease_ms=LEASE_MS, consumer="drain")
            for lease in claimed.leases:
                owed = self.object(lease.source_id, lease.object_ref)
                owed.newest, owed.live, owed.attempts = None, None, 0
                assert self.bus.ack([lease]).done == [True]
            if not claimed.leases:
                self.clock.advance(1_000)
                self.high = self.clock.now
                self.bus.tick()
            if not any(owed.newest is not None or owed.live for owed in self.owed.values()):
                break
        still = [key for key, owed in self.owed.items() if owed.newest is not None]
        assert not still, f"promises 1 and 9: lost {still}"
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        for _ in range(20):
            self.clock.advance(5_000)
            self.bus.tick()
        space = read(self.redis, self.name)
        check(space)
        assert space.records == {}, "a key is left without an owner"
        assert not any(space.sets.get(key) for key in ("x", "d", "z", "w"))
        self.redis.delete(*(f"{{{self.name}}}:{suffix}" for suffix in space.suffixes))
