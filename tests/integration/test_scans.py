"""Listings: paid from the quota, cut and taken up again, and what they may delete. A real bus, a real catalog, real HTTP."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.integration.shelves import Bench

from sourcebus.connectors import registry
from sourcebus.model import WHOLE_SOURCE, ChangeKind, Lease, Signal, SourceChanged
from sourcebus.runtime import build
from sourcebus.settings import Settings
from sourcebus.testing.providers.server import Answer
from sourcebus.testing.providers.shelf import LIST_COST, Shelf, ShelfConnector


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    registry.register("shelf", ShelfConnector)
    with Shelf() as shelf, build(settings.model_copy(update={"waiting_consumers": 0})) as runtime:
        yield Bench(runtime, shelf)


@pytest.fixture
def hasty(settings: Settings) -> Iterator[Bench]:
    """A worker whose slice is over at once: every listing is cut after each page."""
    registry.register("shelf", ShelfConnector)
    with Shelf() as shelf, build(settings.model_copy(update={"waiting_consumers": 0, "slice_ms": 1})) as runtime:
        yield Bench(runtime, shelf)


def fill(bench: Bench, count: int) -> None:
    for at in range(count):
        bench.shelf.put(f"o{at:03d}", f"text {at}")


# --- one quota for all calls ------------------------------------------------------------------------------------------


def test_listings_and_extractions_pay_their_real_cost_from_one_bucket(bench: Bench):
    fill(bench, 30)
    began = time.monotonic()
    bench.add(rate=30.0, burst=5.0, page=5)
    bench.work()
    took_s = time.monotonic() - began
    spent = bench.asked("/list") * LIST_COST + bench.asked("/objects")
    assert bench.indexed() == bench.on_shelf() and spent == 6 * LIST_COST + 30
    assert took_s >= (spent - 5 - 5) / 30, "it went no faster than the quota allows, but for the burst"
    assert (bench.stats().tokens or 0) < 5.1


def test_a_listing_is_cut_when_it_has_spent_what_the_bucket_can_lend(bench: Bench):
    fill(bench, 25)
    bench.add(rate=40.0, burst=4.0, page=1)  # 25 pages at 2 units: 20 pages are a second's worth of the rate
    bench.once()
    assert bench.asked("/list") == 20
    assert bench.stats().reason == "tokens" and bench.story()[-1] == "scanning"
    assert (bench.stats().tokens or 0) >= -40, "the debt is a second's worth at most"
    bench.work()
    assert bench.indexed() == bench.on_shelf() and bench.asked("/list") == 25, "no page was read twice"


def test_a_shared_bucket_that_a_connector_recommends_is_shared(bench: Bench):
    fill(bench, 4)
    for at in range(3):
        bench.add(f"s{at}", rate=1000.0, burst=4.0, bucket="tenant")
    assert all(bench.stats(f"s{at}").shared for at in range(3))
    bench.shelf.refuse(Answer(429, headers={"Retry-After": "60"}))
    bench.once()
    assert [bench.stats(f"s{at}").reason for at in range(3)] == ["provider_pause"] * 3
    assert len(bench.shelf.asked) == 1, "what was claimed with it was given back"


def test_a_failed_call_is_paid_for_too(bench: Bench):
    fill(bench, 1)
    bench.shelf.refuse(Answer(500))
    bench.add(rate=0.001, burst=10.0)
    bench.once()
    assert bench.stats().tokens == pytest.approx(10 - LIST_COST, abs=0.1)


# --- slices -----------------------------------------------------------------------------------------------------------


def test_a_pass_that_is_cut_at_every_page_finds_all_and_all_that_is_absent(hasty: Bench):
    fill(hasty, 24)
    hasty.add(page=4)
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf()
    assert hasty.story().count("scanning") == 5 and hasty.story()[0] == "scanned"
    hasty.shelf.remove("o003")
    hasty.shelf.forget_feed()  # so that nothing but absence tells of it
    hasty.shelf.put("o005", "changed")
    hasty.runtime.sources.scan("s", Signal.POLL)
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf() and "deleted" in hasty.story("o003")
    assert hasty.runtime.catalog.listings.get("s", "").under_way is None


def test_a_pass_goes_on_where_it_was_after_kill_9(hasty: Bench):
    fill(hasty, 12)
    hasty.add(page=4)
    for _ in range(2):  # a worker lists a page and dies, without a word to anybody
        pid = os.fork()
        if pid == 0:
            try:
                with build(hasty.runtime.settings) as mine:
                    Bench(mine, hasty.shelf).once()
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
    pages = hasty.asked("/list")
    assert pages >= 1 and hasty.runtime.catalog.listings.get("s", "").under_way is not None
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf()
    assert hasty.asked("/list") == 3, "no page was read twice"


def test_a_worker_that_stops_cuts_its_listing_and_loses_nothing(bench: Bench):
    fill(bench, 12)
    bench.add(page=3)
    shift = bench.runtime.shift(lambda: bench.asked("/list") >= 2)
    shift.run()
    shift.close()
    assert bench.asked("/list") == 2 and bench.stats().in_flight == 0
    bench.work()
    assert bench.asked("/list") == 4 and bench.indexed() == bench.on_shelf()


def test_a_throttled_listing_keeps_the_pages_before(bench: Bench):
    fill(bench, 12)
    bench.add(page=3)
    bench.shelf.refuse(Answer(429, headers={"Retry-After": "0"}), path="/list", after=2)
    bench.work()
    assert bench.asked("/list") == 4 + 1, "the two pages before were not asked for again"
    assert bench.indexed() == bench.on_shelf() and bench.stats().throttled == 1


def test_scans_of_one_scope_never_run_in_parallel(hasty: Bench):
    fill(hasty, 8)
    hasty.add(page=1)
    bus, scan = hasty.runtime.bus, SourceChanged("s", WHOLE_SOURCE, ChangeKind.SCAN)

    def scans() -> list[Lease]:
        return [lease for lease in bus.claim(50).leases if lease.change_kind is ChangeKind.SCAN]

    (held,) = scans()
    for kind in Signal:
        bus.emit([replace(scan, signal=kind)] * 3)
        assert scans() == [], "the lease of the first is alive"
    bus.requeue(held, signal=Signal.POLL, caught_up=True)
    (held,) = scans()
    assert held.newer and scans() == []
    bus.requeue(held, signal=Signal.POLL, caught_up=False)
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf()


def test_what_is_told_during_a_long_pass_is_found_meanwhile_and_not_after_it(hasty: Bench):
    fill(hasty, 10)
    hasty.add(page=2)
    hasty.work()
    hasty.shelf.put("o009", "changed while everything is being listed")
    hasty.runtime.catalog.set_state("s", last_whole_at_ms=None)
    hasty.runtime.sources.scan("s")
    hasty.once()
    hasty.once()
    assert hasty.runtime.catalog.listings.get("s", "").under_way is not None
    hasty.shelf.put("o000", "changed behind the pass")
    hasty.runtime.intake.accept([SourceChanged("s", WHOLE_SOURCE, ChangeKind.SCAN, signal=Signal.WEBHOOK)])
    hasty.work(until=lambda: hasty.indexed()["o000"] == hasty.on_shelf()["o000"])
    assert hasty.runtime.catalog.listings.get("s", "").under_way is not None, "it did not wait for the pass to end"
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf()


def test_a_source_without_a_feed_is_listed_once_more_for_what_was_told_during_its_pass(hasty: Bench):
    fill(hasty, 6)
    hasty.add(page=2, feed=False)
    hasty.once()
    hasty.work(until=lambda: hasty.asked("/list") >= 2)
    hasty.shelf.put("o000", "changed behind the pass")
    hasty.runtime.intake.accept([SourceChanged("s", WHOLE_SOURCE, ChangeKind.SCAN, signal=Signal.WEBHOOK)])
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf()


# --- cursors that are good no more ------------------------------------------------------------------------------------


def test_between_complete_listings_only_the_feed_is_asked(bench: Bench):
    fill(bench, 6)
    bench.add(page=2)
    bench.work()
    bench.forget()
    bench.shelf.put("o001", "new text")
    bench.shelf.remove("o002")
    bench.runtime.sources.scan("s", Signal.POLL)
    bench.work()
    assert bench.indexed() == bench.on_shelf() and (bench.asked("/changes"), bench.asked("/list")) == (1, 0)


def test_an_expired_cursor_lists_everything_and_loses_no_delete(bench: Bench):
    fill(bench, 6)
    bench.add(page=2)
    bench.work()
    bench.shelf.remove("o001")
    bench.shelf.put("new", "appeared")
    bench.shelf.forget_feed()
    bench.runtime.sources.scan("s", Signal.POLL)
    bench.work()
    assert bench.indexed() == bench.on_shelf()
    bench.forget()
    bench.runtime.sources.scan("s", Signal.POLL)
    bench.work()
    assert (bench.asked("/changes"), bench.asked("/list")) == (1, 0), "the feed is good again"


def test_a_cursor_of_an_older_connector_is_not_used(bench: Bench):
    fill(bench, 3)
    bench.add()
    bench.work()
    bench.forget()
    bench.shelf.remove("o000")

    class Newer(ShelfConnector):
        cursor_version = 2

        def __init__(self, config: dict[str, object], secret: str | None) -> None:
            super().__init__(config, secret)
            self.cursor_version = 2

    registry.register("shelf", Newer)
    with build(bench.runtime.settings) as upgraded:
        after = Bench(upgraded, bench.shelf)
        upgraded.sources.scan("s", Signal.POLL)
        after.work()
        assert after.indexed() == after.on_shelf() and (after.asked("/changes"), after.asked("/list")) == (0, 1)


def test_a_reconcile_scan_lists_completely_once_per_interval(bench: Bench):
    fill(bench, 3)
    bench.add(reconcile_interval_s=3600.0)
    bench.work()
    bench.forget()
    bench.runtime.sources.scan("s", Signal.RECONCILE)
    bench.work()
    assert (bench.asked("/changes"), bench.asked("/list")) == (1, 0), "a complete one ended just now"
    bench.runtime.catalog.set_state("s", last_whole_at_ms=time.time() * 1000 - 2_000_000)
    bench.forget()
    bench.runtime.sources.scan("s", Signal.RECONCILE)
    bench.work()
    assert bench.asked("/list") == 1


# --- deletes ----------------------------------------------------------------------------------------------------------


def test_a_listing_that_fails_half_way_deletes_nothing_also_when_it_was_cut(hasty: Bench):
    fill(hasty, 9)
    hasty.add(page=3, feed=False)
    hasty.work()
    hasty.shelf.remove("o000")
    hasty.runtime.sources.scan("s", Signal.POLL)
    hasty.once()
    hasty.shelf.refuse(Answer(500), times=3, path="/list")
    hasty.work(until=lambda: hasty.stats().reason == "out_of_reach")
    assert "o000" in hasty.indexed() and "500" in hasty.state()["error"]
    hasty.shelf.accept_again()
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf()


@pytest.mark.parametrize(("status", "pause_s"), [(403, 50), (404, 1), (400, 1)])
def test_a_refused_listing_is_about_the_source_not_about_an_object(bench: Bench, status: int, pause_s: float):
    fill(bench, 3)
    bench.add(feed=False)
    bench.work()
    bench.shelf.refuse(Answer(status), path="/list")
    bench.runtime.sources.scan("s", Signal.POLL)
    bench.once()
    assert bench.stats().reason == "out_of_reach" and bench.stats().left_s is not None
    assert bench.stats().left_s >= pause_s and bench.stats().dead == 0  # pyright: ignore[reportOptionalOperand]
    assert bench.indexed() == bench.on_shelf() and str(status) in bench.state()["error"]


def test_a_scope_that_is_gone_does_not_pause_the_source(bench: Bench):
    fill(bench, 1)
    bench.add()
    bench.work()
    bench.shelf.refuse(Answer(404), path="/list")
    bench.runtime.intake.accept([SourceChanged("s", "drive-7/", ChangeKind.SCAN)])
    bench.once()
    assert (bench.stats().reason, bench.stats().nacked) == ("window_or_backoff", 1)


def lose_most(bench: Bench) -> None:
    for ref in list(bench.shelf.objects)[:45]:
        bench.shelf.remove(ref)


def scan_and_work(bench: Bench) -> None:
    bench.runtime.sources.scan("s", Signal.POLL)
    bench.work()


@pytest.mark.parametrize("feed", [False, True], ids=["absent from a complete listing", "told by a feed"])
def test_more_deletes_than_the_share_are_held_and_released(bench: Bench, feed: bool):
    fill(bench, 60)
    bench.add(feed=feed)
    bench.work()
    lose_most(bench)
    scan_and_work(bench)
    assert (bench.state()["held"]["count"], bench.state()["held"]["of"]) == (45, 60)
    assert len(bench.indexed()) == 60
    assert bench.runtime.sources.release("s") == 45
    bench.work()
    assert bench.indexed() == bench.on_shelf() and "held" not in bench.state()


@pytest.mark.parametrize("feed", [False, True], ids=["absent from a complete listing", "told by a feed"])
def test_held_deletes_that_are_dropped_stay_indexed_and_are_not_held_again(bench: Bench, feed: bool):
    fill(bench, 60)
    bench.add(feed=feed)
    bench.work()
    lose_most(bench)
    scan_and_work(bench)
    assert bench.runtime.sources.drop("s") == 45 and "held" not in bench.state()
    bench.shelf.remove("o050")
    bench.runtime.catalog.listings.forget("s")
    scan_and_work(bench)
    assert "held" not in bench.state() and len(bench.indexed()) == 59 and "o050" not in bench.indexed()
    bench.shelf.put("o000", "is back")
    scan_and_work(bench)
    bench.runtime.catalog.listings.forget("s")
    scan_and_work(bench)
    bench.shelf.remove("o000")
    bench.runtime.catalog.listings.forget("s")
    scan_and_work(bench)
    assert "o000" not in bench.indexed(), "what came back is an object like any other again"


def test_deletes_of_a_feed_are_counted_over_all_slices(hasty: Bench):
    fill(hasty, 60)
    hasty.add(page=5)
    hasty.work()
    lose_most(hasty)
    scan_and_work(hasty)
    assert hasty.state()["held"]["count"] == 15 and len(hasty.indexed()) == 30, "half of the source, and no more"
    assert hasty.runtime.sources.release("s") == 15
    hasty.work()
    assert hasty.indexed() == hasty.on_shelf()
