"""Deliveries that were stored are known again: for a time, the newest of each source, until it is removed."""

from __future__ import annotations

import pytest
from redis import Redis

from sourcebus.bus import Bus
from sourcebus.errors import InvalidInput
from sourcebus.testing import ManualClock
from tests import keyspace


def test_only_what_was_remembered_of_this_source_is_known(bus: Bus) -> None:
    bus.register("a")
    bus.register("b")
    bus.remember([("a", "one")], keep_ms=1_000, most=10)
    assert bus.remembered([("a", "one"), ("a", "two"), ("b", "one"), ("nowhere", "one")]) == [True, False, False, False]
    assert bus.remembered([]) == []


def test_asking_remembers_nothing(bus: Bus) -> None:
    bus.register("a")
    assert bus.remembered([("a", "one")]) == [False]
    assert bus.remembered([("a", "one")]) == [False]


def test_it_is_forgotten_after_its_time(bus: Bus, clock: ManualClock) -> None:
    bus.register("a")
    bus.remember([("a", "one")], keep_ms=60_000, most=10)
    clock.advance(59_000)
    assert bus.remembered([("a", "one")]) == [True]
    clock.advance(2_000)
    assert bus.remembered([("a", "one")]) == [False]


def test_beyond_the_most_the_oldest_go(bus: Bus, clock: ManualClock, redis: Redis, bus_name: str) -> None:
    bus.register("a")
    for number in range(7):
        bus.remember([("a", str(number))], keep_ms=60_000, most=3)
        clock.advance(1)
    assert bus.remembered([("a", str(number)) for number in range(7)]) == [False] * 4 + [True] * 3
    (kept,) = [members for name, members in keyspace.read(redis, bus_name).sets.items() if name.startswith("hd:")]
    assert len(kept) == 3


def test_any_text_is_an_id_and_takes_the_same_room(bus: Bus) -> None:
    bus.register("a")
    ids = ["", "\0", "\udc80", "x" * 100_000, "x" * 99_999]
    bus.remember([("a", one) for one in ids], keep_ms=60_000, most=10)
    assert bus.remembered([("a", one) for one in ids]) == [True] * len(ids)


def test_a_removed_source_leaves_nothing(bus: Bus, redis: Redis, bus_name: str) -> None:
    bus.register("a")
    bus.remember([("a", "one")], keep_ms=60_000, most=10)
    bus.unregister("a")
    assert not [suffix for suffix in keyspace.read(redis, bus_name).suffixes if suffix.startswith("hd")]
    bus.register("a")
    assert bus.remembered([("a", "one")]) == [False]


def test_to_remember_for_no_time_is_refused(bus: Bus) -> None:
    with pytest.raises(InvalidInput, match="keep_ms"):
        bus.remember([("a", "one")], keep_ms=0, most=10)
