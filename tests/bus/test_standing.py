"""Why a source is not running, on real servers: its own gate, or a want of workers; and never a time that has passed."""

from __future__ import annotations

import pytest
from redis import Redis

from sourcebus import Quota, SourceChanged
from sourcebus.bus import Bus, Settle, SourceStats
from sourcebus.testing import ManualClock


def look(bus: Bus, source_id: str = "s") -> SourceStats:
    (stats,) = bus.stats([source_id])
    assert stats is not None
    return stats


def emit(bus: Bus, *refs: str) -> None:
    bus.emit([SourceChanged("s", ref) for ref in refs])


def nobody_works(redis: Redis, bus: Bus, clock: ManualClock) -> None:
    """Long enough for every consumer to have been forgotten, and nobody keeps house meanwhile."""
    clock.advance(600_000)
    assert bus.vitals().consumers == 0


def test_no_worker_and_no_free_worker_are_told_apart(bus: Bus, clock: ManualClock):
    bus.register("s", window_ms=0)
    emit(bus, "a", "b")
    assert look(bus).why == "ready, no worker is running"
    (lease,) = bus.claim(1, consumer="c").leases
    assert look(bus).why == "running; no worker is free for more"
    bus.nack([lease], how=Settle.RELEASE)
    assert (look(bus).reason, look(bus).why) == ("workers_busy", "ready, no worker is free")
    bus.ack(bus.claim(2, consumer="c").leases)
    assert bus.claim(1, consumer="c", wait_ms=10_000).waiting
    assert (bus.vitals().consumers, bus.vitals().waiting) == (1, 1)
    emit(bus, "a")
    assert (look(bus).reason, look(bus).why) == ("", "about to run"), "somebody was woken for it"


def test_how_long_a_window_or_a_backoff_still_lasts(bus: Bus, clock: ManualClock):
    bus.register("s", window_ms=30_000)
    emit(bus, "a", "b")
    leases = bus.claim(2, consumer="c").leases
    bus.ack(leases)
    clock.advance(10_000)
    emit(bus, "b")
    clock.advance(8_000)
    emit(bus, "a")
    assert (look(bus).reason, look(bus).left_s, look(bus).why) == ("window_or_backoff", 12.0, "window or back-off, 12 s")


@pytest.mark.parametrize("gate", ["tokens", "provider_pause", "out_of_reach", "cap", "window_or_backoff"])
def test_a_gate_that_has_opened_is_no_reason_any_more(redis: Redis, bus: Bus, clock: ManualClock, gate: str):
    """Nobody works and nobody keeps house, so nothing moves: it is a worker that is wanting, not tokens."""
    quota = Quota(rate=1, burst=1) if gate == "tokens" else Quota(concurrency=1)
    bus.register("s", quota=quota, window_ms=60_000)
    emit(bus, "a", *([] if gate == "window_or_backoff" else ["b"]))
    leases = bus.claim(1, consumer="c").leases
    if gate == "provider_pause":
        bus.nack(leases, how=Settle.THROTTLED, wait_ms=41_000)
        assert look(bus).why == "provider said wait, 41 s"
    elif gate == "out_of_reach":
        bus.nack(leases, how=Settle.UNAVAILABLE, wait_ms=41_000)
        assert look(bus).why == "out of reach, tries again in 41 s"
    elif gate != "cap":
        bus.ack(leases)
    if gate == "window_or_backoff":
        emit(bus, "a")
    assert look(bus).reason == gate
    nobody_works(redis, bus, clock)
    assert (look(bus).state, look(bus).reason) == ("ready", "no_worker")


def test_leases_of_dead_workers_do_not_count_as_running(redis: Redis, bus: Bus, clock: ManualClock):
    bus.register("s")
    emit(bus, "a")
    bus.claim(1, consumer="c")
    assert look(bus).why == "running"
    nobody_works(redis, bus, clock)
    assert (look(bus).in_flight, look(bus).why) == (1, "ready, no worker is running")


def test_a_shared_bucket_is_named_as_what_holds_back(bus: Bus, clock: ManualClock):
    for name in ("s", "t"):
        bus.register(name, quota=Quota(concurrency=1, bucket="tenant"))
    bus.emit([SourceChanged("t", "a")])
    bus.claim(1, consumer="c")
    emit(bus, "a")
    assert look(bus).why == "its shared bucket is at its cap of 1"


def test_the_learned_share_is_of_now(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=10, burst=10))
    emit(bus, "a")
    bus.nack(bus.claim(1, consumer="c").leases, how=Settle.THROTTLED, wait_ms=0)
    assert look(bus).learned_share == 0.5
    clock.advance(300_000)
    assert look(bus).learned_share == 1.0


def test_a_source_in_a_crowd_is_given_no_time_that_nobody_knows(bus: Bus, clock: ManualClock):
    """Only the objects due first are looked at, however many wait."""
    for name in ("crowd", "s"):
        bus.register(name, window_ms=60_000 if name == "s" else 30_000, quota=Quota(concurrency=1_000))
    crowd = [SourceChanged("crowd", f"o{i}") for i in range(600)]
    bus.emit([*crowd, SourceChanged("s", "a")])
    bus.ack(bus.claim(601, consumer="c").leases)
    bus.emit([*crowd, SourceChanged("s", "a")])
    assert look(bus).why == "window or back-off" and look(bus, "crowd").why == "window or back-off, 30 s"


def test_waiting_is_counted_by_its_reason_also_while_it_lasts(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=1, burst=1, concurrency=1), window_ms=0)
    bus.emit([SourceChanged("s", "a"), SourceChanged("s", "b"), SourceChanged("s", "c")])
    clock.advance(100)  # nobody claims
    (first,) = bus.claim().leases
    clock.advance(300)  # at its cap
    bus.ack([first])
    clock.advance(400)  # out of tokens until 1,000 ms after the claim
    assert waited(bus) == {"no_worker": 100, "cap": 300, "tokens": 400, "provider_pause": 0, "window": 0}
    clock.advance(300)
    (second,) = bus.claim().leases
    bus.nack([second], how=Settle.THROTTLED, wait_ms=2_000)
    clock.advance(1_500)
    assert waited(bus) == {"no_worker": 100, "cap": 300, "tokens": 700, "provider_pause": 1_500, "window": 0}


def test_what_a_window_holds_back_is_counted(bus: Bus, clock: ManualClock):
    bus.register("s", window_ms=10_000)
    bus.emit(SourceChanged("s", "a"))
    bus.ack(bus.claim().leases)
    clock.advance(4_000)
    bus.emit(SourceChanged("s", "a"))
    assert waited(bus)["window"] == 6_000


def waited(bus: Bus) -> dict[str, int]:
    return dict(look(bus).waited_ms)
