"""The doors in virtual time: webhooks that come late, twice or never; reconcile scans; recovery after Redis lost its data.

Retells `sourcebus.intake`: its `Sources`, `Intake` and `Housekeeping`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sourcebus.errors import BusUnavailable, UnknownSource
from sourcebus.model import WHOLE_SOURCE, ChangeKind, Signal, SourceChanged
from sourcebus.simulation.loop import Loop
from sourcebus.simulation.place import Celery, Place
from sourcebus.simulation.truth import SimChange
from sourcebus.simulation.wire import Wire
from sourcebus.simulation.world import SimSource, World

_PROVIDER_RETRIES_MS = (1_000, 5_000, 30_000, 120_000, 600_000)
"""A webhook that is not answered with 2xx is sent again after these; then the provider gives up."""


class Intake:
    """`outstanding` signals are on their way and not yet stored."""

    def __init__(self, world: World, loop: Loop, wire: Wire, celery: Celery, places: dict[str, Place]) -> None:
        self._world, self._loop, self._wire, self._celery, self._places = world, loop, wire, celery, places
        self._random = world.random("webhooks")
        self._epoch: int | None = None
        self._polling = True
        self.outstanding = 0

    # --- sources -------------------------------------------------------------------------------------------------

    def put(self, source: SimSource) -> None:
        """Adds a source, or changes what the bus knows of it."""
        place = self._places[source.id]
        added = not place.present
        place.source, place.present = source, True
        if added:
            place.held = False

        def register() -> None:
            self._register(place)
            if added and not source.known:
                self._scan(place, Signal.RECONCILE)

        self._insist(register)

    def remove(self, source_id: str) -> None:
        if self._places[source_id].present:
            self._places[source_id].forget()
            self._insist(lambda: self._gone(source_id))

    def _gone(self, source_id: str) -> None:
        if not self._places[source_id].present:
            self._wire.unregister(source_id)

    def hold(self, source_id: str, held: bool) -> None:
        place = self._places[source_id]
        if not place.present:
            return
        place.held = held

        def tell() -> None:
            try:
                self._celery.publish(self._wire.hold(source_id, place.held))
            except UnknownSource:
                pass  # lost with Redis's data: it is held again when it is registered

        self._insist(tell)

    def end_polls(self) -> None:
        self._polling = False
        for place in self._present():
            self._insist(lambda place=place: self._register(place))

    def _register(self, place: Place) -> None:
        if place.present:
            poll_ms = None if self._polling else 0.0
            self._celery.publish(self._wire.register(place.source, poll_ms=poll_ms, paused=place.held))

    def _present(self) -> list[Place]:
        return [place for place in self._places.values() if place.present]

    # --- signals -------------------------------------------------------------------------------------------------

    def changed(self, place: Place, change: SimChange) -> None:
        """The provider announces a change, or does not."""
        webhooks = place.source.webhooks
        if not place.present or not webhooks:
            return
        random = self._random
        if random.random() < webhooks.lost:
            return
        place.announced += 1
        event = SourceChanged(place.source.id, change.ref, ChangeKind.DELETED if change.gone else ChangeKind.UPDATED)
        for _ in range(2 if random.random() < webhooks.duplicated else 1):
            self.outstanding += 1
            self._loop.after(webhooks.delay.draw(random), lambda: self._deliver(event, 0))

    def _deliver(self, event: SourceChanged, tries: int) -> None:
        try:
            self.accept([event])
        except UnknownSource:
            pass  # removed meanwhile: 404
        except BusUnavailable:
            if tries < len(_PROVIDER_RETRIES_MS):
                self._loop.after(_PROVIDER_RETRIES_MS[tries], lambda: self._deliver(event, tries + 1))
                return
        self.outstanding -= 1

    def accept(self, events: Sequence[SourceChanged]) -> None:
        """`Intake.accept` of the product: a source that the bus lost is told to it again."""
        while True:
            try:
                self._celery.publish(self._wire.emit(events).invite)
                return
            except UnknownSource as error:
                if not self._places[error.source_id].present:
                    raise
                self._recover(self._places[error.source_id])

    def refresh(self, source_id: str, ref: str) -> None:
        try:
            self._celery.publish(self._wire.refresh(source_id, ref or None).invite)
        except (UnknownSource, BusUnavailable):
            pass  # the person is told

    def reconcile_later(self, source_id: str) -> None:
        """Slow scans beside whatever else announces the source's changes."""

        def scan() -> None:
            place = self._places[source_id]
            if self._polling and place.present:
                self._insist(lambda: self._scan(place, Signal.RECONCILE))
            if self._polling:
                self.reconcile_later(source_id)

        self._loop.after(self._places[source_id].source.reconcile_ms, scan)

    def _scan(self, place: Place, signal: Signal) -> None:
        if place.present:
            self.accept([SourceChanged(place.source.id, WHOLE_SOURCE, ChangeKind.SCAN, signal=signal)])

    def _insist(self, act: Callable[[], None]) -> None:
        """Until Redis takes it."""
        try:
            act()
        except BusUnavailable:
            self.outstanding += 1
            self._loop.after(1_000, lambda: self._again(act))

    def _again(self, act: Callable[[], None]) -> None:
        self.outstanding -= 1
        self._insist(act)

    # --- housekeeping --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        try:
            ticked = self._wire.tick()
            self._celery.publish(ticked.invite)
            if ticked.epoch != self._epoch:
                have = set(self._wire.source_ids())
                for place in self._present():
                    if place.source.id not in have:
                        self._recover(place)
                self._epoch = ticked.epoch
        except BusUnavailable:
            pass  # the next one

    def _recover(self, place: Place) -> None:
        self._register(place)
        self._scan(place, Signal.RECONCILE)
