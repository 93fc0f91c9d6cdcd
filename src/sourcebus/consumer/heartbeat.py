"""Keeps the leases of a working consumer alive, and gives back what it has not begun when one extraction turns slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog

from sourcebus.bus import Bus, Settle
from sourcebus.clock import Clock
from sourcebus.consumer.batch import Batch
from sourcebus.errors import BusError

_log = structlog.get_logger(__name__)

_LOOK_MS = 50.0


class Heartbeat:
    """A thread that sleeps unless a batch is being worked on.

    It extends the batch's leases six times per `lease_ms`; it releases what has not begun once the current extraction
    takes more than `slow_ms`; and past `timeout_ms` it stops extending the current one, so that its lease is lost and the
    object retried. Each time it also calls `housekeep`, because every worker slot may be
    busy with slow extractions.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        *,
        lease_ms: int,
        slow_ms: int,
        timeout_ms: int,
        invite: Callable[[Sequence[int]], None],
        housekeep: Callable[[], None],
    ) -> None:
        self._bus, self._clock, self._invite, self._housekeep = bus, clock, invite, housekeep
        self._lease_ms, self._slow_ms, self._timeout_ms = lease_ms, slow_ms, timeout_ms
        self._changed = threading.Condition()
        self._batch: Batch | None = None
        self._consumer = ""
        self._extended_ms = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sourcebus-heartbeat", daemon=True)
        self._thread.start()

    def watch(self, batch: Batch | None, consumer: str = "") -> None:
        """From now on this batch of that consumer, or none."""
        with self._changed:
            self._batch, self._consumer, self._extended_ms = batch, consumer, self._clock.monotonic_ms()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(_LOOK_MS / 1000 if self._batch else None)
                batch = self._batch
                if self._closed:
                    return
            if batch:
                try:
                    self._beat(batch)
                except BusError as error:
                    _log.warning("heartbeat_failed", error=str(error))

    def _beat(self, batch: Batch) -> None:
        current, running_ms = batch.current()
        if current and running_ms > self._slow_ms and (unbegun := batch.take_back()):
            self._invite(self._bus.nack(unbegun, how=Settle.RELEASE).invite)
        if self._clock.monotonic_ms() - self._extended_ms < self._lease_ms / 6:
            return
        self._extended_ms = self._clock.monotonic_ms()
        held = batch.held()
        if current and running_ms > self._timeout_ms:
            held = [lease for lease in held if lease.fence != current.fence]
            _log.error("extraction_timeout", source_id=current.source_id, object_ref=current.object_ref, running_ms=running_ms)
        if held:
            self._bus.extend(held, lease_ms=self._lease_ms, running=current, consumer=self._consumer)
        self._housekeep()
