"""The one door: every signal, wherever it comes from, is stored on the bus here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sourcebus.bus import Bus, Emitted
from sourcebus.clock import Clock
from sourcebus.errors import UnknownSource
from sourcebus.intake.sources import Sources
from sourcebus.model import SourceChanged


@dataclass(frozen=True, slots=True)
class Refresh:
    """Answer to a manual refresh. `reason`: queued, running (one more follows), provider_pause, paused or capped; only the
    last is a refusal. `retry_after_ms` is how long until a capped one is possible or the provider's pause ends, else 0."""

    accepted: bool
    retry_after_ms: int
    reason: str


class Intake:
    """Stores signals and calls for a consumer. What it has accepted is in Redis; what it could not store, it raises."""

    def __init__(self, bus: Bus, sources: Sources, clock: Clock, invite: Callable[[Sequence[int]], None]) -> None:
        self._bus, self._sources, self._clock, self._invite = bus, sources, clock, invite

    def accept(self, events: Sequence[SourceChanged]) -> Emitted:
        """Stores a batch, all or nothing. Raises `InvalidInput` (naming the event), `UnknownSource`, `BusUnavailable`."""
        tried: set[str] = set()
        while True:
            try:
                emitted = self._bus.emit(events)
            except UnknownSource as error:
                # Redis may have lost its data since: the catalog is what says which sources there are.
                if error.source_id in tried or not self._sources.known(error.source_id):
                    raise
                tried.add(error.source_id)
                self._sources.recover(error.source_id)
            else:
                self._invite(emitted.invite)
                return emitted

    def refresh(self, source_id: str, object_ref: str | None = None) -> Refresh:
        """A person wants one object, or the whole source, looked at now. UnknownSource, BusUnavailable."""
        try:
            answer = self._bus.refresh(source_id, object_ref)
        except UnknownSource:
            if not self._sources.known(source_id):
                raise
            self._sources.recover(source_id)
            answer = self._bus.refresh(source_id, object_ref)
        self._invite(answer.invite)
        wait_ms = max(0, answer.until_ms - self._clock.now_ms()) if answer.until_ms else 0
        return Refresh(answer.accepted, wait_ms, answer.status)
