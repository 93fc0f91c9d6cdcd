"""Cold sources beside one hot source with a long backlog: how long their events wait, with the hot one and without it.

The same two worker processes serve both: the hot source is paused and resumed in turns, its backlog stays.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from celery import Celery

from benchmarks.processes import Running, running, scratch
from benchmarks.progress import Step, step
from benchmarks.slots import Plan, begun, claimed, started
from benchmarks.timing import quantile, seen_ns
from sourcebus.bus import Bus
from sourcebus.model import SourceChanged
from sourcebus.testing import running_server
from sourcebus.worker.app import broker_url

SOURCES, CALL_MS = 200, 2.0

_WITHIN_S = 120.0
_SINGLES = 40


@dataclass
class Waits:
    """Milliseconds from an event's emit until it is claimed, and until work on it begins, all rounds together."""

    claimed_ms: list[float] = field(default_factory=list[float])
    begun_ms: list[float] = field(default_factory=list[float])


@dataclass
class Loads:
    """`burst`: one event of each cold source at once. `single`: one event now and then, slots idle but for the hot source."""

    burst: Waits = field(default_factory=Waits)
    single: Waits = field(default_factory=Waits)


@dataclass(frozen=True)
class Cold:
    """What the cold sources waited without the hot source and beside it."""

    alone: Loads
    beside: Loads

    def times(self, load: Callable[[Loads], list[float]]) -> float:
        """p95 beside the hot source as a multiple of p95 without it."""
        return quantile(load(self.beside), 0.95) / quantile(load(self.alone), 0.95)


def ours(rounds: int, bursts: int, backlog: int, claim_batch: int) -> Cold:
    """Two processes with one slot each, claiming at most `claim_batch` at once."""
    with running_server() as url, scratch() as folder, step(f"cold beside hot, claims of {claim_batch}", 2 * rounds) as shown:
        bus = Bus.from_url(url)
        plan = Plan(url, str(folder), {"cold": CALL_MS, "hot": CALL_MS}, limits={"claim_batch": claim_batch})
        try:
            bus.register("hot", window_ms=0)
            for at in range(SOURCES):
                bus.register(f"cold-{at}", window_ms=0)
            scene = _Scene(bus, folder, backlog)
            with started(plan) as processes:
                scene.processes = processes
                return scene.play(rounds, bursts, shown)
        finally:
            bus.close()


class _Scene:
    def __init__(self, bus: Bus, folder: Path, backlog: int) -> None:
        self._bus, self._backlog = bus, backlog
        self._claimed, self._begun = claimed(folder), begun(folder)
        self._numbers, self._hot = count(), count()
        self._chance = random.Random(1)
        self.processes: list[Running] = []

    def play(self, rounds: int, bursts: int, shown: Step) -> Cold:
        cold = Cold(Loads(), Loads())
        self._bus.pause("hot")
        self._wait(self._emit(range(SOURCES)))  # connections are made, the shifts have learned how long a call takes
        for at in range(rounds):
            for hot in (False, True) if at % 2 else (True, False):
                self._turn(hot=hot)
                loads = cold.beside if hot else cold.alone
                for _ in range(bursts):
                    self._note(loads.burst, self._emit(range(SOURCES)))
                    time.sleep(self._chance.uniform(0.02, 0.15))
                for _ in range(_SINGLES * bursts // 5):
                    self._note(loads.single, self._emit([self._chance.randrange(SOURCES)]))
                    time.sleep(self._chance.uniform(0.005, 0.03))
                shown.advance()
        return cold

    def _turn(self, *, hot: bool) -> None:
        """Pauses the hot source until nothing of it runs, or resumes it with its whole backlog until both slots are busy."""
        self._bus.pause("hot")
        seen_ns(lambda: self._in_flight() == 0, within_s=_WITHIN_S)
        if hot:
            (stats,) = self._bus.stats(["hot"])
            missing = self._backlog - stats.pending if stats else 0
            for start in range(0, missing, 5_000):
                events = [SourceChanged("hot", f"object-{next(self._hot)}") for _ in range(min(5_000, missing - start))]
                self._bus.emit(events)
            self._bus.resume("hot")
            seen_ns(lambda: self._in_flight() > 1, within_s=_WITHIN_S)
            time.sleep(0.5)

    def _in_flight(self) -> int:
        for process in self.processes:
            process.check()
        (stats,) = self._bus.stats(["hot"])
        return stats.in_flight if stats else 0

    def _emit(self, sources: range | list[int]) -> tuple[int, list[int]]:
        events = [(source, next(self._numbers)) for source in sources]
        began_ns = time.monotonic_ns()
        self._bus.emit([SourceChanged(f"cold-{source}", str(number)) for source, number in events])
        return began_ns, [number for _source, number in events]

    def _wait(self, emitted: tuple[int, list[int]]) -> None:
        def all_begun() -> bool:
            for process in self.processes:
                process.check()
            return all(self._begun.get(number) for number in emitted[1])

        seen_ns(all_begun, within_s=_WITHIN_S)

    def _note(self, waits: Waits, emitted: tuple[int, list[int]]) -> None:
        self._wait(emitted)
        began_ns, numbers = emitted
        waits.claimed_ms += [(self._claimed.get(number) - began_ns) / 1e6 for number in numbers]
        waits.begun_ms += [(self._begun.get(number) - began_ns) / 1e6 for number in numbers]


def celery_fifo(rounds: int, backlog: int) -> Cold:
    """The same bursts as one Celery task per event, two processes. `begun_ms` only: a task is not claimed before it begins."""
    cold = Cold(Loads(), Loads())
    with running_server() as url, scratch() as folder, step(f"Celery, {backlog:,} tasks before", 2 * rounds) as shown:
        stamps = begun(folder)
        app = Celery("producer", broker=broker_url(url))
        app.conf.update(task_ignore_result=True)
        environment = {"BENCHMARK_BROKER": broker_url(url), "BENCHMARK_FOLDER": str(folder), "BENCHMARK_CALL_MS": str(CALL_MS)}
        command = [
            sys.executable,
            "-m",
            "celery",
            "--quiet",
            "-A",
            "benchmarks.peers.celery_fifo",
            "worker",
            "--concurrency",
            "2",
        ]
        alone = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning"]
        with running("Celery", [*command, *alone], folder / "celery.log", environment=environment) as worker:
            try:
                numbers = count()

                def burst() -> list[float]:
                    sent: list[tuple[int, int]] = []
                    for source in range(SOURCES):
                        number = next(numbers)
                        sent.append((number, time.monotonic_ns()))
                        app.send_task("fifo.event", args=(f"cold-{source}", str(number)))

                    def all_begun() -> bool:
                        worker.check()
                        return all(stamps.get(number) for number, _sent_ns in sent)

                    seen_ns(all_begun, within_s=_WITHIN_S)
                    return [(stamps.get(number) - sent_ns) / 1e6 for number, sent_ns in sent]

                burst()
                for _ in range(rounds):
                    cold.alone.burst.begun_ms += burst()
                    shown.advance()
                    for at in range(backlog):
                        app.send_task("fifo.event", args=("hot", str(at)))
                    cold.beside.burst.begun_ms += burst()
                    shown.advance()
            finally:
                app.close()
    return cold
