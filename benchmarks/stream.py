"""Claim and acknowledge, beside a raw Redis Stream, which promises neither order between sources nor anything else of ours.

The same server, client, batch and process; both consume in turns of a few batches, so that a slow moment hits them alike.
"""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any, cast

from redis import Redis

from benchmarks.meter import Meter, Spent, medians
from benchmarks.progress import Step, step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.timing import median
from sourcebus.bus import Bus
from sourcebus.model import SourceChanged
from sourcebus.testing import running_server

SHARE, BATCH = 0.4, 64

SERVICES_MS = (0.0, 1.0)
"""What each event is said to have taken: nothing, as in a Stream's loop, or so long that turns of a source are short."""

_TURN = 10 * BATCH
_STREAM, _GROUP = "events", "workers"

Rounds = list[tuple[Spent, Spent]]


def run(quick: bool) -> Result:
    rounds, count = (3, 10 * _TURN) if quick else (7, 50 * _TURN)
    measured = {
        (sources, service_ms): _rounds(sources, service_ms, rounds, count)
        for sources in (40, 400)
        for service_ms in SERVICES_MS
    }
    swept = median([_sweeping(count).per(count).server_s for _ in range(3)])
    rows: list[list[Cell]] = []
    goals: list[Goal] = []
    for (sources, service_ms), spent in measured.items():
        for name, at in (("sourcebus", 0), ("Redis Stream", 1)):
            each = medians([one[at] for one in spent]).per(count)
            figures = (round(us, 2) for us in (each.wall_s, each.server_s, each.client_s))
            rows.append([name, sources, service_ms if at == 0 else None, round(1e6 / each.wall_s), *figures])
        share = median([theirs.wall_s / ours.wall_s for ours, theirs in spent])
        goals.append(
            Goal(
                f"claim + ack of {sources} sources, {service_ms:g} ms of work each, as a share of a raw Stream's rate",
                "at least",
                SHARE,
                share,
                "×",
            )
        )
    (ours, theirs) = (medians([one[at] for one in measured[400, 0.0]]).wall_s for at in (0, 1))
    return Result(
        "stream",
        f"Claim + ack in batches of {BATCH}, one process, beside a raw Redis Stream",
        goals,
        [
            Table(
                f"Per event, medians of {rounds} rounds of {count:,} events",
                ["system", "sources", "service ms", "events /s", "wall µs", "server CPU µs", "client CPU µs"],
                rows,
            )
        ],
        [
            "The Stream is read with XREADGROUP and acknowledged with one XACK per batch, through the same redis-py client "
            "with hiredis. It is first in, first out: no fairness, dedup, limits, deadlines or fencing.",
            "*Service ms* is what the acks say that the work took; no work is done. The fair order gives each source turns of "
            "up to 5 ms: the shorter the events, the more of them share what a turn costs.",
            "The share is the median of each round's own; the two take turns of ten batches.",
            f"After its window the bus forgets an acknowledged event, which is not in the table: {swept:.2f} µs of server CPU "
            "per event, some at each claim and tick. A Stream never forgets unless it is trimmed.",
        ],
        {"events_per_s": {"sourcebus": count / ours, "Redis Stream": count / theirs}},
    )


def _rounds(sources: int, service_ms: float, rounds: int, count: int) -> Rounds:
    with running_server() as url, step(f"claim + ack, {sources} sources, {service_ms:g} ms each", rounds) as shown:
        client = Redis.from_url(url)
        try:
            return [_round(client, sources, service_ms, count, shown) for _ in range(rounds)]
        finally:
            client.close()


def _round(client: Redis, sources: int, service_ms: float, count: int, shown: Step) -> tuple[Spent, Spent]:
    client.flushall()
    bus, meter = Bus(client), Meter(client)
    _fill_bus(bus, sources, count)
    _fill_stream(client, sources, count)
    ours = theirs = Spent()
    for turn in range(count // _TURN):
        for mine in (True, False) if turn % 2 else (False, True):
            if mine:
                ours += meter.measure(lambda: _consume_bus(bus, _TURN, service_ms))
            else:
                theirs += meter.measure(lambda: _consume_stream(client, _TURN))
    shown.advance()
    return ours, theirs


def _fill_bus(bus: Bus, sources: int, count: int) -> None:
    for at in range(sources):
        bus.register(f"source-{at}")
    for start in range(0, count, 250):
        bus.emit(
            [SourceChanged(f"source-{at % sources}", f"folder/object-{at}") for at in range(start, min(count, start + 250))]
        )


def _fill_stream(client: Redis, sources: int, count: int) -> None:
    client.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
    for start in range(0, count, 250):
        pipe = client.pipeline(transaction=False)
        for at in range(start, min(count, start + 250)):
            pipe.xadd(_STREAM, {"source": f"source-{at % sources}", "object": f"folder/object-{at}"})
        pipe.execute()


def _consume_bus(bus: Bus, count: int, service_ms: float) -> None:
    while count > 0:
        leases = bus.claim(BATCH, consumer="benchmark").leases
        if not leases:
            raise RuntimeError(f"nothing to claim, but {count} more are pending")
        bus.ack(leases, service_ms=[service_ms] * len(leases))
        count -= len(leases)


def _consume_stream(client: Redis, count: int) -> None:
    while count > 0:
        reply = cast("Any", client.xreadgroup(_GROUP, "benchmark", {_STREAM: ">"}, count=BATCH))
        entries = _entries(reply)
        client.xack(_STREAM, _GROUP, *(entry[0] for entry in entries))
        count -= len(entries)


def _entries(reply: Any) -> list[tuple[bytes, Any]]:
    """The one stream's entries, in RESP2 and in RESP3."""
    if isinstance(reply, dict):
        ((found,),) = cast("dict[bytes, Any]", reply).values()
        return found
    return reply[0][1]


def _sweeping(count: int) -> Spent:
    """What it costs to forget `count` acknowledged events whose window is over."""
    now_ms = 1_800_000_000_000.0
    with running_server() as url:
        client = Redis.from_url(url)
        bus = Bus(client, clock_ms=lambda: now_ms)
        try:
            _fill_bus(bus, 400, count)
            _consume_bus(bus, count, 0.0)
            now_ms += 60_000

            def sweep() -> None:
                for _ in range(count // 500 + 100):
                    bus.tick()

            spent = Meter(client).measure(sweep)
            left = (
                bus.peek("source-0", "folder/object-0"),
                bus.peek(f"source-{(count - 1) % 400}", f"folder/object-{count - 1}"),
            )
            if any(one.state != "absent" for one in left):
                raise RuntimeError("the bus has not forgotten what it should have")
            return spent
        finally:
            bus.close()
