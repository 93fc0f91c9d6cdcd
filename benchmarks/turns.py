"""One turn of one system in the dispatch of events whose work is nothing: enqueue them all, then let two processes work.

The rate runs from when both processes are at work to the last event's end, as the worker processes themselves wrote it down.
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
from benchmarks.machine import installed
from benchmarks.processes import REPOSITORY, Died, Running, clean_environment, running, scratch
from benchmarks.roster import Peer
from sourcebus.bus import Bus
from sourcebus.model import Quota, SourceChanged
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.worker.app import make_app

OURS = "sourcebus"

_PROCESSES = 2
_WITHIN_S = 300.0
_SINGLY = 2_000
_SLICES = ["-m", "celery", "--quiet", "-A", "benchmarks.slices", "worker", "--pool", "prefork", "--concurrency", "2"]
_ALONE = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning"]
_QUOTA = Quota(rate=1_000_000, burst=1_000_000, concurrency=64)  # counted like any other, but never in the way


@dataclass(frozen=True)
class Turn:
    """Events sent one by one, in bulk (None: it has no such call) and consumed per second; the server's memory per waiting
    event, with everything that the system keeps for it; the server's processor time per consumed event."""

    version: str
    single: float
    bulk: float | None
    consumed: float
    bytes_each: float
    server_us_each: float


def ours(count: int, sources: int) -> Turn:
    """The bus, and a Celery application that claims slices from it."""
    with running_server() as url, scratch() as folder:
        app = make_app(Settings(redis_url=url))
        bus = Bus.from_url(url)

        def invite(tokens: Sequence[int]) -> None:
            for token in tokens:
                app.send_task("benchmarks.consume", args=(token,), expires=30)

        try:
            for at in range(sources):
                bus.register(f"source-{at}", quota=_QUOTA)
            events = [SourceChanged(f"source-{at % sources}", f"folder/object-{at}") for at in range(count)]
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
            cpu_us = _server_cpu_us(url)
            consumed = _consumed(OURS, 1, command, environment, folder, count)
            return Turn(installed(OURS) or "", singly, batched, consumed, each, (_server_cpu_us(url) - cpu_us) / count)
        finally:
            bus.close()
            app.close()


def theirs(peer: Peer, count: int, sources: int) -> Turn:
    """A peer that is not `missing`."""
    with running_server() as url, scratch() as folder:
        environment = {"BENCHMARK_REDIS": url, "BENCHMARK_TALLY": str(folder), "BENCHMARK_SOURCES": str(sources)}
        before = _used_bytes(url)
        single = min(count // 2, _SINGLY) if peer.bulk else count
        sent = _sent(peer, environment, single, count - single)
        each = (_used_bytes(url) - before) / count
        cpu_us = _server_cpu_us(url)
        consumed = _consumed(peer.name, peer.workers, peer.command("noop", "work"), environment, folder, count)
        return Turn(sent["version"], sent["single"], sent["bulk"], consumed, each, (_server_cpu_us(url) - cpu_us) / count)


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


def _server_cpu_us(url: str) -> float:
    """What the server's main thread has spent; not what `commandstats` says, which counts a script's commands twice."""
    with redis.Redis.from_url(url) as server:
        info: Any = server.info("cpu")
        return 1e6 * (info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])


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
