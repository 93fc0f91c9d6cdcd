"""Promises 4, 6 and 7 of docs/bus.md, one example each: what a provider allows, says, and what a person may ask past it."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections import Counter

import pytest
from redis import Redis

from sourcebus.bus import Bus, Settle
from sourcebus.errors import InvalidInput
from sourcebus.model import Lease, Quota, Signal, SourceChanged
from sourcebus.testing import ManualClock
from tests.keyspace import check, read


def refs(leases: list[Lease]) -> list[str]:
    return [lease.object_ref for lease in leases]


def emit_many(bus: Bus, source_id: str, number: int, signal: Signal = Signal.WEBHOOK) -> None:
    bus.emit([SourceChanged(source_id, f"o{at}", signal=signal) for at in range(number)])


# --- 4: quotas -------------------------------------------------------------------------------------------------------


def test_4_a_bucket_lets_its_burst_through_and_then_its_rate(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=10, burst=5, concurrency=100))
    emit_many(bus, "s", 100)
    assert len(bus.claim(100).leases) == 5
    claimed = bus.claim(100)
    assert claimed.leases == [] and claimed.next_due_ms == clock.now_ms() + 100
    clock.advance(1_000)
    assert sum(len(bus.claim(100).leases) for _ in range(3)) == 5, "no more than the burst, however long it waited"


def test_4_a_call_that_cost_more_is_paid_back_before_the_next(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=1, burst=1), window_ms=0)
    emit_many(bus, "s", 2)
    bus.ack(bus.claim().leases, cost=[5.0])
    clock.advance(4_999)
    assert bus.claim().leases == []
    clock.advance(1)
    assert len(bus.claim().leases) == 1


@pytest.mark.parametrize("released", [True, False], ids=["released", "found to cost nothing"])
def test_4_tokens_that_time_has_brought_back_do_not_come_back_twice(bus: Bus, clock: ManualClock, released: bool):
    bus.register("s", quota=Quota(rate=1, burst=4, concurrency=100), window_ms=0)
    emit_many(bus, "s", 20)
    held = bus.claim(4).leases
    clock.advance(4_000)
    assert len(bus.claim(100).leases) == 4, "the bucket is full again"
    if released:
        bus.nack(held, how=Settle.RELEASE)
    else:
        bus.ack(held, cost=[0.0] * 4)
    assert bus.claim(100).leases == [], "eight calls at one moment through a burst of four"


def test_4_sources_on_one_bucket_share_its_quota_in_turn(bus: Bus):
    for name in "ab":
        bus.register(name, quota=Quota(rate=1, burst=6, concurrency=100, bucket="tenant"))
        emit_many(bus, name, 50)
    assert Counter(lease.source_id for lease in bus.claim(50).leases) == {"a": 3, "b": 3}


def test_4_a_source_moves_between_buckets_with_what_it_has_in_flight(bus: Bus, redis: Redis, bus_name: str):
    bus.register("s", quota=Quota(concurrency=2))
    emit_many(bus, "s", 9)
    leases = bus.claim(9).leases
    bus.register("s", quota=Quota(concurrency=3, bucket="tenant"))
    check(read(redis, bus_name))
    assert len(bus.claim(9).leases) == 1
    bus.register("s", quota=Quota(concurrency=1))
    check(read(redis, bus_name))
    bus.ack(leases)
    check(read(redis, bus_name))
    assert bus.claim(9).leases == []


# --- 6: the provider says wait ---------------------------------------------------------------------------------------


def test_6_a_429_pauses_the_bucket_costs_no_attempt_and_halves_the_rate_once(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=10, burst=10, concurrency=10), max_attempts=1, window_ms=0)
    emit_many(bus, "s", 40)
    leases = bus.claim(4).leases
    for lease in leases:
        bus.nack([lease], how=Settle.THROTTLED, wait_ms=5_000)
    clock.advance(4_999)
    assert bus.claim(10).leases == []
    clock.advance(1)
    again = bus.claim(10).leases
    assert again and {lease.attempt for lease in again} == {1}
    stats = bus.stats(["s"])[0]
    assert stats and stats.throttled == 4 and stats.dead == 0
    assert stats.learned_share == 0.5 + 5_000 / 600_000, "whole again after ten minutes"


def test_6_what_the_provider_says_is_left_sets_the_rate(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=10, burst=1, concurrency=100), window_ms=0)
    emit_many(bus, "s", 100)
    bus.feedback("s", remaining=2, left_ms=1_000)
    claimed = 0
    for _ in range(10):
        claimed += len(bus.claim(10).leases)
        clock.advance(100)
    assert claimed == 2, "two in the second that the provider allows two for, though ten are configured"
    bus.feedback("s", remaining=1_000_000, left_ms=1_000)
    assert [stats.learned_share for stats in bus.stats(["s"]) if stats] == [1.0], "never above what is configured"


def test_6_nothing_left_is_a_pause_until_there_is(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(concurrency=100))
    emit_many(bus, "s", 1)
    bus.feedback("s", remaining=0, left_ms=3_000)
    bus.feedback("s", remaining=0, left_ms=1_000)
    clock.advance(2_999)
    assert bus.claim().leases == []
    clock.advance(1)
    assert len(bus.claim().leases) == 1


@pytest.mark.parametrize(("remaining", "left_ms"), [(-1, 1_000), (float("nan"), 1_000), (5, 0), (5, float("inf"))])
def test_6_a_quota_that_makes_no_sense_is_refused(bus: Bus, remaining: float, left_ms: float):
    bus.register("s")
    with pytest.raises(InvalidInput, match="use"):
        bus.feedback("s", remaining, left_ms)


def test_an_outage_of_one_source_does_not_hold_up_the_others_of_its_bucket(
    redis: Redis, bus: Bus, bus_name: str, clock: ManualClock
):
    for source_id in ("broken", "well"):
        bus.register(source_id, quota=Quota(concurrency=4, bucket="tenant"))
        emit_many(bus, source_id, 2)
    broken = next(lease for lease in bus.claim(4).leases if lease.source_id == "broken")
    emit_many(bus, "well", 9)
    bus.nack([broken], how=Settle.UNAVAILABLE, wait_ms=3_000)
    bus.nack([broken], how=Settle.UNAVAILABLE, wait_ms=9_000)
    check(read(redis, bus_name))
    clock.advance(2_999)
    lease = bus.claim(4, wait_ms=60_000).leases[0]
    assert lease.source_id == "well"
    (stats,) = bus.stats(["broken"])
    assert stats and (stats.state, stats.reason, stats.left_s) == ("waiting", "out_of_reach", 0.001)
    assert stats.waited_ms["provider_pause"] == 3_000 and stats.learned_share == 1
    clock.advance(1)
    bus.ack([lease])
    (again,) = [lease for lease in bus.claim(4).leases if lease.source_id == "broken"]
    assert (again.object_ref, again.attempt) == (broken.object_ref, 1), "it costs no attempt"


def test_who_waits_for_work_is_woken_when_a_source_is_tried_again(bus: Bus, clock: ManualClock):
    bus.register("broken", quota=Quota(bucket="tenant"))
    emit_many(bus, "broken", 1)
    leases = bus.claim(1).leases
    nothing = bus.claim(1, consumer="c", wait_ms=60_000)
    assert nothing.waiting
    bus.nack(leases, how=Settle.UNAVAILABLE, wait_ms=2_000)
    assert bus.wait(1), "it meant to sleep longer"
    assert bus.claim(1, consumer="c", wait_ms=60_000).next_due_ms == int(clock.now) + 2_000
    assert bus.refresh("broken", "o0").status == "provider_pause"
    assert bus.claim(1).leases == [], "nor does a person jump it"
    clock.advance(2_000)
    assert refs(bus.claim(1).leases) == ["o0"]


# --- 7: refresh ------------------------------------------------------------------------------------------------------


def test_7_a_refresh_jumps_the_bucket_pays_and_is_capped(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=0.1, burst=1, concurrency=5), window_ms=60_000)
    emit_many(bus, "s", 3)
    bus.ack(bus.claim(5).leases)
    assert bus.claim(5).leases == []
    assert bus.refresh("s", "o2").status == "queued"
    assert refs(bus.claim(5).leases) == ["o2"]
    second = bus.refresh("s", "o1")
    assert second.status == "capped" and second.until_ms == clock.now_ms() + 60_000 and not second.accepted
    clock.advance(19_999)
    assert bus.claim(5).leases == [], "the refresh has spent the tokens of two calls"


def test_7_a_refresh_never_goes_before_the_providers_pause(bus: Bus, clock: ManualClock):
    bus.register("s")
    emit_many(bus, "s", 1)
    bus.nack(bus.claim().leases, how=Settle.THROTTLED, wait_ms=9_000)
    answer = bus.refresh("s")
    assert (answer.status, answer.until_ms) == ("provider_pause", clock.now_ms() + 9_000)
    assert bus.claim(5).leases == []


def test_7_a_refresh_while_its_object_dies_does_not_wait_for_the_window(bus: Bus):
    bus.register("s", window_ms=60_000)
    emit_many(bus, "s", 1)
    lease = bus.claim().leases[0]
    assert bus.refresh("s", "o0").status == "running"
    bus.nack([lease], "no", how=Settle.HOPELESS)
    assert refs(bus.claim().leases) == ["o0"]


def test_7_refreshes_take_at_most_half_of_a_tiny_quota(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=1 / 300, burst=1))
    bus.refresh("s", "a")
    assert bus.refresh("s", "a").until_ms == clock.now_ms() + 600_000
