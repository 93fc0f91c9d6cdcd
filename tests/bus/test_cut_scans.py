"""A scan that is cut: it goes on with the next claim, behind others, and what was told meanwhile is not forgotten."""

from __future__ import annotations

import pytest

from sourcebus.bus import Bus, Settle
from sourcebus.model import ChangeKind, Lease, Quota, Signal, SourceChanged
from sourcebus.testing import ManualClock

SCAN = SourceChanged("s", "", ChangeKind.SCAN, signal=Signal.RECONCILE)
TOLD = SourceChanged("s", "", ChangeKind.SCAN, signal=Signal.WEBHOOK)


def claim(bus: Bus) -> Lease:
    (lease,) = bus.claim(10).leases
    return lease


@pytest.fixture
def begun(bus: Bus) -> Lease:
    """The lease of a scan whose pass has just begun."""
    bus.register("s", window_ms=30_000)
    bus.emit(SCAN)
    return claim(bus)


def test_it_is_due_at_once_and_costs_no_attempt(bus: Bus, begun: Lease):
    for _ in range(10):
        assert bus.requeue(begun, signal=Signal.RECONCILE, caught_up=True).done == [True]
        lease = claim(bus)
        assert (lease.attempt, lease.newer, lease.signal) == (1, False, Signal.RECONCILE)
        assert lease.fence > begun.fence and lease.accepted_at_ms == begun.accepted_at_ms
        begun = lease


def test_it_waits_behind_what_came_before_it_and_for_its_tokens(bus: Bus, clock: ManualClock):
    bus.register("s", quota=Quota(rate=10, burst=1))
    bus.emit(SCAN)
    lease = claim(bus)
    bus.emit(SourceChanged("s", "object", signal=Signal.RECONCILE))
    bus.requeue(lease, signal=Signal.RECONCILE, caught_up=True, cost=5)
    assert bus.claim(10).leases == [], "five units are half a second"
    clock.advance(500)
    assert claim(bus).object_ref == "object"


@pytest.mark.parametrize("when", ["in flight", "pending"])
@pytest.mark.parametrize("caught_up", [False, True])
def test_what_is_told_meanwhile_is_known_to_the_next_claim(bus: Bus, begun: Lease, when: str, caught_up: bool):
    if when == "in flight":
        bus.emit(TOLD)
    bus.requeue(begun, signal=Signal.RECONCILE, caught_up=caught_up)
    if when == "pending":
        assert bus.emit(TOLD).merged == 1
    lease = claim(bus)
    assert lease.newer and lease.signal is Signal.WEBHOOK


def test_it_is_known_until_it_was_caught_up_with(bus: Bus, begun: Lease):
    bus.emit(TOLD)
    bus.requeue(begun, signal=Signal.RECONCILE, caught_up=False)
    second = claim(bus)
    bus.requeue(second, signal=Signal.RECONCILE, caught_up=False)
    third = claim(bus)
    assert third.newer and third.signal is Signal.RECONCILE, "but the pass itself is backfill again"
    bus.requeue(third, signal=Signal.RECONCILE, caught_up=True)
    assert not claim(bus).newer


@pytest.mark.parametrize("how", [Settle.FAILED, Settle.THROTTLED, Settle.UNAVAILABLE])
def test_it_is_known_after_a_failure(bus: Bus, begun: Lease, clock: ManualClock, how: Settle):
    bus.emit(TOLD)
    bus.nack([begun], how=how, wait_ms=10)
    clock.advance(2_000)
    lease = claim(bus)
    assert lease.newer
    bus.nack([lease], how=how, wait_ms=10)
    bus.emit([TOLD, TOLD])
    clock.advance(5_000)
    assert claim(bus).newer


def test_it_is_known_when_the_next_slice_was_never_begun(bus: Bus, begun: Lease):
    bus.requeue(begun, signal=Signal.RECONCILE, caught_up=True)
    second = claim(bus)
    bus.emit(TOLD)
    bus.nack([second], how=Settle.RELEASE)
    assert claim(bus).newer


def test_a_lesser_signal_does_not_pull_a_pass_down(bus: Bus, begun: Lease):
    bus.emit(SCAN)
    bus.requeue(begun, signal=Signal.POLL, caught_up=False)
    bus.emit(SourceChanged("s", "object", signal=Signal.RECONCILE))
    lease = bus.claim(1).leases[0]
    assert lease.object_ref == "" and lease.newer and lease.signal is Signal.POLL, "it is as live as the pass that was cut"


def test_it_is_known_after_a_crash(bus: Bus, begun: Lease, clock: ManualClock):
    bus.requeue(begun, signal=Signal.RECONCILE, caught_up=True)
    claim(bus)
    bus.emit(TOLD)
    clock.advance(60_000)
    bus.tick()
    clock.advance(5_000)
    assert claim(bus).newer


def test_an_acknowledged_scan_leaves_nothing_behind(bus: Bus, begun: Lease, clock: ManualClock):
    bus.requeue(begun, signal=Signal.RECONCILE, caught_up=True)
    bus.emit(TOLD)
    bus.ack([claim(bus)])
    assert bus.claim(10).leases == [], "the consumer has told what is still to be done"
    clock.advance(60_000)
    bus.emit(TOLD)
    assert not claim(bus).newer


def test_a_lost_lease_requeues_nothing(bus: Bus, begun: Lease, clock: ManualClock):
    clock.advance(60_000)
    bus.tick()
    clock.advance(5_000)
    claim(bus)
    assert bus.requeue(begun, signal=Signal.RECONCILE, caught_up=True).done == [False]
    assert bus.claim(10).leases == []


def test_a_poll_does_not_hide_who_told_of_a_change(bus: Bus):
    bus.register("s")
    bus.emit([SourceChanged("s", "a", signal=Signal.WEBHOOK), SourceChanged("s", "a", signal=Signal.POLL)])
    assert claim(bus).signal is Signal.WEBHOOK
    bus.emit([SourceChanged("s", "b", signal=Signal.POLL), SourceChanged("s", "b", signal=Signal.WEBHOOK)])
    assert claim(bus).signal is Signal.WEBHOOK
