"""How a source is fed: adaptive polls, reconcile beside webhooks, falling back and coming back; and that all of it is shown."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from tests.integration.shelves import Bench
from tests.serving import running

from sourcebus.bus.keys import root
from sourcebus.connectors import registry
from sourcebus.gateway import create_app
from sourcebus.model import Signal, SourceChanged
from sourcebus.runtime import build
from sourcebus.settings import Settings
from sourcebus.testing.providers.courier import Courier
from sourcebus.testing.providers.door import Door
from sourcebus.testing.providers.server import Answer
from sourcebus.testing.providers.shelf import Shelf, ShelfConnector

RECONCILE_S = 7_200.0


@pytest.fixture
def bench(settings: Settings) -> Generator[Bench]:
    """With a public address, so that the shelf is subscribed to."""
    registry.register("shelf", ShelfConnector)
    with ExitStack() as stack:
        door = stack.enter_context(Door())
        courier = Courier()
        stack.callback(courier.close)
        shelf = stack.enter_context(Shelf(courier))
        update = {"waiting_consumers": 0, "public_url": door.url}
        door.runtime = runtime = stack.enter_context(build(settings.model_copy(update=update)))
        yield Bench(runtime, shelf)


@pytest.fixture
def polled(settings: Settings) -> Generator[Bench]:
    """Without one: it is only ever polled."""
    registry.register("shelf", ShelfConnector)
    with Shelf() as shelf, build(settings.model_copy(update={"waiting_consumers": 0})) as runtime:
        yield Bench(runtime, shelf)


def next_poll_s(bench: Bench) -> float:
    """Seconds until the source is polled, as the bus has it."""
    client = bench.runtime.bus._client  # pyright: ignore[reportPrivateUsage]
    at_ms = client.zscore(root(bench.runtime.settings.bus_name).decode() + "pl", "1")
    assert isinstance(at_ms, float)
    return at_ms / 1000 - time.time()


def scan(bench: Bench, signal: Signal = Signal.POLL) -> None:
    bench.runtime.sources.scan("s", signal)
    bench.work()


def status(bench: Bench) -> dict[str, Any]:
    (line,) = bench.runtime.desk.status(["s"])
    return line


def pushed(bench: Bench, refs: list[str], text: str) -> None:
    """Changes that webhooks announce."""
    for ref in refs:
        bench.shelf.put(ref, text)
    assert bench.shelf.courier is not None
    bench.shelf.courier.settle()
    bench.work()


def unannounced(bench: Bench, refs: list[str], text: str) -> None:
    """Changes of which no webhook tells, found by a reconcile scan."""
    courier, bench.shelf.courier = bench.shelf.courier, None
    for ref in refs:
        bench.shelf.put(ref, text)
    bench.shelf.courier = courier
    scan(bench, Signal.RECONCILE)


def many(count: int, at: int = 0) -> list[str]:
    return [f"o{number:03d}" for number in range(at, at + count)]


# --- polling ----------------------------------------------------------------------------------------------------------


def test_polls_come_sooner_while_changes_are_found_and_later_while_none_are(polled: Bench):
    polled.add(poll_interval_s=1_000.0)
    polled.work()
    assert next_poll_s(polled) == pytest.approx(1_000, rel=0.11)
    for at, expected_s in enumerate((500, 250, 125, 100, 100)):
        polled.shelf.put("a", f"text {at}")
        scan(polled)
        assert next_poll_s(polled) == pytest.approx(expected_s, rel=0.11)
    for expected_s in (150, 225, 337.5):
        scan(polled)
        assert next_poll_s(polled) == pytest.approx(expected_s, rel=0.11)
    polled.shelf.refuse(Answer(500), path="/changes")
    polled.runtime.sources.scan("s", Signal.POLL)
    polled.once()
    assert next_poll_s(polled) == pytest.approx(675, rel=0.11), "after an error it backs off"


def test_the_staleness_bound_is_shown_with_its_parts(polled: Bench):
    polled.add(poll_interval_s=1_000.0)
    assert status(polled)["staleness_bound_s"] is None, "not known before the first listing"
    polled.work()
    polled.shelf.put("a", "text")
    scan(polled)
    line = status(polled)
    parts = line["staleness"]
    assert parts["interval_s"] == pytest.approx(1_100) and parts["present_interval_s"] == pytest.approx(500)
    assert line["staleness_bound_s"] == pytest.approx(parts["interval_s"] + parts["scan_s"] + parts["queue_s"], abs=0.01)
    assert polled.runtime.desk.staleness("s")["staleness_bound_s"] == line["staleness_bound_s"]


def test_a_source_that_is_never_polled_has_no_bound(polled: Bench):
    polled.add(poll_interval_s=0.0)
    polled.work()
    assert status(polled)["staleness_bound_s"] is None and status(polled)["feed"] == "poll"


# --- beside webhooks --------------------------------------------------------------------------------------------------


def test_a_subscribed_source_is_listed_only_for_reconciling(bench: Bench):
    bench.add(poll_interval_s=60.0, reconcile_interval_s=RECONCILE_S)
    bench.work()
    line = status(bench)
    assert (line["feed"], line["feed_reason"]) == ("push", None)
    assert next_poll_s(bench) == pytest.approx(RECONCILE_S, rel=0.11)
    pushed(bench, many(5), "announced")
    line = status(bench)
    assert (line["webhook_coverage"], line["webhook_changes"]) == (1.0, 5)
    assert line["last_heard_at"] is not None


def test_it_falls_back_when_changes_are_not_announced_and_comes_back_when_they_are(bench: Bench):
    bench.add(poll_interval_s=60.0, reconcile_interval_s=RECONCILE_S)
    bench.work()
    pushed(bench, many(10), "announced")
    unannounced(bench, many(10, at=10), "not announced")
    scan(bench, Signal.RECONCILE)
    line = status(bench)
    assert (line["feed"], line["feed_reason"]) == ("fallback", "only 50% of its changes were announced")
    assert next_poll_s(bench) < 67 and "feed_fallback" in bench.story()
    bench.work()
    assert list(bench.shelf.subscriptions) == ["sub-2"], "and subscribed anew"
    pushed(bench, many(15), "announced again")
    scan(bench)
    assert status(bench)["feed"] == "fallback", "too few to rely on"
    pushed(bench, many(15, at=15), "announced again")
    scan(bench)
    assert status(bench)["feed"] == "push" and next_poll_s(bench) > RECONCILE_S / 2


def test_it_falls_back_when_its_subscription_dies_and_cannot_be_made_anew(bench: Bench):
    bench.add(poll_interval_s=60.0, reconcile_interval_s=RECONCILE_S)
    bench.work()
    assert status(bench)["feed"] == "push"
    bench.shelf.subscriptions.clear()
    bench.shelf.refuse(Answer(500), times=100, path="/subscriptions")
    bench.runtime.catalog.upkeep.renew_now("s", ["sub-1"])
    bench.runtime.catalog.upkeep.wish("s")
    bench.runtime.housekeeping.again()
    bench.work()
    line = status(bench)
    assert (line["feed"], line["feed_reason"]) == ("fallback", "its subscription has ended")
    (check,) = [check for check in bench.runtime.desk.doctor() if check.name == "subscription of s"]
    assert check.ok is False and "500" in check.detail


def test_silence_is_noticed_by_the_second_listing_that_finds_something(bench: Bench):
    bench.add(poll_interval_s=60.0, reconcile_interval_s=RECONCILE_S)
    bench.work()
    for at in range(8):
        pushed(bench, many(20), f"text {at}")
    unannounced(bench, many(5), "lost one")
    assert status(bench)["feed"] == "push"
    time.sleep(0.5)
    unannounced(bench, many(5), "lost two")
    unannounced(bench, many(1), "lost three")
    assert status(bench)["feed_reason"] == "nothing was heard while 10 changes were found"


def test_a_change_that_a_listing_finds_first_and_a_webhook_announces_late_was_announced(bench: Bench):
    bench.add(poll_interval_s=60.0, reconcile_interval_s=RECONCILE_S)
    bench.work()
    unannounced(bench, many(4), "its webhook is late")
    assert status(bench)["webhook_coverage"] == 0.0
    bench.runtime.intake.accept([SourceChanged("s", ref) for ref in many(3)])
    bench.work()
    assert status(bench)["webhook_coverage"] == 0.75


def test_what_the_first_listing_finds_is_no_missed_webhook(bench: Bench):
    for ref in many(30):
        bench.shelf.put(ref, "was there before")
    bench.add(poll_interval_s=60.0)
    bench.work()
    assert status(bench)["webhook_coverage"] is None and status(bench)["feed"] == "push"


# --- shown ------------------------------------------------------------------------------------------------------------


def test_http_shows_subscriptions_bounds_and_metrics(bench: Bench):
    bench.add(poll_interval_s=60.0, reconcile_interval_s=RECONCILE_S)
    bench.work()
    pushed(bench, many(2), "announced")
    with running(create_app(bench.runtime)) as url:
        (line,) = httpx.get(url + "/v1/subscriptions").json()["items"]
        assert (line["source_id"], line["id"], line["state"], line["webhook_coverage"]) == ("s", "sub-1", "living", 1.0)
        assert line["expires_at"] and line["last_delivery_at"] and line["error"] is None and "secret" not in line
        assert httpx.get(url + "/v1/sources/s").json()["staleness_bound_s"] == pytest.approx(RECONCILE_S * 1.1, rel=0.01)
        text = httpx.get(url + "/metrics").text
    assert 'sourcebus_webhook_coverage{source="s"} 1.0' in text
    assert 'sourcebus_source_feed{feed="push",source="s"} 1.0' in text
    assert 'sourcebus_staleness_bound_seconds{source="s"}' in text
