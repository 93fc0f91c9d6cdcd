"""The bus as a small program without Redis: what DESIGN §4 says, for one call at a time.

It is exact in everything that is promised (states, due times, tokens, attempts, lanes, caps, pauses) and says nothing of
how it is stored. Only the order between sources is left open; `fairness` judges that. Times are ms on the bus's clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum
from math import ceil, inf

from sourcebus.bus import Settle
from sourcebus.model import ChangeKind, Lease, Quota, Signal

RECOVERY_MS = 600_000  # a halved rate is whole again after this long without a 429
LEAST_SHARE = 1 / 64
EPSILON_MS = 1e-3

Ref = tuple[str, ChangeKind]
"""An object within its source; scopes have a namespace of their own, so all kinds but SCAN stand for one."""


def ref_of(object_ref: str, kind: ChangeKind) -> Ref:
    return object_ref, ChangeKind.SCAN if kind is ChangeKind.SCAN else ChangeKind.UPDATED


WHOLE: Ref = ("", ChangeKind.SCAN)


class Lane(IntEnum):
    BACKFILL, LIVE, MANUAL = 0, 1, 2


LANES = {Signal.RECONCILE: Lane.BACKFILL, Signal.MANUAL: Lane.MANUAL}


def lane_of(signal: Signal) -> Lane:
    return LANES.get(signal, Lane.LIVE)


class State(IntEnum):
    READY, DELAYED, IN_FLIGHT, COOLING = 1, 2, 3, 4


@dataclass
class Time:
    """Promise 12: never back, and after a jump ahead that was a mistake at half speed until the server has caught up."""

    raw: float = 0
    now: float = 0

    def see(self, raw: float) -> float:
        passed, self.raw = max(0.0, raw - self.raw), raw
        behind = self.now + passed <= raw
        self.now = raw if behind else max(raw, self.now + passed // 2)
        return self.now


@dataclass
class Bucket:
    """`full_at`: when all tokens are back (GCRA's one number). `share`: of the configured rate, as it was at `share_at`."""

    quota: Quota
    full_at: float = 0
    paused_until: float = 0
    share: float = 1
    share_at: float = 0
    halved_at: float = 0

    @property
    def per_ms(self) -> float:
        return (self.quota.rate or 0) / 1000

    def share_now(self, now: float) -> float:
        return min(1.0, self.share + max(0.0, now - self.share_at) / RECOVERY_MS)

    def wake_at(self, cost: float) -> float:
        """When there are tokens for a call of this cost; one above the burst waits for a full bucket."""
        if not self.per_ms:
            return 0
        return self.full_at - (self.quota.burst - min(cost, self.quota.burst)) / self.per_ms

    def charge(self, cost: float, now: float) -> None:
        if self.per_ms:
            self.full_at = max(now, self.full_at) + cost / (self.per_ms * self.share_now(now))

    def settle(self, more: float, claimed: float, now: float) -> None:
        """Debt at the rate of now; what comes back at the full one, less what time has brought back since the claim."""
        if self.per_ms and more > 0:
            self.full_at += more / (self.per_ms * self.share_now(now))
        elif self.per_ms:
            self.full_at -= max(0.0, -more / self.per_ms - (now - claimed))

    def pause(self, until: float) -> None:
        self.paused_until = max(self.paused_until, ceil(until))

    def halve(self, claimed: float, now: float) -> None:
        """Promise 6: once for all calls that were under way when the episode began."""
        if claimed > self.halved_at:
            self.share, self.share_at, self.halved_at = max(LEAST_SHARE, self.share_now(now) / 2), now, now

    def hear(self, remaining: float, left_ms: float, now: float) -> None:
        if remaining < 1:
            self.pause(now + left_ms)
        elif self.per_ms:
            self.share, self.share_at = max(LEAST_SHARE, min(1.0, remaining / left_ms / self.per_ms)), now


@dataclass
class Object:
    """`due`: of a delayed one (None: known to lie in `due_within`), or the end of a cooling one's window. `owed`: when the
    newest signal was accepted that no claim has begun after (promise 1). Of a scan, `begun`: its pass may be under way;
    `newer`: and a signal has come since. `ready_no` changes whenever it takes a new place in its lane; `behind` are those
    that a scan that was cut waits for."""

    state: State
    lane: Lane
    due: float | None = None
    due_within: tuple[float, float] = (0, 0)
    attempts: int = 0
    solo: bool = False
    begun: bool = False
    newer: bool = False
    dirty: bool = False
    owed: float | None = None
    lease: Lease | None = None
    claimed: float = 0
    deadline: float = 0
    charged: float = 0
    ready_no: int = 0
    behind: list[tuple[Object, int]] = field(default_factory=list["tuple[Object, int]"])

    def rest_of_pass(self) -> None:
        """Promise 10: what was told while a scan was at work is remembered beyond its lease."""
        self.begun, self.newer = True, self.newer or self.dirty

    def take_place(self) -> None:
        self.ready_no, self.behind = self.ready_no + 1, []

    def passes(self) -> list[Object]:
        """Those of `behind` that still wait where they did."""
        return [o for o, ready_no in self.behind if o.state is State.READY and o.ready_no == ready_no]


@dataclass
class Rules:
    """How a source is registered; the names are those of `Bus.register`."""

    quota: Quota = field(default_factory=Quota)
    window_ms: float = 1_000
    max_attempts: int = 3
    backoff_ms: float = 100
    backoff_cap_ms: float = 1_000
    max_pending: int = 200_000
    cost: float = 1.0
    live_weight: int = 8
    refresh_ms: float = 60_000
    weight: float = 1.0


@dataclass
class Counts:
    """All-time counters, as `SourceStats` names them."""

    accepted: int = 0
    merged: int = 0
    claimed: int = 0
    acked: int = 0
    nacked: int = 0
    reaped: int = 0
    throttled: int = 0
    reruns: int = 0
    overflowed: int = 0


@dataclass
class Source:
    rules: Rules
    paused: bool = False
    objects: dict[Ref, Object] = field(default_factory=dict[Ref, Object])
    dead: dict[Ref, str] = field(default_factory=dict[Ref, str])  # object → id of its dead letter
    live_run: int = 0  # live claims since the last backfill claim, while both waited
    refreshed: float = 0
    away_until: float = 0
    left_behind: set[tuple[Ref, Lane]] = field(default_factory=set["tuple[Ref, Lane]"])
    """Places in lanes that objects left for a better one: who comes back there may find the old place."""
    counts: Counts = field(default_factory=Counts)

    def ready(self, lane: Lane | None = None) -> list[Object]:
        return [o for o in self.objects.values() if o.state is State.READY and lane in (None, o.lane)]

    def pending(self) -> int:
        return sum(o.state in (State.READY, State.DELAYED) for o in self.objects.values())

    def live(self) -> list[Object]:
        return [o for o in self.objects.values() if o.state is State.IN_FLIGHT]

    # --- signals -------------------------------------------------------------------------------------------------

    def accept(self, ref: Ref, lane: Lane, now: float) -> str:
        """One signal meets its object: accepted, merged, deferred or overflowed (promises 1, 2, 10)."""
        known = self.objects.get(ref)
        if known and known.state is State.IN_FLIGHT:
            answer = "merged" if known.dirty else "deferred"
            known.lane = max(known.lane, lane) if known.dirty else lane
            known.dirty, known.owed = True, now
            return answer
        if known and known.state is not State.COOLING:
            if known.lane < lane and (lane is Lane.MANUAL or known.state is State.READY):
                self.left_behind.add((ref, known.lane))
                known.state, known.due = State.READY, None
                known.take_place()
            known.lane, known.owed, known.newer = max(known.lane, lane), now, known.begun
            return "merged"
        if ref[1] is not ChangeKind.SCAN and self.pending() >= self.rules.max_pending:
            self.counts.overflowed += 1
            self.accept(WHOLE, lane, now)
            return "overflowed"
        due = known.due if known and known.due is not None and lane is not Lane.MANUAL else now
        self.objects[ref] = Object(State.READY, lane, owed=now)
        self.wait_until(self.objects[ref], due, now)
        return "deferred" if due > now else "accepted"

    def count(self, answer: str) -> None:
        self.counts.accepted += 1
        self.counts.merged += answer == "merged"

    @staticmethod
    def wait_until(o: Object, due: float, now: float) -> None:
        o.state, o.due, o.lease = (State.DELAYED, due, None) if due > now else (State.READY, None, None)
        o.take_place()

    # --- leases --------------------------------------------------------------------------------------------------

    def begin(self, o: Object, lease: Lease, now: float) -> None:
        o.state, o.lease, o.claimed, o.deadline = State.IN_FLIGHT, lease, now, lease.deadline_ms
        o.attempts, o.charged, o.dirty, o.owed = o.attempts + 1, self.rules.cost, False, None
        self.counts.claimed += 1

    def succeed(self, ref: Ref, now: float) -> None:
        o = self.objects[ref]
        self.counts.acked += 1
        self.dead.pop(ref, None)
        ends = o.claimed + self.rules.window_ms
        if o.dirty:
            self.counts.reruns += 1
            self.begin_anew(o)
            self.wait_until(o, now if o.lane is Lane.MANUAL else ends, now)
        elif ends > now:
            self.objects[ref] = Object(State.COOLING, Lane.BACKFILL, due=ends)
        else:
            del self.objects[ref]

    @staticmethod
    def begin_anew(o: Object) -> None:
        """For the newer signal alone."""
        o.attempts, o.solo, o.begun, o.newer, o.dirty = 0, False, False, False, False

    def go_on(self, ref: Ref, lane: Lane, *, caught_up: bool) -> None:
        """Promise 10: a scan was cut; the rest is due at once, behind what waits in its lane."""
        o = self.objects[ref]
        self.counts.acked += 1
        o.lane = max(lane, o.lane) if o.dirty else lane
        o.newer = o.newer and not caught_up
        o.rest_of_pass()
        o.state, o.lease, o.attempts, o.solo, o.dirty = State.READY, None, 0, False, False
        o.owed = o.claimed if o.owed is None else o.owed
        o.take_place()
        if (ref, o.lane) not in self.left_behind:
            o.behind = [(each, each.ready_no) for each in self.ready(o.lane) if each is not o]

    def give_back(self, ref: Ref, *, tried: bool) -> None:
        o = self.objects[ref]
        if o.begun or (tried and ref[1] is ChangeKind.SCAN):
            o.rest_of_pass()
        o.state, o.lease, o.attempts, o.dirty = State.READY, None, o.attempts - 1, False
        o.owed = o.claimed if o.owed is None else o.owed
        o.take_place()

    def fail(self, ref: Ref, now: float, *, hopeless: bool = False, lost: bool = False) -> None:
        """Promise 9: later again, or a dead letter that takes no newer change with it."""
        o, rules = self.objects[ref], self.rules
        assert o.lease
        if hopeless or o.attempts >= rules.max_attempts:
            self.dead[ref] = str(o.lease.fence)
            if not o.dirty:
                del self.objects[ref]
                return
            self.begin_anew(o)
            self.wait_until(o, now if o.lane is Lane.MANUAL else max(now, o.claimed + rules.window_ms), now)
            return
        if ref[1] is ChangeKind.SCAN:
            o.rest_of_pass()
        span = min(rules.backoff_cap_ms, rules.backoff_ms * 2 ** (o.attempts - 1))
        o.state, o.due, o.due_within, o.lease = State.DELAYED, None, (now + span // 2, now + span), None
        o.solo, o.dirty, o.owed = o.solo or lost, False, o.claimed if o.owed is None else o.owed

    def replay(self, ref: Ref, now: float) -> None:
        self.dead.pop(ref)
        self.accept(ref, Lane.LIVE, now)


@dataclass
class Model:
    """All of one bus. `buckets` by name: ``own:<source>`` or the shared one's."""

    time: Time = field(default_factory=Time)
    sources: dict[str, Source] = field(default_factory=dict[str, Source])
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])

    @staticmethod
    def bucket_name(source_id: str, quota: Quota) -> str:
        return quota.bucket or f"own:{source_id}"

    def bucket_of(self, source_id: str) -> Bucket:
        return self.buckets[self.bucket_name(source_id, self.sources[source_id].rules.quota)]

    def members(self, name: str) -> list[Source]:
        return [s for source_id, s in self.sources.items() if self.bucket_name(source_id, s.rules.quota) == name]

    def in_flight(self, name: str) -> int:
        return sum(len(s.live()) for s in self.members(name))

    def register(self, source_id: str, rules: Rules, *, paused: bool) -> None:
        old, name = self.sources.get(source_id), self.bucket_name(source_id, rules.quota)
        moved = old is None or self.bucket_name(source_id, old.rules.quota) != name
        if name not in self.buckets or (moved and not rules.quota.bucket):
            self.buckets[name] = Bucket(rules.quota)
        if rules.quota.bucket:
            self.buckets.pop(f"own:{source_id}", None)
        self.buckets[name].quota = rules.quota
        source = self.sources.setdefault(source_id, Source(rules))
        source.rules, source.paused = rules, paused

    def unregister(self, source_id: str) -> list[Lease]:
        """Answers the leases that are over by this."""
        self.buckets.pop(f"own:{source_id}", None)
        return [o.lease for o in self.sources.pop(source_id).live() if o.lease]

    def can_run(self, name: str, now: float, *, unseen: Collection[str] = ()) -> tuple[bool, float]:
        """Whether something of this bucket may be claimed now; if only time is wanting, when it may. `unseen`: sources that are
        back, which the bus will see when it looks."""
        bucket = self.buckets[name]
        runnable = [s for s in self.members(name) if not s.paused and s.ready()]
        runnable = [s for s in runnable if all(s is not self.sources[source_id] for source_id in unseen)]
        if bucket.quota.bucket:  # its other sources run meanwhile; when it is looked at again: `back_at`
            runnable = [s for s in runnable if s.away_until <= now]
        if not runnable:
            return False, inf
        paused_until = max(bucket.paused_until, *(s.away_until for s in runnable))
        if paused_until > now:
            return False, paused_until
        if self.in_flight(name) >= bucket.quota.concurrency:
            return False, inf
        if any(s.ready(Lane.MANUAL) for s in runnable):
            return True, now
        wake = max(ceil(bucket.wake_at(s.rules.cost) - EPSILON_MS) for s in runnable)
        return wake <= now, wake

    def back_at(self, source_id: str, now: float) -> float:
        """When a source that is away while others of its bucket run is looked at again; inf if it is not."""
        source = self.sources[source_id]
        return source.away_until if source.rules.quota.bucket and source.away_until > now else inf

    def lose_expired(self, now: float) -> list[Lease]:
        """Promise 9: a lease past its deadline is lost when the bus looks, counts as an attempt, and is retried alone."""
        lost: list[Lease] = []
        for source in self.sources.values():
            for ref, o in list(source.objects.items()):
                if o.state is State.IN_FLIGHT and o.deadline <= now and o.lease:
                    lost.append(o.lease)
                    source.counts.reaped += 1
                    source.fail(ref, now, lost=True)
        return lost

    def promote(self, now: float) -> None:
        for source in self.sources.values():
            for o in source.objects.values():
                if o.state is State.DELAYED and o.due is not None and o.due <= now:
                    o.state, o.due = State.READY, None
                    o.take_place()

    def refresh(self, source_id: str, ref: Ref, now: float) -> tuple[str, int | None]:
        """Promise 7: status and until when, as `Refreshed` says it."""
        source, bucket = self.sources[source_id], self.bucket_of(source_id)
        gap = max(source.rules.refresh_ms, 2 * source.rules.cost / bucket.per_ms if bucket.per_ms else 0)
        if source.refreshed and source.refreshed + gap > now:
            return "capped", ceil(source.refreshed + gap)
        source.refreshed = now
        answer = source.accept(ref, Lane.MANUAL, now)
        source.count(answer)
        paused_until = max(bucket.paused_until, source.away_until)
        if paused_until > now:
            return "provider_pause", int(paused_until)
        if source.paused:
            return "paused", None
        return ("running" if answer == "deferred" else "queued"), None

    def requeue(self, source_id: str, ref: Ref, signal: Signal, caught_up: bool, cost: float, now: float) -> None:
        o = self.sources[source_id].objects[ref]
        self.bucket_of(source_id).settle(cost - o.charged, o.claimed, now)
        self.sources[source_id].go_on(ref, lane_of(signal), caught_up=caught_up)

    def end(self, source_id: str, ref: Ref, how: Settle | None, cost: float, wait_ms: float, now: float) -> None:
        """A lease ends: in success where `how` is None."""
        source, bucket = self.sources[source_id], self.bucket_of(source_id)
        o = source.objects[ref]
        bucket.settle((0 if how is Settle.RELEASE else cost) - o.charged, o.claimed, now)
        if how is None:
            source.succeed(ref, now)
        elif how is Settle.RELEASE:
            source.counts.claimed -= 1
            source.give_back(ref, tried=False)
        elif how is Settle.THROTTLED:
            source.counts.throttled += 1
            bucket.halve(o.claimed, now)
            bucket.pause(now + wait_ms)
            source.give_back(ref, tried=True)
        elif how is Settle.UNAVAILABLE:
            source.away_until = max(source.away_until, ceil(now + wait_ms))
            source.give_back(ref, tried=True)
        else:
            source.counts.nacked += 1
            source.fail(ref, now, hopeless=how is Settle.HOPELESS)
