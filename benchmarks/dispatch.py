"""Dispatch of events whose work is nothing: ours, claimed in slices from the bus, beside nine queues that carry a job each.

Two worker processes, the same server, one system after the other, several times. The events wait before the workers start;
the rate runs from when both processes are at work to the last event's end, as the worker processes themselves wrote it down.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.ledger import tallied
from benchmarks.processes import REPOSITORY, Died, Running, clean_environment, running, scratch
from benchmarks.progress import step
from benchmarks.result import Goal, Result, Table, number
from benchmarks.roster import BULLMQ, CELERY, PEERS, QUEUES, Peer
from benchmarks.timing import median
from sourcebus.bus import Bus
from sourcebus.model import Quota, SourceChanged
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.worker.app import make_app

SOURCES = 400
OURS = "sourcebus"
BULLMQ_TIMES, QUEUE_TIMES, CELERY_TIMES = 2.0, 5.0, 40.0

_PROCESSES = 2
_WITHIN_S = 300.0
_SINGLY = 2_000
_SLICES = ["-m", "celery", "--quiet", "-A", "benchmarks.slices", "worker", "--pool", "prefork", "--concurrency", "2"]
_ALONE = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning"]
_QUOTA = Quota(rate=1_000_000, burst=1_000_000, concurrency=64)  # counted like any other, but never in the way


@dataclass(frozen=True)
class Run:
    """One turn of one system: events sent one by one, in bulk (None: it has no such call) and consumed per second, and the
    server's memory per waiting event, with everything that the system keeps for it."""

    version: str
    single: float
    bulk: float | None
    consumed: float
    bytes_each: float


def run(quick: bool) -> Result:
    rounds, ours_count = (3, 20_000) if quick else (5, 100_000)
    here = [peer for peer in PEERS if not peer.missing()]
    counts = {OURS: ours_count} | {peer.name: peer.quick_jobs if quick else peer.jobs for peer in here}
    turns: list[tuple[str, Callable[[], Run]]] = [(OURS, lambda: _ours(ours_count))]
    turns += [(peer.name, lambda peer=peer: _peer(peer, counts[peer.name])) for peer in here]
    runs: dict[str, list[Run]] = {name: [] for name, _ in turns}
    for at in range(rounds):
        with step(f"dispatch, round {at + 1} of {rounds}", len(turns)) as shown:
            for name, turn in turns if at % 2 == 0 else reversed(turns):
                runs[name].append(turn())
                shown.advance()
    return _result(runs, counts)


