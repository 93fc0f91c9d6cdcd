"""The promises of docs/bus.md, one example each, by number; 4, 6 and 7 are in test_quotas.py.

The general case is in tests/properties.
"""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import threading
from collections import Counter

import pytest
from redis import Redis

from sourcebus.bus import Bus, Settle
from sourcebus.errors import InvalidInput, UnknownSource
from sourcebus.model import WHOLE_SOURCE, ChangeKind, Lease, Quota, Signal, SourceChanged
from sourcebus.testing import ManualClock
from tests.keyspace import read


def refs(leases: list[Lease]) -> list[str]:
    return [lease.object_ref for lease in leases]


def emit_many(bus: Bus, source_id: str, number: int, signal: Signal = Signal.WEBHOOK) -> None:
    bus.emit([SourceChanged(source_id, f"o{at}", signal=signal) for at in range(number)])


# --- 1, 2: the window ------------------------------------------------------------------------------------------------


def test_1_a_change_that_arrives_while_its_object_is_read_is_claimed_again(bus: Bus, clock: ManualClock):
    bus.register("s", window_ms=30_000)
    bus.emit(SourceChanged("s", "a"))
    (lease,) = bus.claim().leases
    assert bus.emit(SourceChanged("s", "a")).deferred == 1
    bus.ack([lease])
    assert bus.claim().leases == []
    clock.advance(30_000)
    assert refs(bus.claim().leases) == ["a"]


def test_2_a_storm_costs_one_claim_per_window_and_one_for_the_last_state(bus: Bus, clock: ManualClock):
    bus.register("s", window_ms=30_000)
    claims = 0
    for _ in range(50):
        bus.emit([SourceChanged("s", "a")] * 200)
        leases = bus.claim(10).leases
        claims += len(leases)
        bus.ack(leases)
        clock.advance(1_000)
    clock.advance(60_000)
    claims += len(bus.claim(10).leases)
    assert claims == 3  # at 0 s, at 30 s, and the last state at 60 s


def test_2_what_cools_is_forgotten_when_its_window_ends(bus: Bus, clock: ManualClock, redis: Redis, bus_name: str):
    bus.register("s", quota=Quota(concurrency=100), window_ms=1_000)
    emit_many(bus, "s", 100)
    bus.ack(bus.claim(100).leases)
    assert len(read(redis, bus_name).records) == 100
    clock.advance(2_001)
    bus.tick()
    assert read(redis, bus_name).records == {}


# --- 3: leases -------------------------------------------------------------------------------------------------------


def test_3_the_ack_of_a_lost_lease_changes_nothing(bus: Bus, clock: ManualClock):
    bus.register("s", backoff_ms=1)
    bus.emit(SourceChanged("s", "a"))
    (lost,) = bus.claim(lease_ms=1_000).leases
    clock.advance(1_001)
    bus.tick()
    clock.advance(10)
    (living,) = bus.claim().leases
    assert living.fence > lost.fence and living.attempt == 2
    assert bus.ack([lost]).done == [False]
    assert bus.extend([lost, living]) == [False, True]
    assert bus.ack([living]).done == [True]


def test_3_fences_grow_beyond_a_loss_of_redis(bus: Bus, clock: ManualClock, redis: Redis):
    bus.register("s")
    bus.emit(SourceChanged("s", "a"))
    before = bus.claim().leases[0].fence
    redis.flushall()
    clock.advance(1)
    bus.register("s")
    bus.emit(SourceChanged("s", "a"))
    assert bus.claim().leases[0].fence > before


# --- 5: order --------------------------------------------------------------------------------------------------------


def test_5_two_hundred_sources_with_one_event_are_not_held_up_by_one_with_fifty_thousand(bus: Bus):
    bus.register("hot", quota=Quota(concurrency=1_000_000))
    for start in range(0, 50_000, 5_000):
        bus.emit([SourceChanged("hot", f"o{at}") for at in range(start, start + 5_000)])
    bus.ack(bus.claim(64).leases, service_ms=[1.0] * 64)
    for at in range(200):
        bus.register(f"cold{at}")
        bus.emit(SourceChanged(f"cold{at}", "only"))
    seen: list[str] = []
    while len(seen) < 250:
        leases = bus.claim(10).leases
        seen += [lease.source_id for lease in leases]
        bus.ack(leases, service_ms=[1.0] * len(leases))
    assert len({source for source in seen[:250] if source != "hot"}) == 200


def test_5_worker_time_is_shared_not_the_number_of_events(bus: Bus, clock: ManualClock):
    bus.register("slow", window_ms=0)
    bus.register("fast", window_ms=0)
    took = {"slow": 1_000.0, "fast": 10.0}
    spent = Counter[str]()
    emit_many(bus, "slow", 400)
    emit_many(bus, "fast", 4_000)
    for _ in range(1_500):
        (lease,) = bus.claim().leases
        clock.advance(took[lease.source_id])
        bus.ack([lease], service_ms=[took[lease.source_id]])
        spent[lease.source_id] += int(took[lease.source_id])
    assert 0.8 < spent["slow"] / spent["fast"] < 1.25


