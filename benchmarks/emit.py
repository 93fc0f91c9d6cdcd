"""Emitting in batches of 100 from one process, and where the time goes."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from redis import Redis

from benchmarks.meter import Meter, Spent, medians
from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.timing import median
from sourcebus.bus import Bus
from sourcebus.bus.values import pack_event
from sourcebus.model import SourceChanged
from sourcebus.testing import running_server

LEAST_PER_S, SOURCES, BATCH = 100_000.0, 400, 100

_STORMY = 1_000
"""Objects that a storm is about."""

Batches = list[list[SourceChanged]]


def run(quick: bool) -> Result:
    rounds, count = (3, 10_000) if quick else (7, 50_000)
    kinds: dict[str, Callable[[], Batches]] = {
        "new objects, sources mixed": lambda: _batches([_event(at % SOURCES, at) for at in range(count)]),
        "new objects, one source per batch": lambda: _batches([_event(at // BATCH % SOURCES, at) for at in range(count)]),
        f"storms on {_STORMY:,} pending objects, merged": lambda: _batches([_stormy(at) for at in range(count)]),
    }
    spent: dict[str, list[Spent]] = {name: [] for name in kinds}
    packed: dict[str, list[float]] = {name: [] for name in kinds}
    with running_server() as url, step("emit in batches of 100", rounds * len(kinds)) as shown:
        client = Redis.from_url(url)
        bus, meter = Bus(client), Meter(client)
        try:
            for _ in range(rounds):
                for name, made in kinds.items():
                    _begin(client, bus)
                    batches = made()
                    packed[name].append(_packing_s(batches) / count * 1e6)
                    spent[name].append(meter.measure(lambda batches=batches: _emit(bus, batches)).per(count))
                    shown.advance()
        finally:
            bus.close()
    return _result(spent, packed, rounds, count)


def _event(source: int, at: int) -> SourceChanged:
    return SourceChanged(f"source-{source}", f"folder/object-{at}")


def _stormy(at: int) -> SourceChanged:
    return _event(at % _STORMY % SOURCES, at % _STORMY)


def _batches(events: list[SourceChanged]) -> Batches:
    return [events[start : start + BATCH] for start in range(0, len(events), BATCH)]


def _begin(client: Redis, bus: Bus) -> None:
    """An empty bus with its sources; what a storm is about is pending."""
    client.flushall()
    for at in range(SOURCES):
        bus.register(f"source-{at}")
    bus.emit([_stormy(at) for at in range(_STORMY)])


def _emit(bus: Bus, batches: Batches) -> None:
    for batch in batches:
        bus.emit(batch)


def _packing_s(batches: Batches) -> float:
    """How long this process needs to check and pack the events, without sending them."""
    began = time.process_time()
    for batch in batches:
        for at, event in enumerate(batch):
            pack_event(event, at)
    return time.process_time() - began


def _result(spent: dict[str, list[Spent]], packed: dict[str, list[float]], rounds: int, count: int) -> Result:
    rates = {name: median([1e6 / one.wall_s for one in values]) for name, values in spent.items()}
    rows: list[list[Cell]] = []
    for name, values in spent.items():
        each = medians(values)
        split = [round(us, 2) for us in (each.wall_s, each.server_s, each.client_s, median(packed[name]))]
        rows.append([name, round(rates[name]), _spread([1e6 / one.wall_s for one in values]), *split])
    mixed, single, storm = rates
    return Result(
        "emit",
        f"Emit in batches of {BATCH}, {SOURCES} sources, one process",
        [Goal(f"{name}, events per second", "at least", LEAST_PER_S, rates[name], "/s") for name in (mixed, single, storm)],
        [
            Table(
                f"Per event, medians of {rounds} rounds of {count:,} events",
                ["events", "/s", "lowest – highest", "wall µs", "server CPU µs", "client CPU µs", "of this packing µs"],
                rows,
            )
        ],
        [
            "One process sends, waits for the answer (stored in Redis) and sends the next hundred, so the wall time is about "
            "the server's plus the client's. Packing is `pack_event` alone; the rest of the client's time is redis-py's.",
        ],
        {"events_per_s": rates},
    )


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):,.0f} – {max(values):,.0f}"
