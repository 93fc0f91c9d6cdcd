"""Our own bus probed, the same way as the peers: four worker threads, each a `Shift`. See `benchmarks.peers.probe`.

A key is a source; a job is a change of one of its objects. How long the job takes travels as the event's version hint.
"""

from __future__ import annotations

import signal
import threading
import time
from itertools import count
from types import FrameType

from benchmarks.peers import probe
from sourcebus.bus import Bus
from sourcebus.consumer import Batch, Shift
from sourcebus.model import Quota, SourceChanged

_QUOTAS = {
    "plain": Quota(rate=1000, burst=1000, concurrency=4),
    "window": Quota(rate=1000, burst=1000, concurrency=4),
    "rate": Quota(rate=1 / probe.WINDOW_S, burst=1, concurrency=4),
    "cap": Quota(rate=1000, burst=1000, concurrency=1),
}
_KEYS = ("warm", "a", "b")
_ONE_OBJECT = probe.FEATURE == "window"

bus = Bus.from_url(probe.URL)
_numbers = count()
_stopping = threading.Event()


def send(key: str, seconds: float) -> None:
    name = "object" if _ONE_OBJECT else f"object-{next(_numbers)}"
    bus.emit(SourceChanged(key, name, version=str(seconds)))


def _work(batch: Batch) -> float:
    began, done = time.monotonic(), 0
    while lease := batch.begin():
        began_ms = time.monotonic() * 1000
        probe.job(lease.source_id, float(lease.version or 0))
        bus.ack([lease], service_ms=[time.monotonic() * 1000 - began_ms])
        batch.settled([lease])
        done += 1
    return (time.monotonic() - began) * 1000 / max(1, done)


def _slot() -> None:
    shift = Shift(bus, _work, stopping=_stopping.is_set)
    while not _stopping.is_set():
        if not shift.run():
            bus.wait(0.05)
    shift.close()


def _stop(_number: int, _frame: FrameType | None) -> None:
    _stopping.set()


def work() -> None:
    signal.signal(signal.SIGTERM, _stop)
    slots = [threading.Thread(target=_slot, daemon=True) for _ in range(4)]
    for slot in slots:
        slot.start()
    while not _stopping.wait(1):
        bus.tick()


if __name__ == "__main__":
    for source_id in _KEYS:
        bus.register(source_id, quota=_QUOTAS[probe.FEATURE], window_ms=1000 * probe.WINDOW_S)
    probe.main(send, work)
