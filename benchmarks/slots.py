"""Worker slots with work that takes time: real shifts on the bus (`sourcebus.consumer.Shift`), whose calls only sleep.

A process of its own, ``python -m benchmarks.slots PLAN``, with one thread per slot, each with its own connection and shift.
What a slot does with a lease is what `sourcebus.consumer.Pipeline` does, without a catalog: a call of so many milliseconds,
then an acknowledgement per `commit_ms` of work; a call that is told to wait answers THROTTLED.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.ledger import Stamps
from benchmarks.processes import Running, running
from sourcebus.bus import Bus, Settle
from sourcebus.consumer import Batch, Shift, ShiftLimits
from sourcebus.model import Lease

STAMPS = 200_000
"""Most cold events whose times can be noted; an event is named by its number."""


@dataclass(frozen=True)
class Plan:
    """What the slots of one process are to do. `call_ms`: how long a call takes, by the first word of the source's name.
    `throttle_ms`: the wait that calls of sources named storm… answer with. `limits`: fields of `ShiftLimits`."""

    url: str
    folder: str
    call_ms: dict[str, float]
    slots: int = 1
    processes: int = 2
    throttle_ms: float = 0
    commit_ms: float = 50
    limits: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Attempt:
    """One throttled call: when its lease was claimed, when it was begun, and when its answer reached the bus (between
    `sent_ms` and `stored_ms`), all in milliseconds of the machine's clock, which is the bus's too."""

    claimed_ms: float
    begun_ms: float
    sent_ms: float
    stored_ms: float


@contextmanager
def started(plan: Plan) -> Generator[list[Running]]:
    """The plan's processes, until the block is left."""
    with ExitStack() as stack:
        command = [sys.executable, "-m", "benchmarks.slots", json.dumps(asdict(plan))]
        yield [
            stack.enter_context(running(f"slots {at}", command, Path(plan.folder) / f"slots-{at}.log"))
            for at in range(plan.processes)
        ]


def claimed(folder: Path) -> Stamps:
    """When each cold event was claimed."""
    return Stamps(folder / "claimed", STAMPS)


def begun(folder: Path) -> Stamps:
    """When a slot began to work on each cold event."""
    return Stamps(folder / "begun", STAMPS)


def attempts(folder: Path) -> list[Attempt]:
    """Every throttled call so far, by the time of its claim."""
    lines = [line for path in folder.glob("*.attempts") for line in path.read_text("ascii").splitlines()]
    return sorted((Attempt(*map(float, line.split())) for line in lines), key=lambda one: one.claimed_ms)


class _Slot:
    """One thread's `Work`."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.bus = Bus.from_url(plan.url)
        self._plan = plan
        folder = Path(plan.folder)
        self._claimed, self._begun = claimed(folder), begun(folder)
        self._attempts = (folder / f"{threading.get_native_id()}-{number}.attempts").open("a", encoding="ascii", buffering=1)

    def close(self) -> None:
        self._attempts.close()
        self.bus.close()

    def __call__(self, batch: Batch) -> float:
        began, worked = time.monotonic(), 0
        done: list[tuple[Lease, float]] = []
        first = began
        for lease in batch.held():
            if lease.source_id.startswith("cold-"):
                self._claimed.set(int(lease.object_ref))
        while lease := batch.begin():
            worked += 1
            took_ms = self._one(batch, lease)
            if took_ms is None:
                continue
            if not done:
                first = time.monotonic()
            done.append((lease, took_ms))
            if (time.monotonic() - first) * 1000 >= self._plan.commit_ms:
                self._ack(batch, done)
        self._ack(batch, done)
        return (time.monotonic() - began) * 1000 / max(1, worked)

    def _one(self, batch: Batch, lease: Lease) -> float | None:
        """The milliseconds that the call took; None if it was throttled and is settled already."""
        kind = lease.source_id.partition("-")[0]
        if kind == "cold":
            self._begun.set(int(lease.object_ref))
        began, begun_ms = time.monotonic(), time.time() * 1000
        time.sleep(self._plan.call_ms[kind] / 1000)
        took_ms = (time.monotonic() - began) * 1000
        if kind != "storm":
            return took_ms
        sent_ms = time.time() * 1000
        self.bus.nack([lease], "429", how=Settle.THROTTLED, wait_ms=self._plan.throttle_ms, service_ms=took_ms)
        batch.settled([lease])
        print(lease.claimed_at_ms, begun_ms, sent_ms, time.time() * 1000, file=self._attempts)
        return None

    def _ack(self, batch: Batch, done: list[tuple[Lease, float]]) -> None:
        if done:
            leases = [lease for lease, _took_ms in done]
            self.bus.ack(leases, service_ms=[took_ms for _lease, took_ms in done])
            batch.settled(leases)
            done.clear()


def _serve(plan: Plan, number: int, stopping: threading.Event) -> None:
    slot = _Slot(plan, number)
    limits = ShiftLimits(waiting_consumers=plan.slots * plan.processes, **plan.limits)  # each slot waits by itself
    shift = Shift(slot.bus, slot, limits=limits, stopping=stopping.is_set)
    try:
        while not stopping.is_set():
            shift.run()
    finally:
        shift.close()
        slot.close()


def main(plan: Plan) -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    threads = [threading.Thread(target=_serve, args=(plan, number, stopping)) for number in range(plan.slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