def test_5_equal_sources_get_equal_shares(bus: Bus):
    for at in range(20):
        bus.register(f"s{at}")
        emit_many(bus, f"s{at}", 200)
    counts = Counter[str]()
    for _ in range(200):
        leases = bus.claim(10).leases
        counts.update(lease.source_id for lease in leases)
        bus.ack(leases, service_ms=[5.0] * len(leases))
    total, squares = sum(counts.values()), sum(n * n for n in counts.values())
    assert total**2 / (20 * squares) >= 0.999, "Jain's index"


def test_5_a_source_whose_calls_vary_gets_its_share(bus: Bus):
    for name in ("varying", "steady"):
        bus.register(name, window_ms=0)
        emit_many(bus, name, 40)
    spent, calls = Counter[str](), Counter[str]()
    for _ in range(500):
        leases = bus.claim(8).leases
        took: list[float] = []
        for lease in leases:
            calls[lease.source_id] += 1
            long = lease.source_id == "varying" and calls["varying"] % 4 == 0
            took.append(15.0 if lease.source_id == "steady" else 50.0 if long else 2.0)
        bus.ack(leases, service_ms=took)
        for lease, ms in zip(leases, took, strict=True):
            spent[lease.source_id] += int(ms)
        bus.emit([SourceChanged(lease.source_id, lease.object_ref) for lease in leases])
    assert abs(spent["varying"] - spent["steady"]) < 8 * (50 + 15), "what is in flight of each, and no more with time"


def test_5_idling_earns_no_credit(bus: Bus):
    bus.register("busy")
    bus.register("idle")
    emit_many(bus, "busy", 500)
    for _ in range(20):
        leases = bus.claim(10).leases
        bus.ack(leases, service_ms=[10.0] * len(leases))
    emit_many(bus, "idle", 500)
    order = [lease.source_id for lease in bus.claim(40).leases]
    assert 15 <= order.count("idle") <= 25


# --- 8: live and backfill --------------------------------------------------------------------------------------------


def test_8_live_signals_go_ahead_of_backfill_but_do_not_starve_it(bus: Bus):
    bus.register("s", live_weight=8)
    bus.emit([SourceChanged("s", f"back{at}", signal=Signal.RECONCILE) for at in range(100)])
    bus.emit([SourceChanged("s", f"live{at}") for at in range(100)])
    order = refs(bus.claim(18).leases)
    assert sum(ref.startswith("live") for ref in order) == 16


def test_8_what_left_the_backfill_costs_it_no_turns(bus: Bus):
    bus.register("s", live_weight=1)
    bus.emit([SourceChanged("s", f"o{at}", signal=Signal.RECONCILE) for at in range(20)])
    bus.emit([SourceChanged("s", f"o{at}") for at in range(10)])  # live now; their places in the backfill are stale
    order = refs(bus.claim(10).leases)
    assert order == ["o0", "o10", "o1", "o11", "o2", "o12", "o3", "o13", "o4", "o14"]


def test_8_a_live_signal_takes_its_object_out_of_the_backfill(bus: Bus):
    bus.register("s")
    emit_many(bus, "s", 50, Signal.RECONCILE)
    assert bus.emit(SourceChanged("s", "o49")).merged == 1
    assert refs(bus.claim().leases) == ["o49"]
    assert len(bus.claim(100).leases) == 49, "and it is not claimed twice"


# --- 9: retries ------------------------------------------------------------------------------------------------------


def test_9_a_dead_letter_has_its_error_and_can_be_replayed(bus: Bus, clock: ManualClock):
    bus.register("s", max_attempts=2, backoff_ms=100, window_ms=0)
    bus.emit(SourceChanged("s", "a"))
    bus.nack(bus.claim().leases, "first")
    assert bus.claim().leases == []
    clock.advance(101)
    bus.nack(bus.claim().leases, "boom ✗")
    (letter,) = bus.dead_letters("s")
    assert (letter.object_ref, letter.attempts, letter.error) == ("a", 2, "boom ✗")
    assert bus.replay(letter.id) is not None
    assert bus.dead_letters() == []
    (lease,) = bus.claim().leases
    assert lease.attempt == 1
    assert bus.replay(letter.id) is None and bus.drop(letter.id) is False


def test_9_success_clears_the_dead_letter_of_its_object(bus: Bus):
    bus.register("s", window_ms=0)
    bus.emit(SourceChanged("s", "a"))
    bus.nack(bus.claim().leases, "no", how=Settle.HOPELESS)
    bus.emit(SourceChanged("s", "a"))
    bus.ack(bus.claim().leases)
    assert bus.dead_letters() == []


