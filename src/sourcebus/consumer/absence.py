"""Deletes that a listing finds: what a complete one did not show, and what a feed says is gone. Few are applied, many are held.

A delete is only ever *emitted* here; the consumer of each asks the source again before anything is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import cast

import structlog

from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.consumer.ports import Bound
from sourcebus.model import WHOLE_SOURCE, ChangeKind, JsonObject, Signal, SourceChanged

_log = structlog.get_logger(__name__)

_PAGE = 500
_OBJECTS = 5_000
_SAMPLE = 20

FEW = 20
"""A pass that deletes no more than this many objects is never held."""


class Absence:
    """The brake of one installation: a pass that would delete more than `delete_share` of a source is held.

    What is held is shown (``catalog.state()["held"]``) until a person releases it or has it kept.
    """

    def __init__(
        self, catalog: Catalog, emit: Callable[[Sequence[SourceChanged]], None], clock: Clock, delete_share: float
    ) -> None:
        self._catalog, self._emit, self._clock, self._delete_share = catalog, emit, clock, delete_share

    def of_complete(self, bound: Bound, scope: str, seen: Set[str], pass_no: int, signal: Signal) -> JsonObject:
        """The scope was listed completely: emits or holds the deletes of what was not seen, in memory or by that pass."""
        source_id = bound.source.id
        prefix = "" if scope == WHOLE_SOURCE else bound.connector.scope_prefix(scope)
        absent, total = self._absent(source_id, prefix, seen, pass_no)
        if scope != WHOLE_SOURCE:
            total = self.known(source_id)
        state = self._catalog.state(source_id)
        if len(absent) > self._limit(total) and not state.get("release") and signal is not Signal.WATCH:
            self._catalog.listings.hold(source_id, scope, absent)
            self._say_held(source_id, absent, len(absent), total)
            return {"held": len(absent)}
        if scope == WHOLE_SOURCE and (state.get("held") or state.get("release")):
            self._catalog.listings.let_go(source_id)
            self._catalog.set_state(source_id, held=None, release=None)
        self._emit_all(source_id, absent, signal)
        return {"deleted": len(absent)}

    def of_feed(self, source_id: str, scope: str, gone: Sequence[str], signal: Signal, *, before: int, of: int) -> None:
        """The feed says that these are gone, after `before` others in the same pass, `of` so many: emits or holds them.

        A held one is emitted by the complete pass that a release asks for.
        """
        if len(gone) + before <= self._limit(of) or signal is Signal.WATCH:
            self._emit_all(source_id, gone, signal)
            return
        self._catalog.listings.hold(source_id, scope, gone, more=True)
        held = cast("JsonObject", self._catalog.state(source_id).get("held") or {})
        self._say_held(source_id, gone, len(gone) + int(held.get("count", 0)), of)

    def _absent(self, source_id: str, prefix: str, seen: Set[str], pass_no: int) -> tuple[list[str], int]:
        """The known objects that were not seen and need not be kept, and how many are known."""
        kept = self._catalog.listings.kept(source_id)
        absent: list[str] = []
        total, after = 0, None
        while page := self._catalog.objects(source_id, prefix=prefix, after=after, limit=_OBJECTS):
            total += len(page)
            missing = [ref for ref, _version in page if ref not in seen]
            if pass_no and missing:
                missing = self._catalog.listings.unsighted(pass_no, missing)
            if kept is not None:
                missing_set = set(missing)
                self._catalog.listings.sighted_again(kept, [ref for ref, _ in page if ref not in missing_set])
                missing = self._catalog.listings.unsighted(kept, missing)
            absent += missing
            after = page[-1][0]
        return absent, total

    def _limit(self, total: int) -> float:
        return max(FEW, self._delete_share * total)

    def known(self, source_id: str) -> int:
        """How many objects of the source are known to be there."""
        counts = self._catalog.counts([source_id]).get(source_id, {})
        return counts.get("indexed", 0) + counts.get("unreadable", 0)

    def _emit_all(self, source_id: str, refs: Sequence[str], signal: Signal) -> None:
        for start in range(0, len(refs), _PAGE):
            part = refs[start : start + _PAGE]
            self._emit([SourceChanged(source_id, ref, ChangeKind.DELETED, signal=signal) for ref in part])

    def _say_held(self, source_id: str, refs: Sequence[str], count: int, total: int) -> None:
        held = {"count": count, "of": total, "sample": list(refs[:_SAMPLE]), "at_ms": self._clock.now_ms()}
        self._catalog.set_state(source_id, held=held)
        _log.warning("deletes_held", source_id=source_id, count=count, of=total)
