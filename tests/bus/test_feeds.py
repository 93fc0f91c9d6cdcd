"""How often a source is listed, and how many of its changes were announced."""

from __future__ import annotations

from redis import Redis

from sourcebus.bus import Bus
from sourcebus.model import Quota, Signal
from sourcebus.testing import ManualClock
from tests import keyspace

SLOT_MS = 1_000


def test_the_interval_can_change_and_polls_can_be_reconcile_scans(bus: Bus, clock: ManualClock):
    bus.register("s", poll_ms=600_000, window_ms=0)
    assert bus.poll("s", 10_000, reconcile=True)
    clock.advance(11_000)
    assert bus.tick().polls == 1
    (lease,) = bus.claim(5).leases
    assert lease.signal is Signal.RECONCILE
    bus.ack([lease])
    bus.poll("s", 0)
    clock.advance(3_600_000)
    assert bus.tick().polls == 0
    assert not bus.poll("unknown", 1_000)


def test_an_interval_keeps_what_else_is_known_of_the_source(bus: Bus):
    bus.register("s", quota=Quota(rate=5, burst=7, concurrency=3), weight=2)
    before = bus.stats(["s"])
    bus.poll("s", 10_000)
    assert bus.stats(["s"]) == before


def test_every_due_poll_of_very_many_is_begun_in_one_tick(bus: Bus, clock: ManualClock):
    for at in range(1_200):
        bus.register(f"s{at}", poll_ms=1_000)
    clock.advance(1_100)
    assert bus.tick().polls == 1_200


def test_coverage_is_the_share_of_changes_that_were_announced(bus: Bus):
    bus.register("s")
    (nothing,) = bus.heard(["s"])
    assert nothing.coverage is None and nothing.last_ms is None
    bus.tally("s", SLOT_MS, [("announced", f"a{at}") for at in range(8)] + [("missed", "m1"), ("missed", "m2")])
    (heard,) = bus.heard(["s"])
    assert (heard.announced, heard.missed, heard.coverage) == (8, 2, 0.8)


def test_a_webhook_that_was_only_late_counts_as_an_announcement(bus: Bus, clock: ManualClock):
    bus.register("s")
    bus.tally("s", SLOT_MS, [("missed", "m1"), ("missed", "m2")])
    clock.advance(SLOT_MS * 3)
    bus.tally("s", SLOT_MS, [("heard", "m1"), ("heard", "m1"), ("heard", "never missed")])
    (heard,) = bus.heard(["s"])
    assert (heard.announced, heard.missed) == (heard.announced_since, heard.missed_since) == (1, 1)


def test_the_window_slides_and_is_bounded(bus: Bus, clock: ManualClock, redis: Redis, bus_name: str):
    bus.register("s")
    for at in range(100):
        bus.tally("s", SLOT_MS, [("missed", f"{at}.{each}") for each in range(50)] + [("announced", "x")])
        clock.advance(SLOT_MS)
    (heard,) = bus.heard(["s"])
    assert (heard.announced, heard.missed, heard.missed_since) == (16, 800, 5_000)
    space = keyspace.read(redis, bus_name)
    assert len(space.sets["late:1"]) == 512
    bus.unregister("s")
    assert not any(key.startswith(("late", "cov")) for key in keyspace.read(redis, bus_name).suffixes)


def test_evidence_begins_anew_and_the_window_stays(bus: Bus):
    bus.register("s")
    bus.tally("s", SLOT_MS, [("missed", "a"), ("announced", "b"), ("anew", ""), ("announced", "c")])
    (heard,) = bus.heard(["s"])
    assert (heard.announced, heard.missed, heard.announced_since, heard.missed_since) == (2, 1, 1, 0)


def test_silence_is_known_with_the_usual_gap(bus: Bus, clock: ManualClock):
    bus.register("s")
    for at in range(20):
        clock.advance(100)
        bus.tally("s", SLOT_MS, [("heard", f"{at}")])
    clock.advance(5_000)
    bus.tally("s", SLOT_MS, [("missed", "a"), ("missed", "b")])
    (heard,) = bus.heard(["s"])
    assert (heard.last_ms, heard.gap_ms, heard.unheard) == (clock.now - 5_000, 100, 2)
    assert not bus.tally("unknown", SLOT_MS, [("missed", "a")])
