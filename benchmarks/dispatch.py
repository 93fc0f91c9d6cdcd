"""Dispatch of events whose work is nothing: claimed in slices from the bus, against one Celery task per event.

The same Celery, the same prefork pool of two processes, the same server, one after the other, several times. The events
wait before the workers start; the rate is all of them by the time from the first one's beginning to the last one's end,
as the worker processes themselves wrote it down.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery

from benchmarks.ledger import tallied
from benchmarks.processes import Running, running, scratch
from benchmarks.progress import step
from benchmarks.result import Goal, Result, Table, number
from benchmarks.timing import median
from sourcebus.bus import Bus
from sourcebus.model import Quota, SourceChanged
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.worker.app import broker_url, make_app

SOURCES, TIMES = 400, 15.0
OURS, PEER = "sourcebus", "Celery task per event"

_WITHIN_S = 300.0
_TWO = ["--pool", "prefork", "--concurrency", "2"]
_ALONE = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning"]
_QUOTA = Quota(rate=1_000_000, burst=1_000_000, concurrency=64)  # counted like any other, but never in the way


@dataclass(frozen=True)
class Rates:
    """Events per second: sent in batches of 100 (None: not possible), sent one by one, consumed."""

    batched: float | None
    single: float
    consumed: float


def run(quick: bool) -> Result:
    rounds, ours_count, peer_count = (3, 20_000, 2_000) if quick else (5, 100_000, 10_000)
    ours: list[Rates] = []
    peer: list[Rates] = []
    for at in range(rounds):
        turns: list[Callable[[], None]] = [
            lambda: ours.append(_ours(ours_count)),
            lambda: peer.append(_peer(peer_count)),
        ]
        with step(f"dispatch, round {at + 1} of {rounds}", 2) as shown:
            for turn in turns if at % 2 == 0 else reversed(turns):
                turn()
                shown.advance()
    return _result(ours, peer, ours_count, peer_count)


def _ours(count: int) -> Rates:
    with running_server() as url, scratch() as folder:
        app = make_app(Settings(redis_url=url))
        bus = Bus.from_url(url)

        def invite(tokens: Sequence[int]) -> None:
            for token in tokens:
                app.send_task("benchmarks.consume", args=(token,), expires=30)

        try:
            for at in range(SOURCES):
                bus.register(f"source-{at}", quota=_QUOTA)
            events = [SourceChanged(f"source-{at % SOURCES}", f"folder/object-{at}") for at in range(count)]
            single = min(count // 10, 2_000)
            singly = _rate(single, lambda: [invite(bus.emit(event).invite) for event in events[:single]])
            batched = _rate(
                count - single,
                lambda: [invite(bus.emit(events[start : start + 100]).invite) for start in range(single, count, 100)],
            )
            environment = {"SOURCEBUS_REDIS_URL": url, "BENCHMARK_TALLY": str(folder)}
            with _worker("benchmarks.slices", folder, environment) as worker:
                return Rates(batched, singly, _consumed(worker, folder, count))
        finally:
            bus.close()
            app.close()


def _peer(count: int) -> Rates:
    with running_server() as url, scratch() as folder:
        app = Celery("producer", broker=broker_url(url))
        app.conf.update(task_ignore_result=True)
        try:

            def send() -> None:
                for at in range(count):
                    app.send_task("task_per_event.event", args=(f"source-{at % SOURCES}", f"folder/object-{at}"))

            singly = _rate(count, send)
            environment = {"BENCHMARK_BROKER": broker_url(url), "BENCHMARK_TALLY": str(folder)}
            with _worker("benchmarks.peers.celery_task_per_event", folder, environment) as worker:
                return Rates(None, singly, _consumed(worker, folder, count))
        finally:
            app.close()


def _rate(count: int, action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return count / (time.perf_counter() - began)


def _worker(application: str, folder: Path, environment: dict[str, str]) -> AbstractContextManager[Running]:
    command = [sys.executable, "-m", "celery", "--quiet", "-A", application, "worker", *_TWO, *_ALONE]
    return running(application, command, folder / "worker.log", environment=environment)


def _consumed(worker: Running, folder: Path, count: int) -> float:
    deadline = time.monotonic() + _WITHIN_S
    while (found := tallied(folder)).count < count:
        worker.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found.count:,} of {count:,} events consumed:\n{worker.said()[-2000:]}")
        time.sleep(0.05)
    if found.count != count:
        raise RuntimeError(f"{found.count:,} events consumed, but {count:,} were sent")
    return found.rate


def _result(ours: list[Rates], peer: list[Rates], ours_count: int, peer_count: int) -> Result:
    consumed = {OURS: [one.consumed for one in ours], PEER: [one.consumed for one in peer]}
    ratio = median(consumed[OURS]) / median(consumed[PEER])
    batched = median([one.batched for one in ours if one.batched is not None])

    def line(name: str, events: int, rates: list[Rates], in_batches: float | None) -> list[str | int | float | None]:
        values = consumed[name]
        spread = f"{number(round(min(values)))} – {number(round(max(values)))}"
        sent = None if in_batches is None else round(in_batches)
        return [name, events, round(median([one.single for one in rates])), sent, round(median(values)), spread]

    columns = ["system", "events", "sent one by one /s", "sent by 100 /s", "consumed /s", "lowest – highest"]
    return Result(
        "dispatch",
        f"Dispatch of no-op events, {SOURCES} sources, two worker processes",
        [Goal("consumed per second, as a multiple of a Celery task per event", "at least", TIMES, ratio, "×")],
        [
            Table(
                f"Events per second, medians of {len(ours)} interleaved rounds",
                columns,
                [line(OURS, ours_count, ours, batched), line(PEER, peer_count, peer, None)],
            )
        ],
        [
            "Both run in Celery's prefork pool with two processes, on a server of their own on a Unix socket, without "
            "persistence. Ours keeps fair order, deduplicates, counts tokens and holds a lease for every event; the peer does "
            "none of that.",
            "The peer has results off and 64 messages fetched ahead. Ours claims up to 64 at once, as by default.",
            "Ours gets more events than the peer so that its runs last seconds too; a rate is a rate.",
        ],
        {"consumed": consumed},
    )
