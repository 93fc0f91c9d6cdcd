"""Webhooks that get lost, come twice and overtake each other: every object ends at its last version, the loss is measured."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import pytest
from tests.integration.shelves import Bench
from tests.working import at_work

from sourcebus.connectors import registry
from sourcebus.freshness import JITTER
from sourcebus.runtime import build
from sourcebus.settings import Settings
from sourcebus.testing.providers.courier import Courier, Faults
from sourcebus.testing.providers.door import Door
from sourcebus.testing.providers.shelf import Shelf, ShelfConnector

OBJECTS = 200


@contextmanager
def rig(settings: Settings, faults: Faults, *, thin: bool = False) -> Generator[Bench]:
    registry.register("shelf", ShelfConnector)
    with ExitStack() as stack:
        door = stack.enter_context(Door())
        courier = Courier(faults=faults)
        stack.callback(courier.close)
        shelf = stack.enter_context(Shelf(courier, thin=thin))
        door.runtime = stack.enter_context(build(settings.model_copy(update={"public_url": door.url})))
        yield Bench(door.runtime, shelf)


def eventually(condition: Callable[[], bool], within_s: float = 15.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s
        time.sleep(0.02)
    return time.monotonic() - began


def announced(courier: Courier) -> tuple[int, int]:
    """How many changes had a delivery that was sent, and how many there were."""
    sent: dict[int, bool] = {}
    for delivery in courier.sent:
        seq = json.loads(delivery.body)["seq"]
        sent[seq] = sent.get(seq, False) or not delivery.lost
    return sum(sent.values()), len(sent)


@pytest.mark.parametrize("seed", [2])
def test_every_object_ends_at_its_last_version_and_coverage_is_true(settings: Settings, seed: int):
    faults = Faults(seed, lose=0.2, duplicate=0.2, delay_ms=(0, 150))
    with rig(settings, faults) as bench, at_work(bench.runtime):
        chance, courier = random.Random(seed), bench.shelf.courier
        assert courier is not None
        refs = [f"o{at:03d}" for at in range(OBJECTS)]
        for ref in refs:
            bench.shelf.put(ref, "first")
        bench.add(poll_interval_s=1.0, reconcile_interval_s=1.0)
        eventually(lambda: bench.indexed() == bench.on_shelf() and "listening_since_ms" in bench.state())
        eventually(lambda: "feed" in bench.state() and bench.state()["feed"]["mode"] == "push")
        chance.shuffle(refs)
        for at, ref in enumerate(refs):
            if at % 10 == 0:
                bench.shelf.remove(ref)
            else:
                bench.shelf.put(ref, f"changed {at}")
            time.sleep(0.01)
        took_s = eventually(lambda: bench.indexed() == bench.on_shelf())
        assert took_s < 1.0 * JITTER * 2 + 1.0, "within the reconcile bound"
        courier.settle()
        bench.runtime.sources.scan("s")
        eventually(lambda: bench.stats().pending == 0 and bench.stats().in_flight == 0)
        told, changes = announced(courier)
        (heard,) = bench.runtime.bus.heard(["s"])
        assert heard.coverage == pytest.approx(told / changes, abs=0.02)
        assert heard.announced + heard.missed > OBJECTS * 0.9
        eventually(lambda: bench.state()["feed"]["mode"] == "fallback")
        assert "changes announced" in bench.state()["feed"]["reason"] or "were announced" in bench.state()["feed"]["reason"]


def test_thin_webhooks_that_get_lost_are_made_up_for(settings: Settings):
    with rig(settings, Faults(3, lose=0.5, duplicate=0.2, delay_ms=(0, 50)), thin=True) as bench, at_work(bench.runtime):
        bench.add(poll_interval_s=1.0, reconcile_interval_s=1.0)
        for at in range(60):
            bench.shelf.put(f"o{at % 20}", f"text {at}")
            time.sleep(0.01)
        assert eventually(lambda: bench.indexed() == bench.on_shelf()) < 3.0
