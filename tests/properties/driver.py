"""Calls the bus and the model side by side, and holds one against the other.

A crash between two calls is a call that is not made: a lease that nobody settles, an answer that nobody reads. A retry is
the same call made again.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import count
from math import inf
from typing import ClassVar

from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from redis import Redis

from sourcebus.bus import Bus, Settle
from sourcebus.model import ChangeKind, Lease, Signal, SourceChanged
from sourcebus.testing import ManualClock
from tests.keyspace import Keyspace, check, read
from tests.properties.model import EPSILON_MS, WHOLE, Bucket, Lane, Model, Object, Ref, Rules, Source, State, lane_of, ref_of

LEASE_MS = 10_000

_names = count(1)


class Driver(RuleBasedStateMachine):
    """`redis` is set by the test that runs the machine; `RULES` are the sources that it begins with."""

    redis: Redis
    RULES: ClassVar[Mapping[str, Rules]] = {}
    FIRST: ClassVar[Ref] = ("o1", ChangeKind.UPDATED)
    steps: ClassVar[Counter[str]] = Counter()
    """Rules run so far, by machine: the suite asserts that there were enough."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"machine{next(_names)}"
        self.clock = ManualClock()
        self.bus = Bus(self.redis, name=self.name, clock_ms=lambda: self.clock.now)
        self.model = Model()
        self.zombies: list[Lease] = []
        self.fence = self.epoch = 0

    def now(self) -> float:
        """A call is about to be made that writes: the bus looks at the clock."""
        return self.model.time.see(self.clock.now)

    @initialize()
    def register_all(self) -> None:
        for source_id, rules in self.RULES.items():
            self.register(source_id, rules)

    # --- sources -------------------------------------------------------------------------------------------------

    def register(self, source_id: str, rules: Rules, *, paused: bool = False) -> None:
        self.now()
        self.bus.register(source_id, paused=paused, **{name: getattr(rules, name) for name in rules.__dataclass_fields__})
        self.model.register(source_id, rules, paused=paused)

    def set_paused(self, source_id: str, paused: bool) -> None:
        self.now()
        if paused:
            self.bus.pause(source_id)
        else:
            self.bus.resume(source_id)
        self.model.sources[source_id].paused = paused

    # --- signals -------------------------------------------------------------------------------------------------

    def emit(self, source_id: str, refs: list[Ref], signal: Signal) -> None:
        """Promises 1, 2 and 10: every signal is stored, merged, deferred, or folded into a scan, and the answer says which."""
        now, source = self.now(), self.model.sources[source_id]
        emitted = self.bus.emit([SourceChanged(source_id, ref, kind, signal=signal) for ref, kind in refs])
        answers = Counter(source.accept(ref, lane_of(signal), now) for ref in refs)
        source.counts.accepted += len(refs)
        source.counts.merged += answers["merged"]
        got = {name: getattr(emitted, name) for name in ("accepted", "merged", "deferred", "overflowed")}
        assert got == {name: answers[name] for name in got}, f"promises 1, 2 and 10: {got} for {dict(answers)}"

    def refresh(self, source_id: str, ref: Ref) -> str:
        now = self.now()
        answer = self.bus.refresh(source_id, ref[0] or None)
        wanted = self.model.refresh(source_id, ref, now)
        assert (answer.status, answer.until_ms) == wanted, f"promise 7: answered {answer}, should be {wanted}"
        return answer.status

    # --- leases --------------------------------------------------------------------------------------------------

    def look(self) -> float:
        """What a claim and a tick begin with: what is lost or due by now is so for the model too."""
        self.learn_backoffs()
        now = self.now()
        self.zombies += self.model.lose_expired(now)
        self.model.promote(now)
        return now

    def learn_backoffs(self) -> None:
        """Jitter is the one thing that the model cannot know: it reads it, once, and holds it against its bounds."""
        if any(o.state is State.DELAYED and o.due is None for s in self.model.sources.values() for o in s.objects.values()):
            self.records_agree(read(self.redis, self.name))

    def tick(self) -> None:
        self.look()
        ticked = self.bus.tick()
        assert ticked.epoch == self.epoch or not self.epoch, "promise 11: a new epoch without a loss of data"
        self.epoch = ticked.epoch

    def claim(self, most: int, consumer: str = "m") -> list[Lease]:
        now = self.look()
        claimed = self.bus.claim(most, lease_ms=LEASE_MS, consumer=consumer)
        assert claimed.now_ms == now, f"promise 12: the bus's time is {claimed.now_ms}, should be {now}"
        assert len(claimed.leases) <= most
        alone = [self.begin(lease, now) for lease in claimed.leases]
        assert not any(alone) or len(alone) == 1, "promise 9: what was lost in a crash was claimed together with others"
        if len(claimed.leases) < most and not self.somebody_is_solo(alone):
            self.nobody_was_forgotten(now)
        if not claimed.leases and not self.somebody_is_solo(alone):
            self.wakes_in_time(claimed.next_due_ms)
        return claimed.leases

    def begin(self, lease: Lease, now: float) -> bool:
        """One lease is held against every promise that rules it. Answers whether it had to be claimed alone."""
        source, o = self.model.sources[lease.source_id], self.object_of(lease)
        assert o is not None, f"promise 2: {lease.object_ref!r} was claimed and nobody asked for it"
        assert o.state is not State.IN_FLIGHT, f"promise 3: two live leases on {lease.object_ref!r}"
        assert o.state is State.READY, f"promises 2 and 9: claimed {(o.due or 0) - now} ms before it is due"
        assert lease.fence > self.fence, "promise 3: fences must grow"
        assert lease.attempt == o.attempts + 1, f"promise 9: attempt {lease.attempt}, should be {o.attempts + 1}"
        assert not source.paused, "a paused source was claimed"
        assert lease.newer == o.newer, f"promise 10: a lease that says newer={lease.newer}, should be {o.newer}"
        assert not o.passes(), f"promise 10: a scan that was cut goes before {o.passes()}"
        assert o.lane is lane_of(lease.signal), f"promise 8: a lease by {lease.signal} on an object in lane {o.lane.name}"
        self.may_run(lease.source_id, source, o, now)
        self.takes_its_turn(source, o.lane)
        self.fence = lease.fence
        self.model.bucket_of(lease.source_id).charge(source.rules.cost, now)
        source.begin(o, lease, now)
        return o.solo

    def may_run(self, source_id: str, source: Source, o: Object, now: float) -> None:
        bucket = self.model.bucket_of(source_id)
        name = self.model.bucket_name(source_id, source.rules.quota)
        assert bucket.paused_until <= now, f"promise 6: claimed {bucket.paused_until - now} ms before the provider's pause ends"
        assert source.away_until <= now, f"promise 6: claimed {source.away_until - now} ms before its source is tried again"
        assert self.model.in_flight(name) < bucket.quota.concurrency, "promise 4: above the concurrency cap"
        if o.lane is not Lane.MANUAL:
            early = bucket.wake_at(source.rules.cost) - now
            assert early <= EPSILON_MS, f"promise 4: claimed {early} ms before there were tokens"

    @staticmethod
    def takes_its_turn(source: Source, lane: Lane) -> None:
        waiting = {each for each in Lane if source.ready(each)}
        assert lane is Lane.MANUAL or Lane.MANUAL not in waiting, "promise 7: a refresh was passed over"
        if {Lane.BACKFILL, Lane.LIVE} <= waiting:
            run, weight = source.live_run, source.rules.live_weight
            if lane is Lane.LIVE:
                assert run < weight, f"promise 8: {run} live claims while backfill waits: it starves"
                source.live_run += 1
            if lane is Lane.BACKFILL:
                assert run >= weight, f"promise 8: backfill after {run} live claims of {weight}"
                source.live_run = 0

    def somebody_is_solo(self, alone: list[bool]) -> bool:
        """Who must be claimed alone ends a claim early."""
        return any(alone) or any(o.solo and not o.lease for s in self.model.sources.values() for o in s.objects.values())

    def nobody_was_forgotten(self, now: float) -> None:
        for name in self.model.buckets:
            assert not self.model.can_run(name, now - 1)[0], f"promise 5: {name!r} can run and was passed over"

    def wakes_in_time(self, next_due_ms: int | None) -> None:
        """Promise 4: the wake time is exact. Leases and delays of removed sources may come first: those only cost a look."""
        self.learn_backoffs()
        objects = [o for s in self.model.sources.values() for o in s.objects.values()]
        times = [o.due for o in objects if o.state is State.DELAYED and o.due is not None]
        times += [o.deadline for o in objects if o.state is State.IN_FLIGHT]
        times += [self.model.can_run(name, self.model.time.now)[1] for name in self.model.buckets]
        times += [self.model.back_at(source_id, self.model.time.now) for source_id in self.model.sources]
        first = min(times, default=inf)
        assert first == inf or (next_due_ms is not None and next_due_ms <= first + 1), (
            f"promise 4: wakes at {next_due_ms}, {first}"
        )

    def live(self) -> list[Lease]:
        return [o.lease for s in self.model.sources.values() for o in s.objects.values() if o.lease]

    def one(self, pick: int) -> Lease | None:
        """One of the living leases. Where there is none, one more signal is sent and claimed; None if it may not run now."""
        if not self.live() and self.model.sources:
            ids = sorted(self.model.sources)
            self.emit(ids[pick % len(ids)], [self.FIRST], Signal.WEBHOOK)
            self.claim(8)
        live = self.live()
        return live[pick % len(live)] if live else None

    def object_of(self, lease: Lease) -> Object | None:
        source = self.model.sources.get(lease.source_id)
        return source.objects.get(ref_of(lease.object_ref, lease.change_kind)) if source else None

    def settle(
        self, lease: Lease, how: Settle | None = None, *, cost: float = 1.0, service_ms: float = 0.0, wait_ms: float = 0.0
    ) -> None:
        """Ends a living lease, then says the same again, as a caller does whose answer was lost."""
        for again in (False, True):
            self.now()
            if how is None:
                done = self.bus.ack([lease], cost=[cost], service_ms=[service_ms]).done
            else:
                done = self.bus.nack([lease], "no", how=how, cost=cost, service_ms=service_ms, wait_ms=wait_ms).done
            assert done == [not again], f"promise 3: {how} of a {'settled' if again else 'living'} lease answered {done}"
            if not again:
                self.end(lease, how, cost, wait_ms)
        self.zombies.append(lease)

    def end(self, lease: Lease, how: Settle | None, cost: float, wait_ms: float) -> None:
        """What the model makes of a lease that the bus has just ended."""
        ref = ref_of(lease.object_ref, lease.change_kind)
        self.model.end(lease.source_id, ref, how, cost, wait_ms, self.model.time.now)

    def one_scan(self, pick: int) -> Lease | None:
        """As `one`: of a whole source."""
        scans = [lease for lease in self.live() if lease.change_kind is ChangeKind.SCAN]
        if not scans and self.model.sources:
            ids = sorted(self.model.sources)
            self.emit(ids[pick % len(ids)], [WHOLE], Signal.RECONCILE)
            scans = [lease for lease in self.claim(8) if lease.change_kind is ChangeKind.SCAN]
        return scans[pick % len(scans)] if scans else None

    def requeue(self, lease: Lease, signal: Signal, *, caught_up: bool, cost: float = 1.0) -> None:
        """Promise 10: the rest of a scan that was cut is due at once; said twice, as after a lost answer."""
        for again in (False, True):
            now = self.now()
            done = self.bus.requeue(lease, signal=signal, caught_up=caught_up, cost=cost).done
            assert done == [not again], f"promise 3: a requeue of a {'settled' if again else 'living'} lease answered {done}"
            if not again:
                ref = ref_of(lease.object_ref, lease.change_kind)
                self.model.requeue(lease.source_id, ref, signal, caught_up, cost, now)
        self.zombies.append(lease)

    def extend(self, lease: Lease, *, running: bool = True) -> None:
        now = self.now()
        assert self.bus.extend([lease], lease_ms=LEASE_MS, running=lease if running else None) == [True], "promise 3"
        o = self.object_of(lease)
        assert o
        o.deadline = now + LEASE_MS

    def settle_late(self, lease: Lease, how: int) -> None:
        """Promise 3: a zombie's word changes nothing. `how` counts through all the words there are."""
        before = self.records()
        self.now()
        words: list[Callable[[], list[bool]]] = [
            lambda: self.bus.ack([lease], cost=[9.0]).done,
            lambda: self.bus.extend([lease], running=lease),
            lambda: self.bus.requeue(lease, signal=Signal.POLL, caught_up=True, cost=9.0).done,
            *(lambda how=how: self.bus.nack([lease], "late", how=how, wait_ms=999).done for how in Settle),
        ]
        assert words[how % len(words)]() == [False], "promise 3: a lease that was over settled something"
        assert self.records() == before, "promise 3: a zombie changed a record"

    def records(self) -> dict[str, dict[str, float]]:
        """Those of sources that still are; the rest goes when it comes up."""
        space = read(self.redis, self.name)
        return {name: record for name, record in space.records.items() if name.split(":", 1)[0] in space.sources}

    # --- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def step_is_counted(self) -> None:
        self.steps[type(self).__name__] += 1

    @invariant()
    def bus_and_model_agree(self) -> None:
        space = read(self.redis, self.name)
        check(space)
        self.records_agree(space)
        self.buckets_agree(space)

    def records_agree(self, space: Keyspace) -> None:
        now, seen = self.model.time.now, Counter[str]()
        for name, record in space.records.items():
            number, key = name.split(":", 1)
            source_id = space.names.get(number)
            if source_id is None:
                continue  # of a removed source
            o = self.model.sources[source_id].objects.get((key[1:], ChangeKind.SCAN if key[0] == "s" else ChangeKind.UPDATED))
            if o is None:
                raise AssertionError(f"promises 2 and 9: {name} should be gone")
            seen[source_id] += o.state is not State.COOLING or (o.due or 0) > now
            self.record_agrees(name, o, record)
        for source_id, source in self.model.sources.items():
            kept = sum(o.state is not State.COOLING or (o.due or 0) > now for o in source.objects.values())
            assert seen[source_id] == kept, f"promise 1: {source_id!r} lost an object"
        dead = {(space.names[name.split(":", 1)[0]], name.split(":", 1)[1][1:], letter) for name, letter in space.dead.items()}
        wanted = {(source_id, ref[0], letter) for source_id, s in self.model.sources.items() for ref, letter in s.dead.items()}
        assert dead == wanted, f"promise 9: dead letters are {dead}, should be {wanted}"

    def record_agrees(self, name: str, o: Object, record: dict[str, float]) -> None:
        state = State(int(record["state"]))
        assert state is o.state, f"{name} is {state.name}, should be {o.state.name}"
        if state is State.DELAYED and o.due is None:
            earliest, latest = o.due_within
            assert earliest - 1 <= record["at"] <= latest, (
                f"promise 9: {name} backs off until {record['at']}, not {o.due_within}"
            )
            o.due = record["at"]
        if state in (State.DELAYED, State.COOLING):
            assert record["at"] == o.due, f"promise 2: {name} waits until {record['at']}, should be {o.due}"
        if state is not State.COOLING:
            have = record["lane"], record["attempts"], record["flags"]
            wanted = o.lane, o.attempts, o.solo + 2 * o.begun + 4 * o.newer  # core.lua's flags
            assert have == wanted, f"promises 8, 9 and 10: {name} has {have}, should be {o}"
        if state is State.IN_FLIGHT:
            assert bool(record["dirty"]) == o.dirty, f"promise 1: {name}'s newer change is not known"

    def buckets_agree(self, space: Keyspace) -> None:
        """Promises 4, 5 and 12: ready, waiting until t, or neither, as the model says."""
        now, by_name = self.model.time.now, {name: number for number, name in space.names.items()}
        w = space.sets.get("w", {})
        shared = [source_id for source_id, s in self.model.sources.items() if s.rules.quota.bucket]
        back = [source_id for source_id in shared if w.get(by_name[source_id], inf) <= now]
        for name, bucket in self.model.buckets.items():
            number = by_name[name.removeprefix("own:")]
            stored = space.buckets[number]
            self.bucket_agrees(name, bucket, stored)
            can, wake = self.model.can_run(name, now, unseen=back)
            ready, waiting = number in space.sets.get("z", {}), w.get(number)
            if ready:
                assert can, f"promise 5: {name!r} is in the ready set and cannot run"
            elif can:
                assert waiting is not None and waiting <= now + 1, f"promise 5: {name!r} can run and is not in the ready set"
            else:
                at = waiting or inf
                assert at <= now or at == wake or abs(at - wake) <= 1, f"promise 4: {name!r} wakes at {waiting}, not {wake}"

        for source_id, source in self.model.sources.items():
            stored = space.sources[by_name[source_id]]
            over = source.away_until <= now and not stored["away"]
            assert over or stored["away"] == source.away_until, f"promise 6: {source_id!r} is away until {stored['away']}"

    def bucket_agrees(self, name: str, bucket: Bucket, stored: dict[str, float]) -> None:
        assert stored["pause"] == bucket.paused_until, f"promise 6: {name!r} pauses until {stored['pause']}"
        share = min(1.0, stored["factor"] + max(0.0, self.model.time.now - stored["factor_at"]) / 600_000)
        wanted = bucket.share_now(self.model.time.now)
        assert abs(share - wanted) < 1e-9, f"promise 6: {name!r} has learned {share}, should be {wanted}"
        if bucket.per_ms:
            assert abs(stored["tat"] - bucket.full_at) < 0.1, (
                f"promise 4: {name!r} is full at {stored['tat']}, {bucket.full_at}"
            )

    def counters_agree(self) -> None:
        """What people are shown is what happened."""
        ids = list(self.model.sources)
        for stats, source in zip(self.bus.stats(ids), self.model.sources.values(), strict=True):
            assert stats
            wanted = asdict(source.counts) | {"dead": len(source.dead), "pending": source.pending()}
            assert {name: getattr(stats, name) for name in wanted} == wanted
        letters = [(letter.source_id, letter.id) for letter in self.bus.dead_letters()]
        assert sorted(letters) == sorted((i, letter) for i, s in self.model.sources.items() for letter in s.dead.values())

    # --- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if self.model.sources and not sys.exc_info()[0]:  # what is broken already would only hide the first fault
            self.counters_agree()
            self.everything_owed_is_delivered()
            self.nothing_is_left()
        self.redis.flushdb()  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped

    def everything_owed_is_delivered(self) -> None:
        """Promise 1: with a worker that always succeeds, everything is, and in bounded time."""
        for source_id in self.model.sources:
            self.set_paused(source_id, paused=False)
        for _ in range(300):
            for lease in self.claim(8):
                self.settle(lease)
            self.bus_and_model_agree()
            if all(o.state is State.COOLING for s in self.model.sources.values() for o in s.objects.values()):
                return
            self.sleep_until_due()
        raise AssertionError("promises 1 and 9: never delivered")

    def sleep_until_due(self) -> None:
        now = self.look()
        claimed = self.bus.claim(1, lease_ms=LEASE_MS, consumer="drain")
        for lease in claimed.leases:
            self.begin(lease, now)
            self.settle(lease)
        if claimed.next_due_ms:
            self.clock.now = max(self.clock.now + 1, claimed.next_due_ms)

    def nothing_is_left(self) -> None:
        for _ in range(8):
            self.clock.advance(5_000)
            self.tick()
        space = read(self.redis, self.name)
        check(space)
        assert space.records == {}, "promise 10: a key is left without an owner"
        assert not any(space.sets.get(key) for key in ("x", "d", "z", "w"))
        for source_id in self.model.sources:
            self.bus.unregister(source_id)
        left = read(self.redis, self.name).suffixes - {"m", "bids", "bkt", "con", "wt", "inv", "wake"}
        assert not left, f"promise 10: after all sources are removed, {left} are left"
