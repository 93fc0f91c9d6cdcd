"""What has to happen about once a second, whoever calls it: beat's tick, or a consumer while it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog

from sourcebus.bus import Bus
from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.errors import CatalogError
from sourcebus.intake.sources import Sources
from sourcebus.intake.subscriptions import Subscriptions

_log = structlog.get_logger(__name__)

_MAINTAIN_MS = 60_000
_LEAST_GAP_MS = 500


class Housekeeping:
    """The bus's tick, subscriptions that are due, recovery after Redis lost its data, and the catalog's maintenance.

    Cheap to call too often.
    """

    def __init__(
        self,
        bus: Bus,
        catalog: Catalog,
        sources: Sources,
        subscriptions: Subscriptions,
        clock: Clock,
        invite: Callable[[Sequence[int]], None],
        *,
        stay_warm: bool,
    ) -> None:
        self._bus, self._catalog, self._sources, self._clock, self._invite = bus, catalog, sources, clock, invite
        self._subscriptions = subscriptions
        self._stay_warm = stay_warm
        self._lock = threading.Lock()
        self._epoch: int | None = None
        self._ticked_ms = self._maintained_ms = float("-inf")

    def __call__(self) -> None:
        """Raises `BusUnavailable`; trouble with the catalog is logged and tried again next time."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._ticked_ms < _LEAST_GAP_MS or not self._lock.acquire(blocking=False):
            return
        try:
            self._ticked_ms = now_ms
            ticked = self._bus.tick(stay_warm=self._stay_warm)
            self._invite(ticked.invite)
            if ticked.epoch != self._epoch:
                self._recover(ticked.epoch)
            self._subscriptions.look()
            if now_ms - self._maintained_ms > _MAINTAIN_MS:
                self._maintained_ms = now_ms
                self._catalog.maintain()
        except CatalogError as error:
            _log.warning("catalog_unavailable", error=str(error))
        finally:
            self._lock.release()

    def again(self) -> None:
        """All of it now, however long ago it was done last. Raises as a call does."""
        self._ticked_ms = float("-inf")
        self._subscriptions.look_again()
        self()

    def _recover(self, epoch: int) -> None:
        recovered = self._sources.recover_all()
        if recovered:
            _log.warning("bus_lost_its_data", sources_recovered=recovered)
        self._epoch = epoch
