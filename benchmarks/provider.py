"""A provider that answers 429, seen from its own side: which calls reach it although it asked to wait.

The whole product on two worker slots in this process: runtime, pipeline, catalog, a connector. Only this one source has work,
so a slot holds many leases of it when the 429 comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog.testing

from benchmarks.processes import scratch
from benchmarks.progress import step
from sourcebus.connectors import registry
from sourcebus.errors import Throttled
from sourcebus.model import Change, Cursor, Extraction, Source, SourceChanged
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing import FakeConnector, running_server

PAUSE_MS, GRACE_MS = 1_000, 50.0
"""What the provider asks for, and how long after its answer a call does not count: the answer is on its way to the bus."""

_OBJECTS, _SLOTS = 400, 2


@dataclass(frozen=True)
class Calls:
    """Calls answered in a quiet time and in a storm of so many pauses; of the latter those in a pause, after the grace."""

    quiet: int
    answered_429: int
    in_pause: int
    pauses: int


class _Provider(FakeConnector):
    """Answers normally until `raging`; then each call outside a pause, and every one in it, is answered 429."""

    def __init__(self) -> None:
        super().__init__({f"object-{at}": f"text {at}" for at in range(_OBJECTS)})
        self.raging = threading.Event()
        self.calls_ms: list[float] = []

    def changes(self, cursor: str | None, scope: str = "") -> Iterator[Change | Cursor]:  # noqa: ARG002  events come from outside
        yield Cursor(None, complete=False)

    def version(self, ref: str) -> str | None:
        return f"{super().version(ref)}-{time.monotonic_ns()}"  # always changed

    def extract(self, ref: str) -> Extraction:
        time.sleep(0.002)
        self.calls_ms.append(time.monotonic() * 1000)
        if self.raging.is_set():
            raise Throttled("429", PAUSE_MS)
        return super().extract(ref)


def storm(pauses: int) -> Calls:
    """Works quietly until the shifts know how long a call takes, then through so many pauses."""
    provider = _Provider()
    registry.register("benchmark-provider", provider)
    with running_server() as url, scratch() as folder, structlog.testing.capture_logs(), step("429, the provider's side", 1):
        settings = Settings(redis_url=url, database_url=f"sqlite:///{folder}/catalog.db", waiting_consumers=_SLOTS)
        with build(settings) as runtime:
            runtime.sources.add(Source("only", "benchmark-provider", window_ms=0))
            return _work(runtime, provider, pauses)


def _work(runtime: Runtime, provider: _Provider, pauses: int) -> Calls:
    stopping = threading.Event()
    threads = [threading.Thread(target=_slot, args=(runtime, stopping)) for _ in range(_SLOTS)]
    for thread in threads:
        thread.start()
    try:
        _emit(runtime, provider)
        _await(provider, _OBJECTS)
        quiet = len(provider.calls_ms)
        provider.raging.set()
        _emit(runtime, provider)
        _await(provider, quiet + 1)
        time.sleep(pauses * PAUSE_MS / 1000)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    return _judged(quiet, provider.calls_ms[quiet:])


def _judged(quiet: int, calls_ms: list[float]) -> Calls:
    """A pause begins with a call that is in none; later answers are taken not to extend it."""
    began_ms, begun, in_pause = -1e12, 0, 0
    for at_ms in sorted(calls_ms):
        if at_ms >= began_ms + PAUSE_MS:
            began_ms, begun = at_ms, begun + 1
        elif at_ms > began_ms + GRACE_MS:
            in_pause += 1
    return Calls(quiet, len(calls_ms), in_pause, begun)


def _slot(runtime: Runtime, stopping: threading.Event) -> None:
    shift = runtime.shift(stopping.is_set)
    try:
        while not stopping.is_set():
            shift.run()
    finally:
        shift.close()


def _emit(runtime: Runtime, provider: _Provider) -> None:
    runtime.intake.accept([SourceChanged("only", ref) for ref in provider.objects])


def _await(provider: _Provider, calls: int) -> None:
    deadline = time.monotonic() + 60
    while len(provider.calls_ms) < calls:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(provider.calls_ms)} of {calls} calls reached the provider")
        time.sleep(0.002)
