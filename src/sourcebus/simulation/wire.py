"""The bus as the simulated processes reach it: away at times, answers lost at times, each call judged and traced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from sourcebus.bus import Bus, Claimed, DeadLetter, Emitted, Refreshed, Settle, SourceStats, Ticked
from sourcebus.bus.store import Store
from sourcebus.errors import BusError, BusUnavailable, UnknownSource
from sourcebus.model import WHOLE_SOURCE, ChangeKind, Lease, Signal, SourceChanged
from sourcebus.simulation.judge import Judge
from sourcebus.simulation.loop import Process
from sourcebus.simulation.trace import Trace
from sourcebus.simulation.world import SimSource

T = TypeVar("T")
Truths = Callable[[str, str], int]


class Wire:
    """Every method raises `BusUnavailable` while `down`, and with the chance `lost_replies` after it has done its work."""

    def __init__(
        self, bus: Bus, store: Store, judge: Judge, trace: Trace, truths: Truths, *, lost_replies: float, random: Random
    ) -> None:
        self._bus, self._store, self._judge, self._trace, self._truths = bus, store, judge, trace, truths
        self._lost_replies, self._random = lost_replies, random
        self.down = False
        self.calls = 0
        self.waiters: deque[Process] = deque()
        """Processes that wait for a wake-up call, the one that waits longest first."""

    def _reach(self) -> None:
        if self.down:
            raise BusUnavailable("Redis does not answer")
        self.calls += 1

    def _answer(self) -> None:
        """The work is done and the waiting are woken; whether the caller hears of it is another matter."""
        while self.waiters and self._store.woken():
            self.waiters.popleft().wake()
        if self._lost_replies and self._random.random() < self._lost_replies:
            self._trace.line("reply_lost")
            raise BusUnavailable("the answer was lost")

    def _run(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except BusError as error:  # the server is there: whatever it complains of is a fault in a script
            self._judge.breaks(0, f"the bus failed: {error}")
            raise

    # --- sources -------------------------------------------------------------------------------------------------

    def register(self, source: SimSource, *, poll_ms: float | None = None, paused: bool = False) -> Sequence[int]:
        self._reach()
        tokens = self._run(
            lambda: self._bus.register(
                source.id,
                quota=source.quota,
                window_ms=source.window_ms,
                weight=source.weight,
                max_attempts=source.max_attempts,
                backoff_ms=source.backoff_ms,
                backoff_cap_ms=source.backoff_cap_ms,
                max_pending=source.max_pending,
                poll_ms=source.poll_ms if poll_ms is None else poll_ms,
                paused=paused,
            )
        )
        self._judge.registered(source)
        (self._judge.held.add if paused else self._judge.held.discard)(source.id)
        self._trace.line("register", source=source.id)
        self._answer()
        return tokens

    def unregister(self, source_id: str) -> None:
        self._reach()
        self._run(lambda: self._bus.unregister(source_id))
        self._judge.unregistered(source_id)
        self._trace.line("unregister", source=source_id)
        self._answer()

    def hold(self, source_id: str, held: bool) -> Sequence[int]:
        """Pauses or resumes. UnknownSource."""
        self._reach()
        tokens: Sequence[int] = ()
        if held:
            self._bus.pause(source_id)
            self._judge.held.add(source_id)
        else:
            tokens = self._bus.resume(source_id)
            self._judge.held.discard(source_id)
        self._trace.line("hold" if held else "resume", source=source_id)
        self._answer()
        return tokens

    def source_ids(self) -> list[str]:
        self._reach()
        return self._bus.source_ids()

    # --- signals -------------------------------------------------------------------------------------------------

    def emit(self, events: Sequence[SourceChanged]) -> Emitted:
        """UnknownSource: then none was stored."""
        self._reach()
        emitted = self._run_known(lambda: self._bus.emit(events))
        self._judge.told(events, self._truths, sure=not emitted.overflowed)
        if emitted.overflowed:
            scopes = sorted({event.source_id for event in events})
            self._judge.told([SourceChanged(one, WHOLE_SOURCE, ChangeKind.SCAN) for one in scopes], self._truths)
        self._trace.line("emit", events=[(e.source_id, e.object_ref, e.signal.value) for e in events], became=_four(emitted))
        self._answer()
        return emitted

    def refresh(self, source_id: str, object_ref: str | None) -> Refreshed:
        self._reach()
        refreshed = self._run_known(lambda: self._bus.refresh(source_id, object_ref))
        if refreshed.accepted:
            kind = ChangeKind.UPDATED if object_ref else ChangeKind.SCAN
            self._judge.told([SourceChanged(source_id, object_ref or WHOLE_SOURCE, kind, signal=Signal.MANUAL)], self._truths)
        self._trace.line("refresh", source=source_id, ref=object_ref, status=refreshed.status)
        self._answer()
        return refreshed

    def _run_known(self, call: Callable[[], T]) -> T:
        try:
            return self._run(call)
        except UnknownSource as error:
            self._trace.line("unknown_source", source=error.source_id)
            raise

    # --- leases --------------------------------------------------------------------------------------------------

    def claim(self, most: int, *, consumer: str, lease_ms: int, wait_ms: int, invitation: int | None) -> Claimed:
        self._reach()
        claimed = self._run(
            lambda: self._bus.claim(
                most, consumer=consumer, lease_ms=lease_ms, wait_ms=wait_ms, most_waiting=1, invitation=invitation
            )
        )
        self._judge.claimed(claimed, most)
        if claimed.leases:
            self._trace.line(
                "claim", by=consumer, got=[(x.source_id, x.object_ref, x.fence, x.attempt) for x in claimed.leases]
            )
        self._answer()
        return claimed

    def ack(self, leases: Sequence[Lease], service_ms: Sequence[float]) -> Sequence[int]:
        self._reach()
        settled = self._run(lambda: self._bus.ack(leases, service_ms=service_ms))
        for lease, done in zip(leases, settled.done, strict=True):
            self._judge.settled(lease, None, done, 0, 0)
        self._trace.line("ack", fences=[lease.fence for lease in leases], done=settled.done)
        self._answer()
        return settled.invite

    def nack(
        self, leases: Sequence[Lease], error: str, how: Settle, *, wait_ms: float = 0, service_ms: float = 0
    ) -> Sequence[int]:
        self._reach()
        bus_ms = self._bus.vitals().now_ms if wait_ms else 0
        settled = self._run(lambda: self._bus.nack(leases, error, how=how, wait_ms=wait_ms, service_ms=service_ms))
        for lease, done in zip(leases, settled.done, strict=True):
            self._judge.settled(lease, how, done, wait_ms, bus_ms)
        self._trace.line("nack", fences=[lease.fence for lease in leases], how=how.value, wait_ms=wait_ms, done=settled.done)
        self._answer()
        return settled.invite

    def extend(self, leases: Sequence[Lease], *, lease_ms: int, running: Lease | None, consumer: str) -> None:
        self._reach()
        kept = self._run(lambda: self._bus.extend(leases, lease_ms=lease_ms, running=running, consumer=consumer))
        self._judge.extended(leases, kept, lease_ms)
        self._trace.line("extend", fences=[lease.fence for lease in leases], done=kept)
        self._answer()

    def leave(self, consumer: str) -> Sequence[int]:
        self._reach()
        tokens = self._run(lambda: self._bus.leave(consumer, stay_warm=True))
        self._answer()
        return tokens

    def tick(self) -> Ticked:
        self._reach()
        ticked = self._run(lambda: self._bus.tick(stay_warm=True))
        if ticked.polls or ticked.reaped:
            self._trace.line("tick", reaped=ticked.reaped, polls=ticked.polls)
        self._answer()
        return ticked

    # --- looking: by the world itself, so it always works ---------------------------------------------------------

    def stats(self, source_ids: Sequence[str]) -> list[SourceStats | None]:
        return self._run(lambda: self._bus.stats(source_ids))

    def dead_letters(self) -> list[DeadLetter]:
        return self._run(lambda: self._bus.dead_letters(limit=1_000_000))


def _four(emitted: Emitted) -> tuple[int, int, int, int]:
    return emitted.accepted, emitted.merged, emitted.deferred, emitted.overflowed
