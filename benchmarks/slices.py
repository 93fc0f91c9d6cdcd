"""Our side of the dispatch benchmarks: a Celery application whose consumers ride the bus as `sourcebus.worker`'s do.

The same `Shift`, one per invitation, the same settings and the same way of inviting. Only the work differs: it begins
every lease of the batch, does nothing, and acknowledges them in one call. ``BENCHMARK_STAMPS`` names a file in which to
note when each object (a number) was claimed, else ``BENCHMARK_TALLY`` a folder in which to count.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportFunctionMemberAccess=false

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.ledger import Stamps, Tally
from sourcebus.bus import Bus
from sourcebus.consumer import Batch, Shift, ShiftLimits
from sourcebus.model import Lease
from sourcebus.settings import Settings
from sourcebus.worker.app import is_stopping, make_app

settings = Settings()
app = make_app(settings)

STAMPS = 100_000
"""Most events whose times can be noted."""


def invite(tokens: Sequence[int]) -> None:
    for token in tokens:
        consume.apply_async(args=(token,), expires=30, retry=False)


@cache
def _bus() -> Bus:
    return Bus.from_url(settings.redis_url, name=settings.bus_name)


@cache
def _stamps() -> Stamps | None:
    path = os.environ.get("BENCHMARK_STAMPS")
    return Stamps(Path(path), STAMPS) if path else None


@cache
def _tally() -> Tally | None:
    folder = os.environ.get("BENCHMARK_TALLY")
    return Tally(Path(folder)) if folder else None


def work(batch: Batch) -> float:
    """A `Work` that does nothing with each lease."""
    began_ns = time.monotonic_ns()
    leases: list[Lease] = []
    while lease := batch.begin():
        leases.append(lease)
    if stamps := _stamps():
        for lease in leases:
            stamps.set(int(lease.object_ref))
    took_ms = (time.monotonic_ns() - began_ns) / 1e6 / max(1, len(leases))
    invite(_bus().ack(leases, service_ms=[took_ms] * len(leases)).invite)
    batch.settled(leases)
    if tally := _tally():
        tally.add(len(leases), began_ns)
    return (time.monotonic_ns() - began_ns) / 1e6 / max(1, len(leases))


@app.task(name="benchmarks.consume")
def consume(token: int | None = None) -> int:
    """One slice of one consumer."""
    limits = ShiftLimits(**{name: getattr(settings, name) for name in ShiftLimits.__dataclass_fields__})
    shift = Shift(_bus(), work, limits=limits, invite=invite, stopping=is_stopping)
    try:
        return shift.run(token)
    finally:
        shift.close()
