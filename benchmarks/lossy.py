"""Webhooks of which a fifth is lost, a fifth comes twice and all overtake each other: is every object right in the end, how
soon, and does sourcebus know how many it was not told of? And what 100,000 polled sources cost while nothing happens.

A simulated provider on loopback (`sourcebus.testing.providers.shelf`), real HTTP both ways, one worker slot in this process.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.working import at_work

from benchmarks.processes import scratch
from benchmarks.progress import step
from benchmarks.result import Goal, Result, Table
from benchmarks.timing import median
from sourcebus.bus import Bus
from sourcebus.connectors import registry
from sourcebus.freshness import JITTER
from sourcebus.model import Source
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.testing.providers.courier import Courier, Faults
from sourcebus.testing.providers.door import Door
from sourcebus.testing.providers.shelf import Shelf, ShelfConnector

RECONCILE_S, POLLED = 2.0, 100_000
_SOURCE = "shelf"
_PATIENCE_S = 60.0
_TICK_S = 0.5
_GRACE_S = 2.0  # listing 1,000 objects and reading those that were not announced


@dataclass(frozen=True)
class _Run:
    """One seed: how long after the last change all was right, and the share of announced changes, true and measured."""

    seed: int
    changes: int
    settled_s: float
    true_share: float
    measured_share: float
    feed: str


def run(quick: bool) -> Result:
    objects, seeds = (200, 1) if quick else (1_000, 3)
    runs: list[_Run] = []
    with step("lossy webhooks", seeds) as shown:
        for seed in range(1, seeds + 1):
            runs.append(_run(seed, objects))
            shown.advance(1)
    tick_ms, due_ms = _ticks(POLLED // 10 if quick else POLLED)
    worst = max(runs, key=lambda one: one.settled_s)
    off = max(abs(one.true_share - one.measured_share) for one in runs)
    bound_s = RECONCILE_S * JITTER + _GRACE_S
    return Result(
        "lossy",
        "Webhooks of which 20 % are lost, 20 % come twice and all overtake each other",
        [
            Goal("until every object is at its last version, worst seed", "at most", bound_s, worst.settled_s, "s"),
            Goal("webhook coverage, measured, off the truth, worst seed", "at most", 2.0, off * 100, "points"),
            Goal(f"a tick beside {POLLED:,} polled sources of which none is due", "at most", 5.0, tick_ms, "ms"),
        ],
        [
            Table(
                "By seed",
                ["seed", "changes", "all right after", "announced, in truth", "announced, as measured", "fed by then"],
                [
                    [
                        one.seed,
                        one.changes,
                        f"{one.settled_s:.1f} s",
                        f"{one.true_share:.1%}",
                        f"{one.measured_share:.1%}",
                        one.feed,
                    ]
                    for one in runs
                ],
            ),
            Table("Polls", ["one tick, none due", "starting one poll"], [[f"{tick_ms:.2f} ms", f"{due_ms * 1000:.0f} µs"]]),
        ],
        [
            f"Each object changes once, a tenth of them by being removed. The reconcile interval is {RECONCILE_S:g} s here; a "
            "complete listing of the source begins that long after the last, give or take a tenth.",
            "The truth is what the provider's courier knows: changes of which at least one delivery was sent. With a fifth "
            "lost the source falls back to polling by itself, which is what it should do below 90 %.",
            "All polled sources are one ordered set in Redis: there is no beat entry per source.",
        ],
        {"runs": [vars(one) for one in runs], "tick_ms": tick_ms},
    )


def _run(seed: int, objects: int) -> _Run:
    registry.register("shelf", ShelfConnector)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        courier = Courier(faults=Faults(seed, lose=0.2, duplicate=0.2, delay_ms=(0, 300)), lanes=8)
        stack.callback(courier.close)
        door, shelf = stack.enter_context(Door()), stack.enter_context(Shelf(courier))
        settings = Settings(
            redis_url=stack.enter_context(running_server()),
            database_url=f"sqlite:///{folder}/catalog.db",
            data_dir=folder,
            public_url=door.url,
            secret_key=SecretStr(Fernet.generate_key().decode()),
        )
        door.runtime = runtime = stack.enter_context(build(settings))
        stack.enter_context(at_work(runtime, _TICK_S))
        return _changes(runtime, shelf, courier, seed, objects)


def _changes(runtime: Runtime, shelf: Shelf, courier: Courier, seed: int, objects: int) -> _Run:
    refs = [f"object-{at:05d}" for at in range(objects)]
    for ref in refs:
        shelf.put(ref, "first")
    config = {"url": shelf.url, "poll_interval_s": RECONCILE_S, "reconcile_interval_s": RECONCILE_S, "page": 500}
    runtime.sources.add(Source(_SOURCE, "shelf", config))
    _wait(lambda: _right(runtime, shelf) and runtime.catalog.state(_SOURCE).get("feed", {}).get("mode") == "push")
    random.Random(seed).shuffle(refs)
    for at, ref in enumerate(refs):
        if at % 10 == 0:
            shelf.remove(ref)
        else:
            shelf.put(ref, f"changed {at}")
        time.sleep(0.01)
    settled_s = _wait(lambda: _right(runtime, shelf))
    courier.settle()
    runtime.sources.scan(_SOURCE)
    _wait(lambda: _idle(runtime))
    told = _told(courier)
    (heard,) = runtime.bus.heard([_SOURCE])
    feed = str(runtime.catalog.state(_SOURCE)["feed"]["mode"])
    return _Run(seed, len(told), settled_s, sum(told.values()) / len(told), heard.coverage or 0.0, feed)


def _told(courier: Courier) -> dict[int, bool]:
    """By change: whether a delivery of it was sent."""
    told: dict[int, bool] = {}
    for sent in courier.sent:
        seq = int(json.loads(sent.body)["seq"])
        told[seq] = told.get(seq, False) or not sent.lost
    return told


def _right(runtime: Runtime, shelf: Shelf) -> bool:
    known = {ref: version.version for ref, version in runtime.catalog.objects(_SOURCE, limit=100_000)}
    return known == {ref: str(rev) for ref, (rev, _text) in shelf.objects.items()}


def _idle(runtime: Runtime) -> bool:
    (stats,) = runtime.bus.stats([_SOURCE])
    return stats is not None and not stats.pending and not stats.in_flight


def _wait(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > _PATIENCE_S:
            raise TimeoutError("it never came to rest")
        time.sleep(0.02)
    return time.monotonic() - began


def _ticks(sources: int) -> tuple[float, float]:
    """Milliseconds of a tick while none of so many polled sources is due, and of starting one poll while they all are."""
    with running_server() as url:
        bus = Bus.from_url(url)
        with step("polled sources", sources) as shown:
            for at in range(sources):
                bus.register(f"s{at}", poll_ms=3_600_000)
                if at % 1_000 == 0:
                    shown.to(at)
        quiet = [_timed_ms(bus.tick) for _ in range(50)]
        for at in range(2_000):
            bus.poll(f"s{at}", 1)
        time.sleep(0.01)
        started_ms = _timed_ms(bus.tick)
        bus.close()
    return median(quiet), started_ms / 2_000


def _timed_ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000
