"""A batch of leases: look at each object, then write and acknowledge in groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from sourcebus.bus import Bus, Settle
from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.connectors import Batched, Metered
from sourcebus.consumer.batch import Batch
from sourcebus.consumer.feed import Feed
from sourcebus.consumer.judgement import judge
from sourcebus.consumer.look import look, outcome_of
from sourcebus.consumer.meter import Meter
from sourcebus.consumer.ports import Bindings, Bound
from sourcebus.consumer.scan import Again, Scan, Scanned
from sourcebus.consumer.upkeep import SubscriptionUpkeep
from sourcebus.errors import CatalogError, ConnectorError, InvalidInput, StorageFull, UnknownSource
from sourcebus.model import SUBSCRIPTION, WHOLE_SOURCE, ChangeKind, Lease, Outcome, QuotaLeft, Version
from sourcebus.sinks import Sink

_log = structlog.get_logger(__name__)

_GROUP_BYTES = 4_000_000

_LOOKED_MS = 1_000
"""How often it is looked up whether a source that answers is shown with an error; shorter than any pause after one."""


@dataclass(frozen=True, slots=True)
class _Done:
    lease: Lease
    bound: Bound
    outcome: Outcome
    service_ms: float
    cost: float
    scanned: Scanned | None = None

    @property
    def again(self) -> Again | None:
        return self.scanned.again if self.scanned else None


class Pipeline:
    """The `Work` of a shift on the full product. One object per worker slot.

    Results are written to the catalog in one transaction per group, each document with its version, guarded by the
    lease's fence; only then are the leases acknowledged. What the catalog could not store is given back untouched.
    """

    def __init__(
        self,
        bus: Bus,
        catalog: Catalog,
        bindings: Bindings,
        scan: Scan,
        upkeep: SubscriptionUpkeep,
        feed: Feed,
        clock: Clock,
        *,
        commit_ms: float,
        sinks: Sequence[Sink] = (),
        invite: Callable[[Sequence[int]], None],
        wait: Callable[[float], object],
    ) -> None:
        self._bus, self._catalog, self._bindings, self._scan, self._clock = bus, catalog, bindings, scan, clock
        self._upkeep, self._feed = upkeep, feed
        self._commit_ms, self._sinks, self._invite, self._wait = commit_ms, sinks, invite, wait
        self._done: list[_Done] = []
        self._done_bytes = 0
        self._first_ms = 0.0
        self._quotas: dict[str, QuotaLeft] = {}
        self._batched: set[str] = set()
        self._looked_ms: dict[str, float] = {}

    def __call__(self, batch: Batch) -> float:
        """Works the batch off. Answers the mean milliseconds that one lease took, writing included."""
        began_ms = self._clock.monotonic_ms()
        worked = 0
        self._batched.clear()
        try:
            known = self._known([lease for lease in batch.held() if lease.change_kind is not ChangeKind.SCAN])
        except CatalogError as error:
            self._give_back(batch, batch.take_back(), error)
            return self._clock.monotonic_ms() - began_ms
        while lease := batch.begin():
            worked += 1
            self._one(batch, lease, known.get((lease.source_id, lease.object_ref)))
            if self._done and self._group_is_full():
                self._write(batch)
        self._write(batch)
        return (self._clock.monotonic_ms() - began_ms) / max(1, worked)

    def _known(self, leases: Sequence[Lease]) -> dict[tuple[str, str], Version]:
        return self._catalog.versions([(lease.source_id, lease.object_ref) for lease in leases]) if leases else {}

    def _one(self, batch: Batch, lease: Lease, known: Version | None) -> None:
        began_ms = self._clock.monotonic_ms()
        scanned: Scanned | None = None
        meter: Meter | None = None
        try:
            bound = self._bindings.get(lease.source_id)
            if isinstance(bound.connector, Batched) and lease.source_id not in self._batched:
                self._batched.add(lease.source_id)
                bound.connector.begin_batch()
            meter = Meter(bound.connector)
            if lease.change_kind is ChangeKind.SCAN and lease.object_ref == SUBSCRIPTION:
                outcome = self._upkeep.run(lease, bound)
            elif lease.change_kind is ChangeKind.SCAN:
                scanned = self._scan.run(lease, bound, meter)
                outcome = scanned.outcome
            else:
                outcome = look(lease, bound.source, bound.connector, known, self._clock)
        except UnknownSource:
            self._bus.unregister(lease.source_id)
            batch.settled([lease])
        except CatalogError as error:
            self._give_back(batch, [lease], error)
        except Exception as error:  # noqa: BLE001  an extractor is other people's code: whatever it raises is its object's story
            cost = meter.spent() if meter else 0.0
            self._failed(batch, lease, error, self._clock.monotonic_ms() - began_ms, cost)
        else:
            if isinstance(bound.connector, Metered) and (left := bound.connector.quota_left()):
                self._quotas[lease.source_id] = left
            if not self._done:
                self._first_ms = self._clock.monotonic_ms()
            service_ms = self._clock.monotonic_ms() - began_ms
            self._done.append(_Done(lease, bound, outcome, service_ms, meter.spent(), scanned))
            self._done_bytes += sum(len(document.text) for document in outcome.documents)

    def _group_is_full(self) -> bool:
        return self._clock.monotonic_ms() - self._first_ms >= self._commit_ms or self._done_bytes > _GROUP_BYTES

    def _write(self, batch: Batch) -> None:
        done, self._done, self._done_bytes = self._done, [], 0
        if not done:
            return
        leases = [one.lease for one in done]
        try:
            outcomes = [one.outcome for one in done]
            for sink in self._sinks:
                sink.write(outcomes)
            self._catalog.settle(outcomes)
        except CatalogError as error:
            self._give_back(batch, leases, error)
        except Exception as error:  # noqa: BLE001  a sink is other people's code too
            for one in done:
                self._failed(batch, one.lease, error, one.service_ms, one.cost)
        else:
            self._judge_feeds(done)
            self._acknowledge(done)
            batch.settled(leases)
            self._tell_quotas()

    def _judge_feeds(self, done: Sequence[_Done]) -> None:
        """Before the leases end, so that what has to follow is on the bus by then. What fails here is made up for later."""
        try:
            self._recovered(done)
            self._feed.settled([(one.lease, one.outcome, one.bound) for one in done])
            for one in done:
                if one.scanned and not one.again and one.lease.object_ref == WHOLE_SOURCE:
                    self._feed.listed(one.lease, one.bound, one.scanned.found)
        except UnknownSource:
            pass  # removed meanwhile
        except CatalogError as error:
            _log.error("state_not_written", source_id=done[0].lease.source_id, error=str(error))

    def _acknowledge(self, done: Sequence[_Done]) -> None:
        ended = [one for one in done if one.again is None]
        leases = [one.lease for one in ended]
        costs, service_ms = [one.cost for one in ended], [one.service_ms for one in ended]
        if leases:
            self._invite(self._bus.ack(leases, cost=costs, service_ms=service_ms).invite)
        for one in done:
            if again := one.again:
                settled = self._bus.requeue(
                    one.lease, signal=again.signal, caught_up=again.caught_up, cost=one.cost, service_ms=one.service_ms
                )
                self._invite(settled.invite)

    def _tell_quotas(self) -> None:
        """What providers said is left, the newest word of each, once per group: it need not cost a call per object."""
        quotas, self._quotas = self._quotas, {}
        for source_id, left in quotas.items():
            try:
                self._bus.feedback(source_id, left.units, left.left_ms)
            except UnknownSource:
                pass  # removed meanwhile
            except InvalidInput as error:
                _log.warning("quota_not_understood", source_id=source_id, error=str(error))

    def _give_back(self, batch: Batch, leases: Sequence[Lease], error: CatalogError) -> None:
        """The catalog is in trouble, the objects are not: no attempt is counted, and this slot takes a break."""
        rest = [*leases, *batch.take_back()]
        _log.error("storage_full" if isinstance(error, StorageFull) else "catalog_unavailable", error=str(error))
        self._invite(self._bus.nack(rest, str(error), how=Settle.RELEASE).invite)
        batch.settled(rest)
        self._wait(1.0)

    def _failed(self, batch: Batch, lease: Lease, error: Exception, service_ms: float, cost: float) -> None:
        text = str(error) if isinstance(error, ConnectorError) else f"{type(error).__name__}: {error}"
        how, wait_ms = judge(error)
        _log.warning("extraction_failed", source_id=lease.source_id, object_ref=lease.object_ref, error=text, how=how.value)
        if how is Settle.UNAVAILABLE:
            self._say(lease, text)
        self._note(lease, text, how)
        if lease.change_kind is ChangeKind.SCAN and lease.object_ref == WHOLE_SOURCE:
            self._put_off(lease)
        self._invite(self._bus.nack([lease], text, how=how, wait_ms=wait_ms, cost=cost, service_ms=service_ms).invite)
        batch.settled([lease])
        if how in (Settle.THROTTLED, Settle.UNAVAILABLE):
            self._spare(batch, lease.source_id, how)

    def _spare(self, batch: Batch, source_id: str, how: Settle) -> None:
        """The provider said wait: what was claimed of its quota and not begun goes back, and waits with the rest. Of a source
        that cannot be reached, only its own does."""
        bucket = self._bucket_of(source_id)

        def waits_too(lease: Lease) -> bool:
            shares = how is Settle.THROTTLED and self._bucket_of(lease.source_id) == bucket
            return shares or lease.source_id == source_id

        if rest := batch.take_back(waits_too):
            self._invite(self._bus.nack(rest, how=Settle.RELEASE).invite)

    def _bucket_of(self, source_id: str) -> tuple[bool, str]:
        """The quota that a source draws from, by name: a shared one's, or its own."""
        try:
            bound = self._bindings.get(source_id)
            quota = bound.source.quota or bound.connector.recommended.quota
        except (InvalidInput, CatalogError):  # removed, or not to be asked just now
            quota = None
        return (True, quota.bucket) if quota and quota.bucket else (False, source_id)

    def _note(self, lease: Lease, text: str, how: Settle) -> None:
        try:
            self._catalog.settle([outcome_of(lease, "note", self._clock.now_ms(), note="failed", error=text, how=how.value)])
        except CatalogError as error:
            _log.error("story_not_written", source_id=lease.source_id, object_ref=lease.object_ref, error=str(error))

    def _put_off(self, lease: Lease) -> None:
        """The source could not be listed, so its next poll comes later."""
        try:
            self._feed.failed(lease, self._bindings.get(lease.source_id))
        except (InvalidInput, CatalogError) as error:  # removed, or not to be asked just now
            _log.warning("state_not_written", source_id=lease.source_id, error=str(error))

    def _say(self, lease: Lease, text: str) -> None:
        # What a listing met only a listing can take back; what an object met, any object that is claimed later.
        since_ms = None if lease.change_kind is ChangeKind.SCAN else lease.claimed_at_ms
        try:
            self._catalog.set_state(lease.source_id, error=text, error_since_ms=since_ms)
        except CatalogError as error:
            _log.error("state_not_written", source_id=lease.source_id, error=str(error))

    def _recovered(self, done: Sequence[_Done]) -> None:
        """The source answers for objects again, so what it said when it did not is not true any more. Looked up once a second
        for each source; an error pauses for longer, so the first objects after it always look."""
        claimed_ms = {
            one.lease.source_id: one.lease.claimed_at_ms for one in done if one.lease.change_kind is not ChangeKind.SCAN
        }
        now_ms = self._clock.monotonic_ms()
        asked = [id for id in claimed_ms if now_ms - self._looked_ms.get(id, float("-inf")) >= _LOOKED_MS]
        self._looked_ms |= dict.fromkeys(asked, now_ms)
        for source_id, state in self._catalog.states(asked).items() if asked else ():
            if claimed_ms[source_id] > state.get("error_since_ms", float("inf")):
                self._catalog.set_state(source_id, error=None, error_since_ms=None)
