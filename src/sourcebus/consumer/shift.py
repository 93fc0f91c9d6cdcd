"""A consumer's shift: claim what is due next, work, wait for more, and after its slice invite a successor.

This half knows only the bus, so it also serves teams that use the bus by itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

import structlog

from sourcebus.bus import Bus, Claimed, Settle
from sourcebus.clock import Clock, SystemClock
from sourcebus.consumer.batch import Batch
from sourcebus.consumer.heartbeat import Heartbeat
from sourcebus.consumer.pace import Pace
from sourcebus.errors import BusUnavailable

_log = structlog.get_logger(__name__)

_WAIT_STEP_S = 1.0  # a waiting consumer notices a warm shutdown within this time
_RETRY_S = 0.5


def publish_nothing(tokens: Sequence[int]) -> None:
    """For those who run no Celery: a loop of their own claims, so invitations are not needed."""


class Work(Protocol):
    """What a shift does with a batch: call `batch.begin` until it answers None, and settle each lease with the bus.

    Answers the mean milliseconds per lease, from which the shift learns how much to claim at once.
    """

    def __call__(self, batch: Batch) -> float: ...


@dataclass(frozen=True)
class ShiftLimits:
    """The numbers of `Settings` that a shift uses, by the same names."""

    lease_ms: int = 30_000
    claim_batch: int = 128
    claim_ms: int = 20
    slow_ms: int = 250
    slice_ms: int = 15_000
    extract_timeout_ms: int = 600_000
    waiting_consumers: int = 1


class Shift:
    """One worker slot's loop. `run` is one slice; the object lives as long as the slot and keeps its heartbeat thread."""

    def __init__(
        self,
        bus: Bus,
        work: Work,
        *,
        limits: ShiftLimits | None = None,
        invite: Callable[[Sequence[int]], None] = publish_nothing,
        stopping: Callable[[], bool] = lambda: False,
        housekeep: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._bus, self._work, self._invite, self._stopping = bus, work, invite, stopping
        self._housekeep = housekeep or (lambda: invite(bus.tick().invite))
        self._limits = limits or ShiftLimits()
        self._clock = clock or SystemClock()
        self._pace = Pace(self._limits.claim_ms, self._limits.claim_batch)
        self._heartbeat = Heartbeat(
            bus,
            self._clock,
            lease_ms=self._limits.lease_ms,
            slow_ms=self._limits.slow_ms,
            timeout_ms=self._limits.extract_timeout_ms,
            invite=invite,
            housekeep=self._housekeep,
        )

    def close(self) -> None:
        self._heartbeat.close()

    def run(self, invitation: int | None = None) -> int:
        """Works until the slice is over, nothing is left to wait for, or the worker stops. Answers the leases worked on."""
        consumer = f"{os.uname().nodename}:{os.getpid()}:{threading.get_ident()}:{uuid4().hex[:8]}"
        ends_ms = self._clock.monotonic_ms() + self._limits.slice_ms
        worked = 0
        while not self._stopping() and (left_ms := ends_ms - self._clock.monotonic_ms()) > 0:
            try:
                claimed = self._claim(consumer, left_ms, invitation)
                invitation = None
                if claimed.leases:
                    worked += len(claimed.leases)
                    self._do(claimed, consumer)
                elif not claimed.waiting:
                    break
                else:
                    self._wait(claimed, ends_ms)
            except BusUnavailable as error:
                _log.warning("bus_unavailable", error=str(error))
                self._nap(_RETRY_S)
        self._leave(consumer)
        return worked

    def _claim(self, consumer: str, left_ms: float, invitation: int | None) -> Claimed:
        claimed = self._bus.claim(
            self._pace.most(),
            consumer=consumer,
            lease_ms=self._limits.lease_ms,
            wait_ms=int(left_ms) if self._limits.waiting_consumers else 0,
            most_waiting=self._limits.waiting_consumers,
            invitation=invitation,
        )
        self._invite(claimed.invite)
        return claimed

    def _do(self, claimed: Claimed, consumer: str) -> None:
        batch = Batch(claimed.leases, self._clock)
        self._heartbeat.watch(batch, consumer)
        try:
            self._pace.learn(self._work(batch))
        finally:
            self._heartbeat.watch(None)
            if unbegun := batch.take_back():
                self._invite(self._bus.nack(unbegun, how=Settle.RELEASE).invite)

    def _wait(self, claimed: Claimed, ends_ms: float) -> None:
        due_ms = ends_ms
        if claimed.next_due_ms is not None:
            due_ms = min(due_ms, self._clock.monotonic_ms() + max(0, claimed.next_due_ms - claimed.now_ms))
        while not self._stopping() and (left_s := (due_ms - self._clock.monotonic_ms()) / 1000) > 0:
            if self._bus.wait(max(0.001, min(left_s, _WAIT_STEP_S))):
                return
            if left_s > _WAIT_STEP_S:  # it may be the only slot, so it also keeps house
                self._housekeep()

    def _leave(self, consumer: str) -> None:
        try:
            self._invite(self._bus.leave(consumer, stay_warm=self._limits.waiting_consumers > 0 and not self._stopping()))
        except BusUnavailable as error:
            _log.warning("bus_unavailable", error=str(error))

    @staticmethod
    def _nap(seconds: float) -> None:
        threading.Event().wait(seconds)