def _ours(count: int) -> Run:
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
            single = min(count // 10, _SINGLY)
            before = _used_bytes(url)
            singly = _rate(single, lambda: [invite(bus.emit(event).invite) for event in events[:single]])
            batched = _rate(
                count - single,
                lambda: [invite(bus.emit(events[start : start + 100]).invite) for start in range(single, count, 100)],
            )
            each = (_used_bytes(url) - before) / count
            environment = {"SOURCEBUS_REDIS_URL": url, "BENCHMARK_TALLY": str(folder)}
            command = [sys.executable, *_SLICES, *_ALONE]
            return Run("", singly, batched, _consumed(OURS, 1, command, environment, folder, count), each)
        finally:
            bus.close()
            app.close()


def _peer(peer: Peer, count: int) -> Run:
    with running_server() as url, scratch() as folder:
        environment = {"BENCHMARK_REDIS": url, "BENCHMARK_TALLY": str(folder), "BENCHMARK_SOURCES": str(SOURCES)}
        before = _used_bytes(url)
        single = min(count // 2, _SINGLY) if peer.bulk else count
        sent = _sent(peer, environment, single, count - single)
        each = (_used_bytes(url) - before) / count
        consumed = _consumed(peer.name, peer.workers, peer.command("noop", "work"), environment, folder, count)
        return Run(sent["version"], sent["single"], sent["bulk"], consumed, each)


def _sent(peer: Peer, environment: dict[str, str], single: int, bulk: int) -> dict[str, Any]:
    command = peer.command("noop", "send", str(single), str(bulk))
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise Died(f"{peer.name} could not enqueue:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def _used_bytes(url: str) -> int:
    with redis.Redis.from_url(url) as server:
        info: Any = server.info("memory")
        return info["used_memory"]


def _rate(count: int, action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return count / (time.perf_counter() - began)


def _consumed(name: str, workers: int, command: Sequence[str], environment: dict[str, str], folder: Path, count: int) -> float:
    with ExitStack() as stack:
        started = [
            stack.enter_context(running(name, command, folder / f"worker-{at}.log", environment=environment))
            for at in range(workers)
        ]
        return _all_counted(started, folder, count)


def _all_counted(workers: Sequence[Running], folder: Path, count: int) -> float:
    """Events per second, from when both processes worked: one that starts up later is not held against a system."""
    deadline, both = time.monotonic() + _WITHIN_S, None
    while (found := tallied(folder)).count < count:
        if both is None and found.processes == _PROCESSES:
            both = (time.monotonic_ns(), found.count)
        for worker in workers:
            worker.check()
        if time.monotonic() > deadline:
            said = "\n".join(worker.said()[-2000:] for worker in workers)
            raise TimeoutError(f"{found.count:,} of {count:,} events consumed:\n{said}")
        time.sleep(0.01)
    if found.count != count:
        raise RuntimeError(f"{found.count:,} events consumed, but {count:,} were sent")
    if both is None or both[1] > count / 2:  # one process had nearly all of them
        return found.rate
    return (count - both[1]) / ((found.ended_ns - both[0]) / 1e9)


def _result(runs: dict[str, list[Run]], counts: dict[str, int]) -> Result:
    consumed = {name: [one.consumed for one in turns] for name, turns in runs.items()}
    columns = [
        "system",
        "version",
        "events",
        "one by one /s",
        "by 100 /s",
        "consumed /s",
        "lowest – highest",
        "ours ×",
        "bytes each",
    ]
    ours = median(consumed[OURS])
    rows = [_row(name, runs[name], counts[name], ours) for name in runs]
    absent = {peer.name: why for peer in PEERS if (why := peer.missing())}
    rows += [[f"{name} (not installed)"] + [None] * (len(columns) - 1) for name in absent]
    return Result(
        "dispatch",
        f"Dispatch of no-op events, {SOURCES} sources, two worker processes",
        _goals({name: median(values) for name, values in consumed.items()}, absent),
        [Table(f"Events per second, medians of {len(runs[OURS])} interleaved rounds", columns, rows)],
        [
            "Each on a server of its own on a Unix socket, without persistence. Ours keeps fair order, deduplicates, counts "
            "tokens and holds a lease for every event; the peers do none of that here: what they can do is in `semantics`.",
            "Ours runs in Celery's prefork pool with two processes and claims up to 64 at once, as by default.",
            *(f"{peer.name}: {peer.note}." for peer in PEERS),
            *(f"{name} is not installed: {why}." for name, why in absent.items()),
            "Each gets as many events as make a run of seconds; a rate is a rate. *Bytes each* is the growth of the server's "
            "used memory by enqueueing, per waiting event, its own 40 bytes or so and its share of the invitations included.",
        ],
        {"consumed": consumed},
    )


def _row(name: str, turns: list[Run], count: int, ours: float) -> list[str | int | float | None]:
    values = [one.consumed for one in turns]
    bulks = [one.bulk for one in turns if one.bulk is not None]
    return [
        name,
        turns[0].version,
        count,
        round(median([one.single for one in turns])),
        round(median(bulks)) if bulks else None,
        round(median(values)),
        f"{number(round(min(values)))} – {number(round(max(values)))}",
        None if name == OURS else ours / median(values),
        round(median([one.bytes_each for one in turns])),
    ]


def _goals(rates: dict[str, float], absent: dict[str, str]) -> list[Goal]:
    def times(what: str, limit: float, against: Sequence[str]) -> Goal:
        found = {name: rates[name] for name in against if name in rates}
        if not found:
            return Goal(what, "at least", limit, None, "×", "; ".join(sorted({absent[name] for name in against})))
        fastest = max(found, key=found.__getitem__)
        named = what if len(against) == 1 else f"{what} ({fastest} here)"
        return Goal(named, "at least", limit, rates[OURS] / found[fastest], "×")

    return [
        times("consumed per second, as a multiple of BullMQ", BULLMQ_TIMES, [BULLMQ]),
        times("consumed per second, as a multiple of the fastest of the other queues", QUEUE_TIMES, QUEUES),
        times("consumed per second, as a multiple of a Celery task per event", CELERY_TIMES, [CELERY]),
    ]