def test_9_what_was_lost_in_a_crash_is_claimed_alone(bus: Bus, clock: ManualClock):
    bus.register("s", backoff_ms=1)
    emit_many(bus, "s", 3)
    assert len(bus.claim(3, lease_ms=1_000).leases) == 3
    clock.advance(1_001)
    bus.tick()
    clock.advance(10)
    assert [len(bus.claim(3).leases) for _ in range(4)] == [1, 1, 1, 0]


def test_9_what_was_never_begun_goes_back_in_order_and_for_free(bus: Bus):
    bus.register("s", quota=Quota(rate=1, burst=4, concurrency=10))
    emit_many(bus, "s", 4)
    leases = bus.claim(4).leases
    bus.nack(leases[1:], how=Settle.RELEASE)
    again = bus.claim(4).leases
    assert refs(again) == ["o1", "o2", "o3"] and {lease.attempt for lease in again} == {1}


# --- 10, 11, 12 ------------------------------------------------------------------------------------------------------


def test_10_past_its_limit_a_source_keeps_one_scan_instead_of_a_list(bus: Bus, redis: Redis, bus_name: str):
    bus.register("s", max_pending=10)
    emitted = bus.emit([SourceChanged("s", f"o{at}") for at in range(1_000)])
    assert (emitted.accepted, emitted.overflowed) == (10, 990)
    assert len(read(redis, bus_name).records) == 11
    leases = bus.claim(100).leases
    assert [lease.change_kind for lease in leases].count(ChangeKind.SCAN) == 1


@pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
def test_10_places_left_behind_in_the_backfill_do_not_pile_up(bus: Bus, redis: Redis, bus_name: str, together: bool):
    bus.register("s", window_ms=0)
    for at in range(100):
        backfill, live = SourceChanged("s", "a", signal=Signal.RECONCILE), SourceChanged("s", "a")
        for batch in [[backfill, live]] if together else [[backfill], [live]]:
            bus.emit(batch)
        if at % 2:
            bus.emit(SourceChanged("s", "b", signal=Signal.RECONCILE))
        bus.ack(bus.claim(2).leases)
    assert sum(map(len, read(redis, bus_name).lists.values())) <= 2


def test_11_a_new_life_of_redis_has_another_epoch(bus: Bus, clock: ManualClock, redis: Redis):
    epoch = bus.tick().epoch
    clock.advance(1)
    assert bus.tick().epoch == epoch
    redis.flushall()
    clock.advance(1)
    assert bus.tick().epoch != epoch


def test_11_numbers_of_an_earlier_life_are_not_taken_for_sources_of_this_one(bus: Bus, clock: ManualClock, redis: Redis):
    bus.register("first")
    bus.emit(SourceChanged("first", "a"))
    bus.claim()
    redis.flushall()
    clock.advance(1)
    bus.register("second")
    bus.emit(SourceChanged("second", "a"))
    assert bus.claim().leases[0].source_id == "second"


def test_12_a_clock_that_jumps_back_stops_nothing(bus: Bus, clock: ManualClock):
    bus.register("s", window_ms=1_000)
    bus.emit(SourceChanged("s", "a"))
    bus.ack(bus.claim().leases)
    bus.emit(SourceChanged("s", "a"))
    clock.advance(-3_600_000)
    assert bus.claim().leases == []
    clock.advance(2_001)  # at half speed until true again
    assert refs(bus.claim().leases) == ["a"]


def test_12_polls_are_scans_on_a_timer_with_jitter(bus: Bus, clock: ManualClock):
    for at in range(20):
        bus.register(f"s{at}", poll_ms=600_000, window_ms=0)
    clock.advance(600_000)
    assert bus.tick().polls == 20
    leases = bus.claim(50).leases
    assert {(lease.object_ref, lease.change_kind, lease.signal) for lease in leases} == {
        (WHOLE_SOURCE, ChangeKind.SCAN, Signal.POLL)
    }
    bus.ack(leases)
    clock.advance(600_000)
    assert 0 < bus.tick().polls < 20, "sources that were added together drift apart"


# --- names, refusals, waiting ----------------------------------------------------------------------------------------

ODD = ["a:b", "a\x1fb", "{x}", "*", "\n", "\x00", "näme 🦜", "\udcff", "q0:1", "m"]


def test_names_of_any_characters_do_not_meet(bus: Bus):
    for name in ODD:
        bus.register(name)
        bus.emit([SourceChanged(name, ref) for ref in ODD])
        bus.emit(SourceChanged(name, ODD[0], ChangeKind.SCAN))
    leases = bus.claim(1_000).leases
    objects = {(lease.source_id, lease.object_ref) for lease in leases if lease.change_kind is not ChangeKind.SCAN}
    assert objects == {(name, ref) for name in ODD for ref in ODD}
    assert len(leases) == len(ODD) * (len(ODD) + 1)


