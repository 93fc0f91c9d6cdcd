"""Subscriptions: made, renewed, made anew, cancelled, one at a time; against a simulated provider over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from tests.integration.shelves import Bench

from sourcebus.connectors import registry
from sourcebus.model import Heard, Subscription
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing.providers.courier import Courier
from sourcebus.testing.providers.door import Door
from sourcebus.testing.providers.server import Answer
from sourcebus.testing.providers.shelf import Shelf, ShelfConnector


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    registry.register("shelf", ShelfConnector)
    with ExitStack() as stack:
        door = stack.enter_context(Door())
        courier = Courier()
        stack.callback(courier.close)
        shelf = stack.enter_context(Shelf(courier))
        update = {"waiting_consumers": 0, "public_url": door.url + "/"}
        door.runtime = runtime = stack.enter_context(build(settings.model_copy(update=update)))
        yield Bench(runtime, shelf)


def look_after(bench: Bench) -> None:
    """Now, whenever it would be due."""
    bench.runtime.catalog.upkeep.wish("s")
    bench.runtime.housekeeping.again()
    bench.work()


def living(bench: Bench) -> list[str]:
    return [one.id for one in bench.runtime.catalog.subscriptions("s")]


def test_a_new_source_is_subscribed_and_what_is_pushed_is_indexed(bench: Bench):
    bench.add(secret="hunter2")
    bench.work()
    (made,) = bench.shelf.subscriptions.values()
    assert made.url.endswith("/hooks/s") and living(bench) == ["sub-1"]
    bench.shelf.put("a", "apples")
    assert bench.shelf.courier is not None
    bench.shelf.courier.settle()
    bench.work()
    assert bench.indexed() == bench.on_shelf() and bench.story("a")[0] == "indexed"
    assert bench.story("\0subscription")[0] == "subscription"
    upkeep = bench.runtime.catalog.upkeep.upkeep("s")
    assert upkeep and 0.6 < (upkeep.due_at_ms - time.time() * 1000) / 3_600_000 < 0.71, "two thirds of its life"


def test_its_secret_is_encrypted_at_rest(bench: Bench):
    bench.add(secret="hunter2-hunter2")
    bench.work()
    (stored,) = bench.runtime.catalog.subscriptions("s")
    assert stored.secret == "hunter2-hunter2" and "hunter2" not in repr(stored)
    file = bench.runtime.settings.database_url.removeprefix("sqlite:///")
    for name in (file, file + "-wal"):
        with open(name, "rb") as data:
            assert b"hunter2" not in data.read()


def test_one_that_cannot_be_stored_is_cancelled_again(bench: Bench):
    without_key = bench.runtime.settings.model_copy(update={"secret_key": None})
    with build(without_key) as runtime:
        there = Bench(runtime, bench.shelf)
        there.add()
        there.work()
    upkeep = bench.runtime.catalog.upkeep.upkeep("s")
    assert not bench.shelf.subscriptions and upkeep and "SOURCEBUS_SECRET_KEY" in (upkeep.error or "")
    assert any(asked.method == "DELETE" for asked in bench.shelf.asked)


def test_it_is_renewed_in_time_and_no_sooner(bench: Bench):
    bench.shelf.life_s = 3.0
    bench.add()
    bench.work()
    look_after(bench)
    assert not any(asked.method == "PATCH" for asked in bench.shelf.asked)
    (before,) = bench.runtime.catalog.subscriptions("s")
    deadline = time.monotonic() + 5
    while not any(asked.method == "PATCH" for asked in bench.shelf.asked):
        assert time.monotonic() < deadline
        bench.work()
        time.sleep(0.02)
    bench.work()
    (after,) = bench.runtime.catalog.subscriptions("s")
    assert after.id == before.id and (after.expires_at_ms or 0) > (before.expires_at_ms or 0)
    assert len(bench.shelf.subscriptions) == 1


@pytest.mark.parametrize("how", ["expired", "the provider forgot it"])
def test_one_that_is_gone_is_made_anew_and_the_gap_looked_through(bench: Bench, how: str):
    bench.shelf.life_s = 0.4 if how == "expired" else 3600.0
    bench.add()
    bench.work()
    if how == "expired":
        time.sleep(0.45)
        bench.shelf.life_s = 3600.0
    else:
        bench.shelf.subscriptions.clear()
        bench.runtime.catalog.upkeep.renew_now("s", living(bench))
    bench.shelf.put("a", "put while nobody told of it")
    look_after(bench)
    assert living(bench) == ["sub-2"] and bench.indexed() == bench.on_shelf()


def test_a_delivery_that_says_it_was_lost_or_wants_it_renewed_is_heeded_at_once(bench: Bench):
    bench.add()
    bench.work()
    heard = bench.runtime.subscriptions.heard
    heard("s", Heard(renew=["sub-1"]))
    bench.work()
    assert [asked.method for asked in bench.shelf.asked][-1] == "PATCH" and living(bench) == ["sub-1"]
    bench.shelf.subscriptions.clear()
    bench.shelf.put("a", "in the gap")
    heard("s", Heard(lost=["sub-1", "never known"]))
    bench.work()
    assert living(bench) == ["sub-2"] and bench.indexed() == bench.on_shelf()
    heard("s", Heard(keep=Subscription("brought", state={"topic": "t"})))
    assert living(bench) == ["brought", "sub-2"]


def test_a_provider_that_refuses_is_asked_again_ever_more_rarely(bench: Bench):
    bench.shelf.refuse(Answer(500), times=3, path="/subscriptions")
    bench.add()
    bench.work()
    waits: list[float] = []
    for failures in (1, 2, 3):
        upkeep = bench.runtime.catalog.upkeep.upkeep("s")
        assert upkeep and upkeep.failures == failures and "500" in (upkeep.error or "")
        waits.append(upkeep.due_at_ms - time.time() * 1000)
        bench.runtime.subscriptions.call_for("s")
        bench.work()
    assert 6_000 < waits[0] < 10_001 and waits[0] < waits[1] < waits[2]
    assert living(bench) == ["sub-1"] and bench.indexed() == bench.on_shelf()
    upkeep = bench.runtime.catalog.upkeep.upkeep("s")
    assert upkeep and (upkeep.failures, upkeep.error) == (0, None)


def test_a_throttled_subscription_pauses_the_source_and_pays(bench: Bench):
    bench.shelf.refuse(Answer(429, headers={"Retry-After": "60"}), path="/subscriptions")
    bench.add(rate=100.0, burst=100.0)
    bench.work(until=lambda: bench.stats().reason == "provider_pause")
    assert bench.stats().throttled == 1 and living(bench) == []


def test_never_two_at_once_however_many_workers_and_ticks(bench: Bench):
    def tick_and_work(runtime: Runtime) -> None:
        runtime.housekeeping.again()
        Bench(runtime, bench.shelf).once()

    with ExitStack() as stack:
        others = [stack.enter_context(build(bench.runtime.settings)) for _ in range(4)]
        bench.add()
        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                list(pool.map(tick_and_work, others))
        bench.work()
    assert sum(asked.method == "POST" for asked in bench.shelf.asked) == 1 and living(bench) == ["sub-1"]


def test_a_removed_source_is_unsubscribed_also_when_its_provider_is_down(bench: Bench):
    bench.add()
    bench.work()
    bench.runtime.sources.remove("s")
    assert not bench.shelf.subscriptions
    bench.add("t")
    bench.work("t")
    bench.shelf.refuse(Answer(500), path="/subscriptions.*")
    bench.runtime.sources.remove("t")
    assert bench.runtime.catalog.sources() == [] and len(bench.shelf.subscriptions) == 1


def test_a_new_secret_makes_a_new_subscription_and_cancels_the_old(bench: Bench):
    bench.add(secret="one")
    bench.work()
    bench.runtime.sources.change("s", secret="two")
    with build(bench.runtime.settings) as fresh:
        Bench(fresh, bench.shelf).work()
    assert list(bench.shelf.subscriptions) == ["sub-2"] and bench.shelf.subscriptions["sub-2"].secret == "two"
    assert [one.secret for one in bench.runtime.catalog.subscriptions("s")] == ["two"]


def test_a_source_from_before_there_was_a_public_address_is_subscribed_with_its_next_scan(bench: Bench):
    with build(bench.runtime.settings.model_copy(update={"public_url": None})) as before:
        Bench(before, bench.shelf).add()
        Bench(before, bench.shelf).work()
    assert not bench.shelf.subscriptions
    bench.runtime.sources.scan("s")
    bench.work()
    bench.runtime.housekeeping.again()
    bench.work()
    assert living(bench) == ["sub-1"]


def test_a_lost_subscription_is_heard_also_while_the_bus_has_forgotten_the_source(bench: Bench):
    """Redis has lost its data, and the provider's word comes before housekeeping has noticed."""
    bench.add()
    bench.work()
    bench.runtime.bus.unregister("s")
    bench.runtime.subscriptions.heard("s", Heard(lost=("sub-1",)))
    assert bench.stats().pending == 2, "a look through the gap, and a new subscription"
    bench.work()
    assert bench.indexed() == bench.on_shelf() and living(bench) == ["sub-2"]


def test_a_webhook_that_proves_nothing_is_refused(bench: Bench):
    bench.add(secret="right")
    bench.work()
    courier = bench.shelf.courier
    assert courier is not None
    url = next(iter(bench.shelf.subscriptions.values())).url
    answer = courier.now(url, json.dumps({"ref": "a", "seq": 1}).encode(), {"x-shelf-signature": "0" * 64})
    assert answer.status_code == 401
