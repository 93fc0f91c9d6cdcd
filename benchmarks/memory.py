"""What one event costs the server in memory, beyond its own bytes, in each state that it can be in."""

# redis-py leaves its **kwargs untyped, and Celery ships no type information:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from celery import Celery
from redis import Redis

from benchmarks.meter import Meter
from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table
from sourcebus.bus import Bus
from sourcebus.model import Lease, Quota, SourceChanged
from sourcebus.testing import running_server
from sourcebus.worker.app import broker_url

MOST_BYTES, SOURCES = 200.0, 400

_HOUR_MS = 3_600_000
_STREAM_COUNT, _CELERY_COUNT = 20_000, 2_000  # Celery sends some 500 a second


def run(quick: bool) -> Result:
    count = 50_000 if quick else 1_000_000
    rows, allocator = _ours(count)
    pending = next(float(row[3]) for row in rows if row[:2] == ["pending", count] and isinstance(row[3], float))
    with step("peers", 2) as shown:
        rows.append(["entry of a Redis Stream, not delivered", _STREAM_COUNT, *_stream(_STREAM_COUNT)])
        shown.advance()
        rows.append(["message of a Celery task per event", _CELERY_COUNT, *_celery(_CELERY_COUNT)])
    bars = {
        str(row[0]): float(row[3])
        for row in rows
        if isinstance(row[3], float) and row[1] in (count, _STREAM_COUNT, _CELERY_COUNT)
    }
    return Result(
        "memory",
        f"Memory per event, {count:,} events of {SOURCES} sources",
        [Goal(f"bytes per pending event beyond its own, at {count:,}", "at most", MOST_BYTES, pending, "B")],
        [Table("Bytes per event", ["state", "events", "in all", "beyond its own", "its own"], rows)],
        [
            "`used_memory` with the events less `used_memory` before them, by their number; an event's own bytes are those of "
            "its object_ref as UTF-8. The memory of the sources themselves is not in it.",
            "A hash table grows by doubling, so the figure at any one number is a little above or below the mean.",
            f"Allocation (here by {allocator}) is the same every time: it is measured once.",
        ],
        {"beyond_own_bytes": bars},
    )


def _ref(at: int) -> str:
    return f"folder-{at % 97}/document-{at:07d}.txt"


def _own(count: int) -> float:
    return sum(len(_ref(at).encode()) for at in range(count)) / count


def _ours(count: int) -> tuple[list[list[Cell]], str]:
    """The rows of the table, and the server's allocator."""
    rows: list[list[Cell]] = []
    with running_server() as url:
        client = Redis.from_url(url)
        bus, meter = Bus(client), Meter(client)
        try:
            _load_scripts(Bus(client, name="other"))
            for at in range(SOURCES):
                bus.register(f"source-{at}", quota=Quota(concurrency=count), window_ms=24 * _HOUR_MS)
            before = meter.used_bytes()

            def measured(state: str, many: int) -> None:
                each, own = (meter.used_bytes() - before) / many, _own(many)
                rows.append([state, many, round(each, 1), round(each - own, 1), round(own, 1)])

            with step(f"storing {count:,} events", count) as shown:
                for start in range(0, count, 1_000):
                    many = range(start, start + 1_000)
                    bus.emit([SourceChanged(f"source-{at % SOURCES}", _ref(at)) for at in many])
                    shown.advance(1_000)
                    if start + 1_000 in (count // 100, count // 10, count):
                        measured("pending", start + 1_000)
            held: list[list[Lease]] = []
            with step(f"claiming {count:,} events", count) as shown:
                while leases := bus.claim(500, consumer="benchmark", lease_ms=_HOUR_MS).leases:
                    held.append(leases)
                    shown.advance(len(leases))
            if (got := sum(map(len, held))) != count:
                raise RuntimeError(f"{got:,} of {count:,} claimed")
            measured("in flight", count)
            with step(f"acknowledging {count:,} events", count) as shown:
                for leases in held:
                    bus.ack(leases)
                    shown.advance(len(leases))
            measured("cooling, until its window ends", count)
            return rows, meter.allocator()
        finally:
            bus.close()


def _load_scripts(bus: Bus) -> None:
    """The server keeps every script it has seen: let it see them before the first look at its memory."""
    bus.register("one")
    bus.emit([SourceChanged("one", "object")])
    bus.ack(bus.claim(1).leases)
    bus.unregister("one")


def _stream(count: int) -> tuple[float, float, float]:
    with running_server() as url:
        client = Redis.from_url(url)
        try:
            meter = Meter(client)
            before = meter.used_bytes()
            for start in range(0, count, 250):
                pipe = client.pipeline(transaction=False)
                for at in range(start, start + 250):
                    pipe.xadd("events", {"source": f"source-{at % SOURCES}", "object": _ref(at)})
                pipe.execute()
            return _each(meter.used_bytes() - before, count)
        finally:
            client.close()


def _celery(count: int) -> tuple[float, float, float]:
    with running_server() as url:
        app, client = Celery("producer", broker=broker_url(url)), Redis.from_url(url)
        app.conf.update(task_ignore_result=True)
        try:
            app.send_task("task_per_event.event", args=("source-0", _ref(0)))  # the connection is made
            meter = Meter(client)
            before = meter.used_bytes()
            for at in range(count):
                app.send_task("task_per_event.event", args=(f"source-{at % SOURCES}", _ref(at)))
            return _each(meter.used_bytes() - before, count)
        finally:
            client.close()
            app.close()


def _each(used_bytes: int, count: int) -> tuple[float, float, float]:
    each, own = used_bytes / count, _own(count)
    return round(each, 1), round(each - own, 1), round(own, 1)
