"""One lease on a scope: list the delta and emit an event for every object that the catalog does not know as it is.

A long listing is cut at a `Cursor` when it has spent what its bucket can lend, when its slice of time is over, or when the
worker stops; it goes on with the next claim (`Bus.requeue`). What a complete listing has seen by then is stored, so that its
end knows what is absent. While one goes on for long, changes that are told meanwhile are still found from the scope's own
cursor, at most once per dedup window. docs/feeds.md has the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import cast

import structlog

from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.consumer.absence import Absence
from sourcebus.consumer.look import outcome_of
from sourcebus.consumer.meter import Meter
from sourcebus.consumer.ports import Bound
from sourcebus.errors import ConnectorError, CursorExpired, NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.freshness import complete_is_due, may_spend
from sourcebus.model import (
    WHOLE_SOURCE,
    Change,
    ChangeKind,
    Cursor,
    JsonObject,
    Lease,
    Outcome,
    Pass,
    Signal,
    SourceChanged,
    Version,
)

_log = structlog.get_logger(__name__)

_PAGE = 500
_EMPTY_PAGES = 20

_EMITTED_AS = {Signal.RECONCILE: Signal.RECONCILE, Signal.WATCH: Signal.WATCH, Signal.WEBHOOK: Signal.WEBHOOK}


@dataclass(frozen=True, slots=True)
class Again:
    """The pass was cut: its scope is to be claimed again, as `signal`. `caught_up`: what was told before this is found."""

    signal: Signal
    caught_up: bool


@dataclass(frozen=True, slots=True)
class Scanned:
    """How a lease on a scope ended. `again` None: the pass has come to its end. `found` are the objects emitted."""

    outcome: Outcome
    again: Again | None = None
    found: int = 0


@dataclass(slots=True)
class _Slice:
    """What one listing has brought in one turn. `last` is the newest cursor; `cut`: there is more behind it.

    `deleted` counts the feed's tombstones, applied or held; `deleted_before` those of the same pass in earlier turns, and
    `of` how many objects the source had before the first of them (0: there was none).
    """

    signal: Signal
    deleted_before: int = 0
    of: int = 0
    seen: set[str] = field(default_factory=set[str])
    gone: list[str] = field(default_factory=list[str])
    pages: int = 0
    listed: int = 0
    emitted: int = 0
    deleted: int = 0
    last: Cursor | None = None
    cut: bool = False


class Scan:
    """Lists scopes. Emits through `emit`, which stores events on the bus.

    A pass that began without a cursor and says at its end that it was complete also finds what is absent; see `Absence`.
    `slice_ms` is how long one claim may list, `stopping` whether the worker wants to end.
    """

    def __init__(
        self,
        catalog: Catalog,
        emit: Callable[[Sequence[SourceChanged]], None],
        clock: Clock,
        delete_share: float,
        *,
        slice_ms: float = 15_000,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.catalog, self.emit, self.clock = catalog, emit, clock
        self.slice_ms, self.stopping = slice_ms, stopping
        self.absence = Absence(catalog, emit, clock, delete_share)

    def run(self, lease: Lease, bound: Bound, meter: Meter) -> Scanned:
        """Raises `ConnectorError` where the listing failed; the pages before it stand, nothing is deleted."""
        return _Turn(self, lease, bound, meter).run()


class _Turn:
    """One claim of one scope."""

    def __init__(self, scan: Scan, lease: Lease, bound: Bound, meter: Meter) -> None:
        self._scan, self._lease, self._bound, self._meter = scan, lease, bound, meter
        self._catalog, self._clock = scan.catalog, scan.clock
        self._source_id, self._scope = lease.source_id, lease.object_ref
        self._ticks = self._clock.monotonic_ms()
        self._may_spend = may_spend(bound.source.quota or bound.connector.recommended.quota)
        self._version = bound.connector.cursor_version
        self._listing = self._catalog.listings.get(self._source_id, self._scope)
        under_way = self._listing.under_way
        # Cursors of another version of the connector may mean anything: what they stood for is listed anew.
        self._cursor = self._listing.cursor if self._listing.version == self._version else None
        self._pass = under_way if under_way and under_way.version == self._version else None

    def run(self) -> Scanned:
        signal = _EMITTED_AS.get(self._lease.signal, Signal.POLL)
        began_anew = False
        if self._pass is None and (self._cursor is None or self._complete_is_due()):
            self._pass = self._new_pass(signal if self._cursor is None else Signal.RECONCILE)
            began_anew = True
        caught_up = began_anew
        whole = self._scope not in self._cut_deltas()
        if self._cursor is not None and (self._pass is None or self._must_catch_up(began_anew)):
            delta = self._delta(signal)
            if delta is None:  # its cursor had expired
                self._pass = self._pass or self._new_pass(Signal.RECONCILE)
            elif self._pass is None:
                return self._end_of_delta(delta, whole=whole)
            elif delta.cut:
                return self._scanned(delta, Again(signal, caught_up=False))
            else:
                caught_up = True
                self._pass = replace(self._pass, caught_up_at_ms=self._lease.claimed_at_ms)
        assert self._pass is not None
        return self._complete(self._pass, caught_up)

    # --- from the scope's cursor ------------------------------------------------------------------------------------

    def _must_catch_up(self, began_anew: bool) -> bool:
        """Whether, before a complete listing goes on, the changes are to be found that were told since it began."""
        assert self._pass is not None
        if began_anew:
            return self._lease.signal is not Signal.RECONCILE
        window_ms = self._bound.source.window_ms
        window_ms = self._bound.connector.recommended.window_ms if window_ms is None else window_ms
        return self._newer() and self._lease.claimed_at_ms - self._pass.caught_up_at_ms >= window_ms

    def _newer(self) -> bool:
        """Whether something was told that the pass under way, or its last catching up, does not cover."""
        since_ms = self._pass.caught_up_at_ms if self._pass else self._lease.claimed_at_ms
        return self._lease.newer or self._lease.accepted_at_ms > since_ms

    def _delta(self, signal: Signal) -> _Slice | None:
        """None: the cursor has expired, and is forgotten."""
        part, ended = _Slice(signal, *self._cut_deltas().get(self._scope, (0, 0))), False
        try:
            self._fill(part, self._cursor)
            ended = not part.cut
        except CursorExpired as error:
            _log.warning("cursor_expired", source_id=self._source_id, scope=self._scope, error=str(error))
            self._catalog.listings.keep_cursor(self._listing, None, self._version)
            self._cursor, part.last, ended = None, None, True
            return None
        finally:
            self._keep_delta(part, ended)
        return part

    def _keep_delta(self, part: _Slice, ended: bool) -> None:
        if part.last is not None:
            self._catalog.listings.keep_cursor(self._listing, part.last.value, self._version)
            self._cursor = part.last.value
        was_cut = self._cut_deltas()
        if not ended and part.last is not None:
            now_cut = was_cut | {self._scope: (part.deleted_before + part.deleted, part.of)}
        else:
            now_cut = {scope: count for scope, count in was_cut.items() if scope != self._scope or not ended}
        if now_cut != was_cut:
            self._catalog.set_state(self._source_id, cut_deltas=now_cut or None)

    def _cut_deltas(self) -> dict[str, tuple[int, int]]:
        """The scopes whose delta was cut and goes on, with the number of deletes that it has told of by then, of how many."""
        stored = cast("dict[str, list[int]]", self._catalog.state(self._source_id).get("cut_deltas") or {})
        return {scope: (deleted, of) for scope, (deleted, of) in stored.items()}

    def _end_of_delta(self, part: _Slice, *, whole: bool) -> Scanned:
        """`whole`: the delta was not cut, so that `part` is all of it."""
        if part.cut:
            return self._scanned(part, Again(part.signal, caught_up=False))
        counts: JsonObject = {}
        if whole and part.last is not None and part.last.complete:  # it listed everything, whatever the cursor said
            counts = self._scan.absence.of_complete(self._bound, self._scope, part.seen, 0, part.signal)
        if self._lease.newer:
            self._once_more()
        return self._scanned(part, None, counts)

    # --- from the beginning -----------------------------------------------------------------------------------------

    def _new_pass(self, signal: Signal) -> Pass:
        return Pass(None, self._version, signal, self._lease.claimed_at_ms, self._lease.claimed_at_ms)

    def _complete(self, under_way: Pass, caught_up: bool) -> Scanned:
        part = _Slice(under_way.signal, int(under_way.counts.get("deleted", 0)), int(under_way.counts.get("of", 0)))
        try:
            self._fill(part, under_way.cursor)
        except CursorExpired as error:
            if under_way.cursor is None:
                raise SourceUnavailable(f"the listing cannot even begin: {error}") from error
            _log.warning("cursor_expired", source_id=self._source_id, scope=self._scope, error=str(error))
            self._catalog.listings.drop_pass(self._listing)
            return self._complete(self._new_pass(under_way.signal), caught_up=True)
        except BaseException:
            if part.last is not None:
                self._keep_pass(under_way, part)
            raise
        if part.cut:
            self._keep_pass(under_way, part)
            return self._scanned(part, Again(under_way.signal, caught_up), under_way=under_way)
        return self._end_of_pass(under_way, part, caught_up)

    def _keep_pass(self, under_way: Pass, part: _Slice) -> None:
        assert part.last is not None
        kept = replace(under_way, cursor=part.last.value, counts=_sum(under_way.counts, part))
        self._catalog.listings.keep_pass(self._listing, kept, part.seen)

    def _end_of_pass(self, under_way: Pass, part: _Slice, caught_up: bool) -> Scanned:
        counts: JsonObject = {"complete": part.last is not None and part.last.complete}
        if counts["complete"]:
            counts |= self._scan.absence.of_complete(self._bound, self._scope, part.seen, under_way.no, part.signal)
        cursor = part.last.value if part.last is not None else None
        if under_way.no:
            self._catalog.listings.end_pass(self._listing, cursor, self._version)
        elif cursor is not None or self._cursor is not None:
            self._catalog.listings.keep_cursor(self._listing, cursor, self._version)
        if not caught_up and self._newer():
            self._once_more()
        if self._scope == WHOLE_SOURCE:
            self._catalog.set_state(self._source_id, last_whole_at_ms=under_way.began_at_ms)
        return self._scanned(part, None, counts, under_way=under_way)

    def _complete_is_due(self) -> bool:
        if self._scope != WHOLE_SOURCE:
            return False
        interval_s = self._bound.source.reconcile_interval_s
        interval_s = self._bound.connector.recommended.reconcile_interval_s if interval_s is None else interval_s
        last_ms = self._catalog.state(self._source_id).get("last_whole_at_ms")
        return complete_is_due(self._lease.signal, last_ms, self._lease.claimed_at_ms, interval_s)

    # --- both -------------------------------------------------------------------------------------------------------

    def _once_more(self) -> None:
        """What was told since the pass began is not in it: the scope is scanned again, when its window ends."""
        signal = _EMITTED_AS.get(self._lease.signal, Signal.POLL)
        self._scan.emit([SourceChanged(self._source_id, self._scope, ChangeKind.SCAN, signal=signal)])

    def _fill(self, part: _Slice, cursor: str | None) -> None:
        """Lists from `cursor` until the end or until it is cut."""
        page: list[Change] = []
        try:
            with closing(self._ask(cursor)) as items:
                for item in items:
                    if isinstance(item, Change):
                        page.append(item)
                        if len(page) < _PAGE:
                            continue
                    page = self._take(part, page)
                    if isinstance(item, Cursor):
                        self._meter.page()
                        part.pages += 1
                        part.last = item
                        if not item.complete and self._is_over(part):
                            part.cut = True
                            break
            page = self._take(part, page)
        finally:
            self._emit_gone(part)

    def _is_over(self, part: _Slice) -> bool:
        # A feed's last page looks like any other. Cut there, it would be asked, and cut there, for ever.
        if not part.listed and part.pages < _EMPTY_PAGES:
            return False
        spent_time = self._clock.monotonic_ms() - self._ticks >= self._scan.slice_ms
        return spent_time or self._scan.stopping() or self._meter.spent() >= self._may_spend

    def _ask(self, cursor: str | None) -> Generator[Change | Cursor]:
        """The connector's listing. What sounds like an answer about an object is here one about the scope."""
        try:
            yield from self._bound.connector.changes(cursor, self._scope)
        except ObjectUnreadable as error:
            if error.reason == "forbidden":
                raise NeedsAuth(f"the listing is refused: {error.detail}") from error
            raise self._cannot_list(error) from error
        except ObjectGone as error:
            raise self._cannot_list(error) from error

    def _cannot_list(self, error: ConnectorError) -> ConnectorError:
        # A scope may be gone for good (a drive was removed): that backs off and ends, without pausing the rest of the source.
        kind = SourceUnavailable if self._scope == WHOLE_SOURCE else ConnectorError
        return kind(f"cannot be listed: {error}")

    def _take(self, part: _Slice, page: list[Change]) -> list[Change]:
        """Emits what a page shows to be different. Answers an empty page."""
        if not page:
            return page
        known = self._catalog.versions([(self._source_id, change.object_ref) for change in page])
        events: list[SourceChanged] = []
        for change in page:
            ref, gone = change.object_ref, change.change_kind is ChangeKind.DELETED
            same = _same(change, known.get((self._source_id, ref)))
            if gone and not same:
                part.gone.append(ref)
            elif not gone:
                part.seen.add(ref)
                if not same:
                    kind = change.change_kind
                    events.append(SourceChanged(self._source_id, ref, kind, signal=part.signal, version=change.version))
        if events:
            self._scan.emit(events)
        part.listed += len(page)
        part.emitted += len(events)
        return []

    def _emit_gone(self, part: _Slice) -> None:
        """At the end of the turn, when it is known how many they are."""
        gone, part.gone = part.gone, []
        if not gone:
            return
        part.of = part.of or self._scan.absence.known(self._source_id)
        before = part.deleted_before + part.deleted
        self._scan.absence.of_feed(self._source_id, self._scope, gone, part.signal, before=before, of=part.of)
        part.deleted += len(gone)

    def _scanned(
        self, part: _Slice, again: Again | None, counts: JsonObject | None = None, *, under_way: Pass | None = None
    ) -> Scanned:
        now_ms = self._clock.now_ms()
        told = _sum(under_way.counts if under_way else {}, part) | {"complete": False}
        for name, value in (counts or {}).items():
            told[name] = told["deleted"] + value if name == "deleted" else value
        del told["of"]
        told["took_ms"] = round(self._clock.monotonic_ms() - self._ticks, 1)
        told["spent"] = round(self._meter.spent(), 3)
        state: JsonObject = {"error": None, "error_since_ms": None}
        if self._scope == WHOLE_SOURCE:
            began_ms = under_way.began_at_ms if under_way else self._lease.claimed_at_ms
            state["last_scan"] = told | {"began_at_ms": began_ms, "under_way": again is not None}
            if again is None:
                state["last_scan_at_ms"] = now_ms
        self._catalog.set_state(self._source_id, **state)
        outcome = outcome_of(self._lease, "note", now_ms, note="scanning" if again else "scanned", **told)
        return Scanned(outcome, again, part.emitted + part.deleted + int((counts or {}).get("deleted", 0)))


def _sum(before: JsonObject, part: _Slice) -> JsonObject:
    return {
        "listed": int(before.get("listed", 0)) + part.listed,
        "emitted": int(before.get("emitted", 0)) + part.emitted,
        "deleted": int(before.get("deleted", 0)) + part.deleted,
        "of": part.of,
    }


def _same(change: Change, known: Version | None) -> bool:
    if known is None or known.state == "deleted":
        return change.change_kind is ChangeKind.DELETED
    if change.change_kind is ChangeKind.DELETED:
        return False
    same_version = change.version is not None and change.version == known.version
    return same_version or (change.fingerprint is not None and change.fingerprint == known.fingerprint)
