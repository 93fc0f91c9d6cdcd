"""From an emit to the claim in a worker, on an idle system: with a consumer that waits, and with none.

Both ends are real: the event is emitted by this process, the claim happens in a Celery prefork worker, which writes down
the time when it has the lease in hand. With no consumer waiting (``waiting_consumers=0``) each event first needs an invitation
through Celery's queue.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from benchmarks.ledger import Stamps
from benchmarks.processes import running, scratch
from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.slices import STAMPS
from benchmarks.timing import quantile, seen_ns
from sourcebus.bus import Bus
from sourcebus.model import SourceChanged
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.worker.app import make_app

WARM_MS, COLD_MS = 5.0, 50.0

_FIRST = 20
"""Events that come before those that count: connections are made and scripts loaded."""

_LOOK_S = 0.0005


def run(quick: bool) -> Result:
    warm = _latencies("a consumer waits", 1, 200 if quick else 2_000)
    cold = _latencies("none waits", 0, 50 if quick else 300)
    rows: list[list[Cell]] = []
    for name, values in (("a consumer waits", warm), ("invited through Celery", cold)):
        shares = [round(quantile(values, share), 2) for share in (0.5, 0.95, 0.99)]
        rows.append([name, len(values), *shares, round(max(values), 2)])
    return Result(
        "latency",
        "Emit → claimed, idle system",
        [
            Goal("p99 with a waiting consumer", "at most", WARM_MS, quantile(warm, 0.99), "ms"),
            Goal("p99 through an invitation on Celery", "at most", COLD_MS, quantile(cold, 0.99), "ms"),
        ],
        [Table("Milliseconds", ["consumer", "n", "p50", "p95", "p99", "max"], rows)],
        ["From just before `Bus.emit` in one process until a Celery worker process has the lease in hand."],
        {"warm_ms": warm, "cold_ms": cold},
    )


def _latencies(name: str, waiting_consumers: int, count: int) -> list[float]:
    with running_server() as url, scratch() as folder, step(f"emit → claimed, {name}", count) as shown:
        path = folder / "stamps"
        stamps = Stamps(path, STAMPS)
        environment = {
            "SOURCEBUS_REDIS_URL": url,
            "SOURCEBUS_WAITING_CONSUMERS": str(waiting_consumers),
            "BENCHMARK_STAMPS": str(path),
        }
        command = [sys.executable, "-m", "celery", "--quiet", "-A", "benchmarks.slices", "worker", "--concurrency", "2"]
        alone = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning"]
        bus, app = Bus.from_url(url), make_app(Settings(redis_url=url))
        with running("worker", [*command, *alone], folder / "worker.log", environment=environment) as worker:
            try:
                bus.register("idle")

                def emit(at: int) -> int:
                    tokens = bus.emit(SourceChanged("idle", str(at))).invite
                    for token in tokens:
                        app.send_task("benchmarks.consume", args=(token,), expires=30)
                    return len(tokens)

                def idle() -> bool:
                    worker.check()
                    (stats,) = bus.stats(["idle"])
                    return stats is not None and not stats.pending and not stats.in_flight

                values, invitations = _measure(emit, stamps, idle, count, shown.advance)
            finally:
                bus.close()
                app.close()
        if invitations != (0 if waiting_consumers else count):
            raise RuntimeError(f"{invitations} of {count} events needed an invitation, with {waiting_consumers} to wait")
        return values


def _measure(
    emit: Callable[[int], int], stamps: Stamps, idle: Callable[[], bool], count: int, done: Callable[[], None]
) -> tuple[list[float], int]:
    """The milliseconds of each event, and how many invitations they needed together."""
    chance = random.Random(1)
    values: list[float] = []
    invitations = 0
    for at in range(_FIRST + count):
        seen_ns(idle, within_s=60)
        time.sleep(chance.uniform(0.02, 0.04))  # the consumer that had the last one has left by then, or waits again
        began_ns = time.monotonic_ns()
        needed = emit(at)
        seen_ns(lambda at=at: stamps.get(at) != 0, within_s=60, every_s=_LOOK_S)
        if at >= _FIRST:
            values.append((stamps.get(at) - began_ns) / 1e6)
            invitations += needed
            done()
    return values, invitations
