"""A worker slot in virtual time: the shift, the pipeline and the heartbeat of `sourcebus.consumer`, as one process.

What those decide by (how much to claim, what is begun, what an error means) is theirs and called from here; what they do
with threads and sockets is retold in steps that sleep virtually.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from sourcebus.bus import Claimed, Settle
from sourcebus.consumer import Batch, Pace, judge
from sourcebus.errors import BusUnavailable, UnknownSource
from sourcebus.model import ChangeKind, Lease, Signal, SourceChanged
from sourcebus.simulation.loop import Loop, Process, Steps
from sourcebus.simulation.place import Celery, Place
from sourcebus.simulation.provider import Answer
from sourcebus.simulation.trace import Trace
from sourcebus.simulation.wire import Wire
from sourcebus.simulation.world import World

_RETRY_MS = 500.0  # as in consumer/shift.py
_PAGE = 500  # as in consumer/scan.py
_EMITTED_AS = {Signal.RECONCILE: Signal.RECONCILE, Signal.WATCH: Signal.WATCH, Signal.WEBHOOK: Signal.WEBHOOK}

Accept = Callable[[Sequence[SourceChanged]], None]


@dataclass(slots=True)
class _Done:
    lease: Lease
    place: Place
    life: int
    version: int
    gone: bool
    service_ms: float
    listed_at_ms: float | None = None


class Slot:
    """`accept` is the intake's door, for what scans find."""

    def __init__(
        self,
        number: int,
        world: World,
        loop: Loop,
        wire: Wire,
        celery: Celery,
        places: dict[str, Place],
        accept: Accept,
        trace: Trace,
    ) -> None:
        self._number, self._world, self._loop, self._wire, self._celery = number, world, loop, wire, celery
        self._places, self._accept, self._trace = places, accept, trace
        self._pace = Pace(world.claim_ms, world.claim_batch)
        self._runs = 0
        self._process: Process | None = None
        self._batch: Batch | None = None
        self._consumer = ""
        self.busy_ms = 0.0
        self.alive = True
        celery.offer(self._start)

    # --- life ----------------------------------------------------------------------------------------------------

    def _start(self, token: int) -> None:
        if self.alive and self._process is None:
            self._process = Process(self._loop, self._shift(token), self._ended)

    def _ended(self) -> None:
        self._process = None
        self._celery.offer(self._start)

    def crash(self, down_ms: float) -> None:
        if not self.alive:
            return
        self.alive = False
        if self._process:
            self._process.kill()
            if self._process in self._wire.waiters:
                self._wire.waiters.remove(self._process)
        self._process = self._batch = None
        self._celery.withdraw(self._start)
        self._loop.after(down_ms, self._back)

    def _back(self) -> None:
        self.alive = True
        self._pace = Pace(self._world.claim_ms, self._world.claim_batch)
        self._celery.offer(self._start)

    def stall(self, for_ms: float) -> None:
        if self._process:
            self._process.freeze(self._loop.now + for_ms)

    # --- the shift -----------------------------------------------------------------------------------------------

    def _shift(self, invitation: int | None) -> Steps:
        self._runs += 1
        consumer = f"slot{self._number}.{self._runs}"
        ends = self._loop.now + self._world.slice_ms
        while (left := ends - self._loop.now) > 0:
            try:
                claimed = self._wire.claim(
                    self._pace.most(),
                    consumer=consumer,
                    lease_ms=self._world.lease_ms,
                    wait_ms=int(left),
                    invitation=invitation,
                )
                invitation = None
                self._celery.publish(claimed.invite)
                if claimed.leases:
                    yield from self._do(claimed, consumer)
                elif not claimed.waiting:
                    break
                else:
                    yield from self._wait(claimed, ends)
            except BusUnavailable:
                yield _RETRY_MS
        try:
            self._celery.publish(self._wire.leave(consumer))
        except BusUnavailable:
            pass  # its successor is invited by the tick

    def _wait(self, claimed: Claimed, ends: float) -> Steps:
        due = ends
        if claimed.next_due_ms is not None:
            due = min(due, self._loop.now + max(0, claimed.next_due_ms - claimed.now_ms))
        assert self._process
        self._wire.waiters.append(self._process)
        yield max(1.0, due - self._loop.now)
        if self._process in self._wire.waiters:
            self._wire.waiters.remove(self._process)

    def _do(self, claimed: Claimed, consumer: str) -> Steps:
        batch = Batch(claimed.leases, self._loop)
        self._batch, self._consumer = batch, consumer
        self._beat_later(batch)
        began = self._loop.now
        try:
            self._pace.learn((yield from self._work(batch)))
        except BusUnavailable:
            self._release(batch.take_back())
            raise
        finally:
            self.busy_ms += self._loop.now - began
            self._batch = None
        self._release(batch.take_back())

    def _release(self, leases: list[Lease]) -> None:
        if leases:
            self._celery.publish(self._wire.nack(leases, "", Settle.RELEASE))

    # --- the heartbeat -------------------------------------------------------------------------------------------

    def _while_held(self, batch: Batch, act: Callable[[], None]) -> None:
        """Does it now, or when the process goes on after standing still; not at all once the batch is done."""
        if self._batch is not batch or not self._process:
            return
        if self._loop.now < self._process.frozen_until:
            self._loop.at(self._process.frozen_until, lambda: self._while_held(batch, act))
            return
        try:
            act()
        except BusUnavailable:
            pass  # the next beat tries again

    def _beat_later(self, batch: Batch) -> None:
        def beat() -> None:
            self._beat_later(batch)
            held = batch.held()
            current, running_ms = batch.current()
            if current and running_ms > self._world.extract_timeout_ms:
                held = [lease for lease in held if lease.fence != current.fence]
            if held:
                self._wire.extend(held, lease_ms=self._world.lease_ms, running=current, consumer=self._consumer)

        self._loop.after(self._world.lease_ms / 6, lambda: self._while_held(batch, beat))

    def _give_back_if_slow(self, batch: Batch, lease: Lease) -> None:
        def look() -> None:
            if batch.current()[0] is lease:
                self._release(batch.take_back())

        self._loop.after(self._world.slow_ms + 1, lambda: self._while_held(batch, look))

    # --- the pipeline --------------------------------------------------------------------------------------------

    def _work(self, batch: Batch) -> Generator[float, bool, float]:
        began, first, worked = self._loop.now, 0.0, 0
        done: list[_Done] = []
        while lease := batch.begin():
            worked += 1
            self._give_back_if_slow(batch, lease)
            one = yield from self._one(batch, lease)
            if one:
                first = first if done else self._loop.now
                done.append(one)
            if done and self._loop.now - first >= self._world.commit_ms:
                self._write(batch, done)
                done = []
        if done:
            self._write(batch, done)
        return (self._loop.now - began) / max(1, worked)

    def _one(self, batch: Batch, lease: Lease) -> Generator[float, bool, _Done | None]:
        place = self._places[lease.source_id]
        if not place.present:
            self._wire.unregister(lease.source_id)
            batch.settled([lease])
            return None
        life, began = place.life, self._loop.now
        scan = lease.change_kind is ChangeKind.SCAN
        place.looked += 1
        known = place.index.get(lease.object_ref)
        answer = place.provider.list() if scan else place.provider.look(lease.object_ref, 0 if known.gone else known.version)
        yield answer.ms
        service_ms = self._loop.now - began
        place.worked(service_ms)
        if answer.error:
            self._failed(batch, lease, place, answer, service_ms)
            return None
        if scan:
            try:
                self._emit_differences(lease, place, answer)
            except UnknownSource:
                self._wire.unregister(lease.source_id)
                batch.settled([lease])
                return None
        return _Done(lease, place, life, answer.version, answer.gone, service_ms, began if scan else None)

    def _failed(self, batch: Batch, lease: Lease, place: Place, answer: Answer, service_ms: float) -> None:
        assert answer.error
        how, wait_ms = judge(answer.error)
        if how is Settle.THROTTLED:
            place.throttled += 1
        else:
            place.failed += 1
        self._celery.publish(self._wire.nack([lease], str(answer.error), how, wait_ms=wait_ms, service_ms=service_ms))
        batch.settled([lease])
        if how is Settle.UNAVAILABLE:  # what else was claimed of this source waits with the rest
            self._release(batch.take_back(lambda other: other.source_id == lease.source_id))
        elif how is Settle.THROTTLED:  # and of the same quota
            bucket = place.source.bucket
            self._release(batch.take_back(lambda other: self._places[other.source_id].source.bucket == bucket))

    def _emit_differences(self, lease: Lease, place: Place, answer: Answer) -> None:
        """What `consumer.scan` does with a complete listing."""
        signal = _EMITTED_AS.get(lease.signal, Signal.POLL)
        listed = dict(answer.listing)
        index = place.index
        changed = [ref for ref, version in listed.items() if index.get(ref).gone or index.get(ref).version != version]
        events = [SourceChanged(lease.source_id, ref, signal=signal) for ref in changed]
        absent = [ref for ref, have in index.objects.items() if not have.gone and ref not in listed]
        events += [SourceChanged(lease.source_id, ref, ChangeKind.DELETED, signal=signal) for ref in absent]
        place.found += len(events)
        for start in range(0, len(events), _PAGE):
            self._accept(events[start : start + _PAGE])

    def _write(self, batch: Batch, done: Sequence[_Done]) -> None:
        for one in done:
            if one.place.life != one.life:
                continue  # belongs to a source that was removed meanwhile
            if one.listed_at_ms is not None:
                one.place.listed_at_ms = max(one.place.listed_at_ms, one.listed_at_ms)
            else:
                self._index(one)
        leases = [one.lease for one in done]
        self._celery.publish(self._wire.ack(leases, [one.service_ms for one in done]))
        batch.settled(leases)

    def _index(self, one: _Done) -> None:
        have = one.place.index.get(one.lease.object_ref)
        if (have.version, have.gone) == (one.version, one.gone):
            one.place.unchanged += 1
        else:
            one.place.extracted += 1
        lease = one.lease
        written = one.place.index.write(lease.object_ref, one.version, one.gone, lease.fence, self._loop.now)
        self._trace.line(
            "write", source=lease.source_id, ref=lease.object_ref, version=one.version, fence=lease.fence, done=written
        )
