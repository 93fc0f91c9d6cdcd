"""Push watches: one thread per source whose connector can watch, each turning what it sees into signals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from sourcebus.catalog import Catalog
from sourcebus.connectors import Connector, Watches
from sourcebus.errors import BusError, CatalogError, InvalidInput, SourcebusError, UnknownSource
from sourcebus.intake.accept import Intake
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Signal, Source, SourceChanged

_log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_RETRY_S = 0.2
_MOST_RETRY_S = 5.0


Connect = Callable[[Source], Connector]
"""Makes a fresh connector for one source."""


@dataclass
class _Watching:
    updated_at: datetime | None
    stop: threading.Event
    thread: threading.Thread


class WatchRunner:
    """Watches every live source that can be watched, follows sources being added, changed, paused and removed.

    What a watch reports is offered to the bus until the bus has it; a watch that fails is set up again, and setting it up
    scans the whole source, so nothing in between is lost.
    """

    def __init__(self, catalog: Catalog, intake: Intake, connect: Connect, step_ms: int) -> None:
        self._catalog, self._intake, self._connect, self._step_ms = catalog, intake, connect, step_ms
        self._watching: dict[str, _Watching] = {}

    def run(self, stop: threading.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Blocks until `stop` is set. `ready` is called after the first look at the catalog."""
        first = True
        while not stop.is_set():
            try:
                self._follow()
            except CatalogError as error:
                _log.warning("catalog_unavailable", error=str(error))
            if first:
                ready()
                first = False
            stop.wait(_LOOK_S)
        self._end(list(self._watching))

    def _follow(self) -> None:
        wanted = {source.id: source for source in self._all_sources() if not source.paused}
        changed = [
            source_id
            for source_id, watching in self._watching.items()
            if source_id not in wanted or wanted[source_id].updated_at != watching.updated_at or not watching.thread.is_alive()
        ]
        self._end(changed)
        for source_id in sorted(wanted.keys() - self._watching.keys()):
            self._begin(wanted[source_id])

    def _all_sources(self) -> Sequence[Source]:
        found: list[Source] = []
        while page := self._catalog.sources(after=found[-1].id if found else None):
            found += page
        return found

    def _begin(self, source: Source) -> None:
        try:
            connector = self._connect(source)
        except InvalidInput as error:
            _log.error("watch_not_possible", source_id=source.id, error=str(error))
            return
        if not isinstance(connector, Watches):
            connector.close()
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(source.id, connector, stop), name=f"watch-{source.id}", daemon=True)
        self._watching[source.id] = _Watching(source.updated_at, stop, thread)
        thread.start()

    def _end(self, source_ids: Sequence[str]) -> None:
        ending = [self._watching.pop(source_id) for source_id in source_ids]
        for watching in ending:
            watching.stop.set()
        for watching in ending:
            watching.thread.join(5)

    def _watch(self, source_id: str, connector: Watches, stop: threading.Event) -> None:
        retry_s = _RETRY_S
        while not stop.is_set():
            try:
                for changes in connector.watch(stop, step_ms=self._step_ms):
                    self._offer(source_id, changes, stop)
                    retry_s = _RETRY_S
            except UnknownSource:
                return
            except Exception as error:  # noqa: BLE001  a watch is other people's code; without it the source would go stale unseen
                text = str(error) if isinstance(error, SourcebusError) else f"{type(error).__name__}: {error}"
                _log.warning("watch_failed", source_id=source_id, error=text, retry_s=retry_s)
            stop.wait(retry_s)
            retry_s = min(_MOST_RETRY_S, retry_s * 2)

    def _offer(self, source_id: str, changes: Sequence[Change], stop: threading.Event) -> None:
        events = [_event(source_id, change) for change in changes]
        retry_s = _RETRY_S
        for start in range(0, len(events), 5_000):
            part = events[start : start + 5_000]
            while True:
                try:
                    self._intake.accept(part)
                    break
                except (BusError, CatalogError) as error:
                    _log.warning("signal_not_stored_yet", source_id=source_id, events=len(part), error=str(error))
                    if stop.wait(retry_s):
                        return  # whoever watches next begins with a scan
                    retry_s = min(_MOST_RETRY_S, retry_s * 2)


def _event(source_id: str, change: Change) -> SourceChanged:
    whole = change.change_kind is ChangeKind.SCAN and change.object_ref == WHOLE_SOURCE
    signal = Signal.RECONCILE if whole else Signal.WATCH
    return SourceChanged(source_id, change.object_ref, change.change_kind, signal=signal, version=change.version)
