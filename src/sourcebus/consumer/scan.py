"""One lease on a scope: list the delta and emit an event for every object that the catalog does not know as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import structlog

from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.consumer.look import outcome_of
from sourcebus.consumer.ports import Bound
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, JsonObject, Lease, Outcome, Signal, SourceChanged, Version

_log = structlog.get_logger(__name__)

_PAGE = 500
_SAMPLE = 20
_FEW = 20
"""A pass that deletes no more than this many objects is never held."""

_EMITTED_AS = {Signal.RECONCILE: Signal.RECONCILE, Signal.WATCH: Signal.WATCH, Signal.WEBHOOK: Signal.WEBHOOK}


class Scan:
    """Lists one scope. Emits through `emit`, which stores events on the bus and tells what became of them.

    A pass that ends with a complete listing also finds what is absent and emits `deleted` events for it; the consumer of
    each asks the source again before anything is deleted. A pass over the whole source that would delete more than
    `delete_share` of it is held (`catalog.state()["held"]`) until a person releases it.
    """

    def __init__(
        self, catalog: Catalog, emit: Callable[[Sequence[SourceChanged]], None], clock: Clock, delete_share: float
    ) -> None:
        self._catalog, self._emit, self._clock, self._delete_share = catalog, emit, clock, delete_share

    def run(self, lease: Lease, bound: Bound) -> Outcome:
        """Raises `ConnectorError` where the listing failed; what was emitted until then stands, nothing is deleted."""
        source_id, scope = lease.source_id, lease.object_ref
        began_ms, ticks = self._clock.now_ms(), self._clock.monotonic_ms()
        signal = _EMITTED_AS.get(lease.signal, Signal.POLL)
        seen: set[str] = set()
        counts: JsonObject = {"listed": 0, "emitted": 0, "deleted": 0, "complete": False}
        for item in self._pages(bound, scope):
            if isinstance(item, Cursor):
                self._catalog.set_cursor(source_id, scope, item.value)
                counts["complete"] = item.complete
                continue
            counts["listed"] += len(item)
            seen.update(change.object_ref for change in item)
            counts["emitted"] += self._emit_changed(source_id, item, signal)
        if counts["complete"]:
            counts |= self._absent(bound, scope, seen, signal)
        counts["took_ms"] = round(self._clock.monotonic_ms() - ticks, 1)
        self._catalog.set_state(source_id, error=None)
        if scope == WHOLE_SOURCE:
            self._catalog.set_state(
                source_id, last_scan_at_ms=self._clock.now_ms(), last_scan=counts | {"began_at_ms": began_ms}
            )
        return outcome_of(lease, "note", self._clock.now_ms(), note="scanned", **counts)

    def _pages(self, bound: Bound, scope: str) -> Iterator[list[Change] | Cursor]:
        cursor = self._catalog.cursor(bound.source.id, scope)
        page: list[Change] = []
        for item in bound.connector.changes(cursor, scope):
            if isinstance(item, Change):
                page.append(item)
            if page and (isinstance(item, Cursor) or len(page) >= _PAGE):
                yield page
                page = []
            if isinstance(item, Cursor):
                yield item
        if page:
            yield page

    def _emit_changed(self, source_id: str, page: Sequence[Change], signal: Signal) -> int:
        known = self._catalog.versions([(source_id, change.object_ref) for change in page])
        events = [
            SourceChanged(source_id, change.object_ref, change.change_kind, signal=signal, version=change.version)
            for change in page
            if not _same(change, known.get((source_id, change.object_ref)))
        ]
        if events:
            self._emit(events)
        return len(events)

    def _absent(self, bound: Bound, scope: str, seen: set[str], signal: Signal) -> JsonObject:
        source_id = bound.source.id
        prefix = "" if scope == WHOLE_SOURCE else bound.connector.scope_prefix(scope)
        absent, total = self._known_but_not(source_id, prefix, seen)
        if scope == WHOLE_SOURCE and self._too_many(source_id, absent, total):
            return {"held": len(absent)}
        for start in range(0, len(absent), _PAGE):
            part = absent[start : start + _PAGE]
            self._emit([SourceChanged(source_id, ref, ChangeKind.DELETED, signal=signal) for ref in part])
        return {"deleted": len(absent)}

    def _known_but_not(self, source_id: str, prefix: str, seen: set[str]) -> tuple[list[str], int]:
        absent: list[str] = []
        total, after = 0, None
        while page := self._catalog.objects(source_id, prefix=prefix, after=after, limit=5_000):
            total += len(page)
            absent += [ref for ref, _version in page if ref not in seen]
            after = page[-1][0]
        return absent, total

    def _too_many(self, source_id: str, absent: Sequence[str], total: int) -> bool:
        state = self._catalog.state(source_id)
        if len(absent) <= max(_FEW, self._delete_share * total):
            if state.get("held") or state.get("release"):
                self._catalog.set_state(source_id, held=None, release=None)
            return False
        if state.get("release"):
            self._catalog.set_state(source_id, held=None, release=None)
            return False
        held = {"count": len(absent), "of": total, "sample": list(absent[:_SAMPLE]), "at_ms": self._clock.now_ms()}
        self._catalog.set_state(source_id, held=held)
        _log.warning("deletes_held", source_id=source_id, count=len(absent), of=total)
        return True


def _same(change: Change, known: Version | None) -> bool:
    if known is None or known.state == "deleted":
        return change.change_kind is ChangeKind.DELETED
    if change.change_kind is ChangeKind.DELETED:
        return False
    same_version = change.version is not None and change.version == known.version
    return same_version or (change.fingerprint is not None and change.fingerprint == known.fingerprint)
