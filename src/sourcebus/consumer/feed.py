"""How a source is fed from here on, judged after each listing of the whole of it, and after what its webhooks brought.

The policy is in `sourcebus.freshness`; here it gets its evidence, and what it says is done: the poll interval on the bus, the
words on the screens, a new subscription.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import structlog

from sourcebus.bus import Bus
from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.connectors import Hears, Subscribes
from sourcebus.consumer.look import outcome_of
from sourcebus.consumer.ports import Bound
from sourcebus.freshness import Evidence, Feeding, coverage_slot_ms, intervals_of, judge_feeding, next_poll_s
from sourcebus.model import SUBSCRIPTION, ChangeKind, JsonObject, Lease, Outcome, Signal, SourceChanged

_log = structlog.get_logger(__name__)

_LISTENING_MS = 1_000

_LIVE = (Signal.WEBHOOK, Signal.WATCH)
_FOUND = (Signal.POLL, Signal.RECONCILE)
_CHANGES = ("indexed", "deleted", "unreadable")


class Feed:
    """`accept` stores signals; `subscribing`: this installation can be reached by providers. One object serves all threads of
    a process."""

    def __init__(
        self,
        bus: Bus,
        catalog: Catalog,
        clock: Clock,
        accept: Callable[[Sequence[SourceChanged]], object],
        *,
        subscribing: bool,
    ) -> None:
        self._bus, self._catalog, self._clock, self._accept, self._subscribing = bus, catalog, clock, accept, subscribing
        self._lock = threading.Lock()
        self._listening: dict[str, tuple[float, float | None]] = {}

    # --- what webhooks bring --------------------------------------------------------------------------------------

    def settled(self, done: Sequence[tuple[Lease, Outcome, Bound]]) -> None:
        """These leases have ended: counts which changes had been announced, and what was heard."""
        marks: dict[str, list[tuple[str, str]]] = {}
        bounds: dict[str, Bound] = {}
        since_ms: dict[str, float | None] = {}
        for lease, outcome, bound in done:
            if not isinstance(bound.connector, Hears):
                continue
            if lease.source_id not in since_ms:
                since_ms[lease.source_id] = self._listening_since(lease.source_id)
            if mark := _mark(lease, outcome, since_ms[lease.source_id]):
                marks.setdefault(lease.source_id, []).append((mark, lease.object_ref))
                bounds[lease.source_id] = bound
        for source_id, found in marks.items():
            self._bus.tally(source_id, coverage_slot_ms(*_intervals(bounds[source_id])), found)

    def _listening_since(self, source_id: str) -> float | None:
        """Since when changes can have been announced, at most a second old."""
        now_ms = self._clock.monotonic_ms()
        with self._lock:
            looked_ms, since_ms = self._listening.get(source_id, (float("-inf"), None))
            if since_ms is None or now_ms - looked_ms >= _LISTENING_MS:
                since_ms = self._catalog.state(source_id).get("listening_since_ms")
                self._listening[source_id] = (now_ms, since_ms)
        return since_ms

    # --- what listings find ---------------------------------------------------------------------------------------

    def listed(self, lease: Lease, bound: Bound, found: int) -> None:
        """The whole source has been listed, and `found` of its objects were not known as they are."""
        source_id = bound.source.id
        subscribes = self._subscribing and isinstance(bound.connector, Subscribes)
        if subscribes and self._catalog.upkeep.enlist(source_id):  # it was added before there was a public address
            self._call_for_subscription(source_id)
        state = self._catalog.state(source_id)
        if "listening_since_ms" not in state and isinstance(bound.connector, Hears):
            self._catalog.set_state(source_id, listening_since_ms=self._bus.vitals().now_ms)
        if lease.signal in _LIVE:
            return  # as often as webhooks come: it says nothing of how well they do
        feed = cast("JsonObject", state.get("feed") or {})
        present = Feeding(feed.get("mode", Feeding.POLL))
        seen = self._evidence(bound, subscribes, feed, found)
        feeding, reason = judge_feeding(present, seen)
        if feeding is present:
            reason = reason or feed.get("reason", "")
        else:
            self._switch(lease, feeding, reason, subscribes)
        self._set_interval(lease, bound, state, feeding, reason, found=found, quiet_scans=seen.quiet_scans)

    def failed(self, lease: Lease, bound: Bound) -> None:
        """A listing of the whole source has failed: the next one comes later."""
        state = self._catalog.state(bound.source.id)
        feed = cast("JsonObject", state.get("feed") or {})
        feeding = Feeding(feed.get("mode", Feeding.POLL))
        self._set_interval(lease, bound, state, feeding, feed.get("reason", ""), failed=True)

    def _evidence(self, bound: Bound, subscribes: bool, feed: JsonObject, found: int) -> Evidence:
        source_id = bound.source.id
        hears = isinstance(bound.connector, Hears)
        if not hears:
            return Evidence(hears=False)
        (heard,) = self._bus.heard([source_id])
        now_ms = self._bus.vitals().now_ms
        silent = heard.last_ms is not None and heard.last_ms <= int(feed.get("judged_ms", 0))
        return Evidence(
            hears=True,
            wanted=subscribes,
            subscribed=bool(self._catalog.subscriptions(source_id)),
            by_hand=bound.source.reconcile_interval_s is not None,
            announced=heard.announced_since,
            missed=heard.missed_since,
            unheard=heard.unheard,
            silent_ms=None if heard.last_ms is None else now_ms - heard.last_ms,
            gap_ms=heard.gap_ms,
            quiet_scans=int(feed.get("quiet_scans", 0)) + (found > 0) if silent else 0,
        )

    def _switch(self, lease: Lease, feeding: Feeding, reason: str, subscribes: bool) -> None:
        source_id = lease.source_id
        story = outcome_of(lease, "note", self._clock.now_ms(), note=f"feed_{feeding.value}", reason=reason)
        self._catalog.settle([story])
        self._bus.tally(source_id, 1_000, [("anew", "")])
        if feeding is Feeding.FALLBACK:
            _log.warning("webhooks_not_relied_on", source_id=source_id, reason=reason)
            if subscribes:
                self._catalog.upkeep.replace_all(source_id)
                self._catalog.upkeep.wish(source_id)
                self._call_for_subscription(source_id)
        elif feeding is Feeding.PUSH:
            _log.info("webhooks_relied_on", source_id=source_id)

    def _call_for_subscription(self, source_id: str) -> None:
        self._accept([SourceChanged(source_id, SUBSCRIPTION, ChangeKind.SCAN, signal=Signal.POLL)])

    def _set_interval(
        self,
        lease: Lease,
        bound: Bound,
        state: JsonObject,
        feeding: Feeding,
        reason: str,
        *,
        found: int = 0,
        quiet_scans: int = 0,
        failed: bool = False,
    ) -> None:
        source_id = bound.source.id
        poll_s, reconcile_s = intervals_of(feeding, *_intervals(bound))
        last_scan = cast("JsonObject", state.get("last_scan") or {})
        took_s = max(0, self._clock.now_ms() - int(last_scan.get("began_at_ms", self._clock.now_ms()))) / 1000
        feed = cast("JsonObject", state.get("feed") or {})
        if feeding is Feeding.PUSH:
            every_s = reconcile_s
        else:
            present_s = float(feed.get("every_s") or poll_s) if feed.get("mode") == feeding else poll_s
            found = found if feed else 0  # what the first listing finds are no changes
            every_s = next_poll_s(present_s, poll_s, found=found, took_s=took_s, failed=failed)
        wait_ms = max(0, lease.claimed_at_ms - lease.accepted_at_ms)
        fresh: dict[str, Any] = {"mode": feeding.value, "reason": reason, "every_s": round(every_s, 3)}
        fresh["interval_s"] = reconcile_s if feeding is Feeding.PUSH else poll_s
        fresh |= {"scan_s": round(took_s, 3), "queue_s": round(wait_ms / 1000, 3)}
        if isinstance(bound.connector, Hears):
            fresh |= {"quiet_scans": quiet_scans, "judged_ms": self._bus.vitals().now_ms}
        fresh["since_ms"] = feed.get("since_ms") if feed.get("mode") == feeding else self._clock.now_ms()
        if fresh != feed:
            self._catalog.set_state(source_id, feed=fresh)
        self._bus.poll(source_id, every_s * 1000, reconcile=feeding is Feeding.PUSH)


def _mark(lease: Lease, outcome: Outcome, since_ms: float | None) -> str | None:
    """What this lease says of webhooks, where changes can have been announced since `since_ms`."""
    live = lease.signal in _LIVE
    if lease.change_kind is ChangeKind.SCAN or outcome.what not in _CHANGES:
        return "heard" if live else None
    if since_ms is None or lease.accepted_at_ms <= since_ms:
        return None  # what the first listing finds, or that after a gap, nobody could have announced
    return "announced" if live else "missed" if lease.signal in _FOUND else None


def _intervals(bound: Bound) -> tuple[float, float]:
    """The configured poll and reconcile intervals of a source, seconds."""
    source, recommended = bound.source, bound.connector.recommended
    poll_s = recommended.poll_interval_s if source.poll_interval_s is None else source.poll_interval_s
    reconcile_s = source.reconcile_interval_s
    return poll_s, recommended.reconcile_interval_s if reconcile_s is None else reconcile_s
