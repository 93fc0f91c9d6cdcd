"""Deliveries that come at the same time are stored together: one call to the bus for many requests, one answer for each.

One thread stores; what arrives while it does waits and goes together next time. So a lone delivery waits for nobody, and
under load a call's fixed cost is shared. What is wrong with one delivery is that delivery's affair.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import structlog

from sourcebus.bus import Bus
from sourcebus.errors import BusError, SourcebusError
from sourcebus.intake.accept import Intake
from sourcebus.model import SourceChanged

MOST_EVENTS = 2_000
"""Most events that are stored in one go, so that nobody waits for long behind others; one delivery may have more."""

MOST_WAITING = 20_000
"""Most deliveries that wait to be stored. Beyond that a new one is turned away, to be sent again later."""

_SLICE = 5_000

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Parcel:
    """One delivery's events on their way. `delivery_id` is the provider's, None where it gives none; `told` is called with
    all parcels of a batch that share it, in the storing thread, once they have their `error` or None. `waiter` is the
    caller's."""

    source_id: str
    events: Sequence[SourceChanged]
    delivery_id: str | None
    keep_ms: int
    told: Callable[[Sequence[Parcel]], object]
    waiter: object = None
    duplicate: bool = False
    error: Exception | None = None
    twins: list[Parcel] = field(default_factory=list["Parcel"])

    @property
    def key(self) -> tuple[str, str] | None:
        return None if self.delivery_id is None else (self.source_id, self.delivery_id)


class Batcher:
    """Stores parcels in a thread of its own, which begins with the first one. `most_seen`: deliveries remembered per source."""

    def __init__(self, bus: Bus, intake: Intake, most_seen: int) -> None:
        self._bus, self._intake, self._most_seen = bus, intake, most_seen
        self._changed = threading.Condition()
        self._waiting: list[Parcel] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, parcel: Parcel) -> bool:
        """Has it stored; `Parcel.told` says how that went. False where too many wait already: it is not taken."""
        with self._changed:
            if self._closed or len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(parcel)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deliveries", daemon=True)
                self._thread.start()
            self._changed.notify()
        return True

    def close(self) -> None:
        """Stores what waits, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._store(batch)
            except Exception as error:  # noqa: BLE001  this thread answers everybody: nothing may end it
                for parcel in batch:
                    parcel.error = parcel.error or error
            _tell(batch)

    def _next(self) -> list[Parcel]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            events, count = 0, 0
            for parcel in self._waiting:
                events += len(parcel.events)
                if events > MOST_EVENTS and count:
                    break
                count += 1
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            return batch

    def _store(self, batch: Sequence[Parcel]) -> None:
        fresh = self._fresh(batch)
        if not self._stored(fresh):
            for parcel in fresh:  # one of them is wrong: each for itself
                self._stored([parcel])
        self._remember([parcel for parcel in fresh if parcel.error is None])
        for parcel in fresh:
            for twin in parcel.twins:
                twin.error, twin.duplicate = parcel.error, True

    def _fresh(self, batch: Sequence[Parcel]) -> list[Parcel]:
        """Those that were not stored before; of several that are the same delivery the first, which has the others as twins."""
        named = [(parcel, key) for parcel in batch if (key := parcel.key) is not None]
        seen = self._bus.remembered([key for _, key in named])
        first: dict[tuple[str, str], Parcel] = {}
        for (parcel, key), stored in zip(named, seen, strict=True):
            if stored:
                parcel.duplicate = True
            elif (twin := first.setdefault(key, parcel)) is not parcel:
                twin.twins.append(parcel)
        return [parcel for parcel in batch if not parcel.duplicate and first.get(parcel.key or ("", ""), parcel) is parcel]

    def _stored(self, parcels: Sequence[Parcel]) -> bool:
        """Whether all is done with them: stored, or each with its error. False: they have to be tried one by one."""
        events = list(chain.from_iterable(parcel.events for parcel in parcels))
        try:
            for start in range(0, len(events), _SLICE):
                self._intake.accept(events[start : start + _SLICE])
        except Exception as error:  # noqa: BLE001  whatever it is, it is told to those who wait
            if len(parcels) > 1 and not isinstance(error, BusError):
                return False
            for parcel in parcels:
                parcel.error = error
        return True

    def _remember(self, stored: Sequence[Parcel]) -> None:
        by_time: dict[int, list[tuple[str, str]]] = {}
        for parcel in stored:
            if (key := parcel.key) is not None:
                by_time.setdefault(parcel.keep_ms, []).append(key)
        try:
            for keep_ms, keys in by_time.items():
                self._bus.remember(keys, keep_ms=keep_ms, most=self._most_seen)
        except SourcebusError as error:
            # Their events are stored, which is what the answer says. Sent again, they would be looked at once more.
            _log.warning("bus_unavailable", error=str(error))


def _tell(batch: Sequence[Parcel]) -> None:
    groups: dict[Callable[[Sequence[Parcel]], object], list[Parcel]] = {}
    for parcel in batch:
        groups.setdefault(parcel.told, []).append(parcel)
    for told, parcels in groups.items():
        try:
            told(parcels)
        except RuntimeError:
            continue  # the event loop that waited for them has ended; nobody is left to be told