def test_one_unknown_source_refuses_the_whole_batch_and_is_named(bus: Bus, redis: Redis, bus_name: str):
    bus.register("known")
    with pytest.raises(UnknownSource, match=r"events\[1\].source_id: there is no source 'unknown'"):
        bus.emit([SourceChanged("known", "a"), SourceChanged("unknown", "a")])
    assert read(redis, bus_name).records == {}
    many = [SourceChanged("known", f"o{at}") for at in range(600)]
    with pytest.raises(UnknownSource, match=r"events\[600\]"):
        bus.emit([*many, SourceChanged("unknown", "a")])
    assert read(redis, bus_name).records == {}


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("quota.rate", {"quota": Quota(rate=0)}),
        ("quota.burst", {"quota": Quota(burst=0)}),
        ("quota.concurrency", {"quota": Quota(concurrency=0)}),
        ("weight", {"weight": float("nan")}),
    ],
)
def test_a_quota_that_cannot_be_is_refused_by_name(bus: Bus, field: str, arguments: dict[str, Quota]):
    with pytest.raises(InvalidInput) as caught:
        bus.register("s", **arguments)  # pyright: ignore[reportArgumentType]  # that is the point
    assert caught.value.field == field


def test_removing_a_source_leaves_nothing_of_it(bus: Bus, clock: ManualClock, redis: Redis, bus_name: str):
    bus.register("s", quota=Quota(concurrency=5, bucket="tenant"), window_ms=1_000)
    emit_many(bus, "s", 20)
    leases = bus.claim(5, lease_ms=1_000).leases
    bus.nack(leases[:1], how=Settle.HOPELESS)
    assert bus.unregister("s") is True and bus.unregister("s") is False
    for _ in range(5):
        clock.advance(5_000)
        bus.tick()
        assert bus.claim(10).leases == []
    space = read(redis, bus_name)
    assert space.records == {} and space.sources == {} and not space.sets.get("x") and not space.lists
    assert not space.suffixes & {"dl", "dlk", "dlz", "gone"}


def test_an_idle_consumer_is_woken_by_the_next_signal(redis: Redis, bus_name: str):
    bus = Bus(redis, name=bus_name)
    bus.register("s")
    claimed = bus.claim(consumer="c", wait_ms=10_000)
    assert claimed.waiting
    threading.Timer(0.05, lambda: bus.emit(SourceChanged("s", "a"))).start()
    assert bus.wait(5) is True
    assert refs(bus.claim(consumer="c").leases) == ["a"]


def test_a_consumer_is_invited_once_and_again_when_nobody_comes(bus: Bus, clock: ManualClock):
    bus.register("s")
    first = bus.emit(SourceChanged("s", "a")).invite
    assert len(first) == 1
    assert bus.emit(SourceChanged("s", "b")).invite == ()
    clock.advance(1_000)
    assert len(bus.tick().invite) == 1, "nobody has claimed: whoever was counted on is gone"
    bus.claim(1, invitation=first[0])
    clock.advance(1_000)
    assert bus.tick().invite == ()


def test_why_a_source_is_not_running(bus: Bus, clock: ManualClock):
    def state() -> tuple[str, str]:
        stats = bus.stats(["s"])[0]
        assert stats
        return stats.state, stats.reason

    bus.register("s", quota=Quota(rate=1, burst=1, concurrency=1), window_ms=0)
    assert state() == ("idle", "")
    emit_many(bus, "s", 5)
    assert state() == ("ready", "no_worker")
    leases = bus.claim(consumer="c").leases
    clock.advance(1_000)
    bus.tick()
    assert state() == ("blocked", "cap")
    bus.ack(leases)
    bus.ack(bus.claim(consumer="c").leases)
    assert state() == ("waiting", "tokens")
    bus.pause("s")
    assert state() == ("blocked", "paused")
    bus.resume("s")
    clock.advance(1_000)
    bus.nack(bus.claim(consumer="c").leases, how=Settle.UNAVAILABLE, wait_ms=4_000)
    assert state() == ("waiting", "out_of_reach")


def test_a_bus_that_shall_stay_warm_calls_for_a_consumer_before_the_first_signal(bus: Bus, clock: ManualClock):
    assert bus.tick().invite == ()
    (token,) = bus.tick(stay_warm=True).invite
    assert bus.tick(stay_warm=True).invite == (), "one is on its way"
    bus.claim(1, consumer="c", wait_ms=1_000, invitation=token)
    assert bus.tick(stay_warm=True).invite == (), "one is there"
