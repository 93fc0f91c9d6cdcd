"""The composition root: the one place where the parts are put together. There are no global application objects.

A `Runtime` belongs to one process. It opens nothing that crosses a fork; a forked worker builds its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sourcebus.bus import Bus
from sourcebus.catalog import Catalog
from sourcebus.clock import Clock, SystemClock
from sourcebus.connectors import Connector, UsesDepot, registry
from sourcebus.consumer import Bound, Feed, Pipeline, Scan, Shift, ShiftLimits, SubscriptionUpkeep
from sourcebus.desk import Desk
from sourcebus.intake import Hooks, Housekeeping, Intake, Sources, Subscriptions, WatchRunner
from sourcebus.model import Source, SourceChanged
from sourcebus.settings import Settings
from sourcebus.sinks import Sink

Invite = Callable[[Sequence[int]], None]
"""Publishes invitations on Celery; see DESIGN §5."""

_BINDING_MS = 1_000


def _no_invitations(tokens: Sequence[int]) -> None:
    """A process without Celery: a waiting consumer is woken by the bus itself, and the tick calls for one otherwise."""


class Bindings:
    """Connectors by source, made once and made anew when the source was changed. Safe between threads."""

    def __init__(self, catalog: Catalog, connect: Callable[[Source], Connector], clock: Clock) -> None:
        self._catalog, self._connect, self._clock = catalog, connect, clock
        self._lock = threading.Lock()
        self._bound: dict[str, tuple[float, Bound]] = {}

    def get(self, source_id: str) -> Bound:
        """At most a second behind the catalog. UnknownSource, CatalogUnavailable, InvalidInput (a config refused now)."""
        return self._get(source_id, _BINDING_MS)

    def newest(self, source_id: str) -> Bound:
        """As the catalog has it now; raises as `get` does."""
        return self._get(source_id, 0)

    def _get(self, source_id: str, behind_ms: float) -> Bound:
        now_ms = self._clock.monotonic_ms()
        with self._lock:
            looked_ms, bound = self._bound.get(source_id, (0.0, None))
            if bound and now_ms - looked_ms < behind_ms:
                return bound
            source = self._catalog.source(source_id)
            if bound is None or bound.source != source:
                # the old one is not closed here: another thread may be in the middle of an extraction with it
                bound = Bound(source, self._connect(source))
            self._bound[source_id] = (now_ms, bound)
            return bound

    def close(self) -> None:
        with self._lock:
            for _looked_ms, bound in self._bound.values():
                bound.connector.close()
            self._bound.clear()


@dataclass(frozen=True)
class Runtime:
    """The parts of one process, ready to use. A context manager; `close` lets go of connections."""

    settings: Settings
    clock: Clock
    bus: Bus
    catalog: Catalog
    bindings: Bindings
    sources: Sources
    subscriptions: Subscriptions
    intake: Intake
    hooks: Hooks
    desk: Desk
    housekeeping: Housekeeping
    invite: Invite
    sinks: Sequence[Sink]

    def watches(self) -> WatchRunner:
        """Turns what sources push into signals until stopped; see `WatchRunner.run`."""
        return WatchRunner(self.catalog, self.intake, _connecting(self.catalog), self.settings.watch_step_ms)

    def shift(self, stopping: Callable[[], bool] = lambda: False) -> Shift:
        """A consumer for one worker slot."""
        settings = self.settings
        pipeline = Pipeline(
            self.bus,
            self.catalog,
            self.bindings,
            Scan(
                self.catalog,
                self._store,
                self.clock,
                settings.delete_share,
                slice_ms=settings.slice_ms,
                stopping=stopping,
            ),
            SubscriptionUpkeep(self.catalog, self._store, self.clock, self.hook_url),
            Feed(self.bus, self.catalog, self.clock, self._store, subscribing=self.hook_url is not None),
            self.clock,
            commit_ms=settings.commit_ms,
            sinks=self.sinks,
            invite=self.invite,
            wait=threading.Event().wait,
        )
        limits = ShiftLimits(**{name: getattr(settings, name) for name in ShiftLimits.__dataclass_fields__})
        return Shift(
            self.bus,
            pipeline,
            limits=limits,
            invite=self.invite,
            stopping=stopping,
            housekeep=self.housekeeping,
            clock=self.clock,
        )

    @property
    def hook_url(self) -> Callable[[str], str] | None:
        """Gives the public address that a source's provider delivers to; None: this installation has none."""
        if self.settings.public_url is None:
            return None
        return lambda source_id: self.sources.hook_url(self.catalog.source(source_id)) or ""

    def _store(self, events: Sequence[SourceChanged]) -> None:
        self.intake.accept(events)

    def close(self) -> None:
        self.hooks.close()
        self.bindings.close()
        self.bus.close()
        self.catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _connecting(catalog: Catalog) -> Callable[[Source], Connector]:
    """Makes a fresh connector for a source; InvalidInput where its kind or config is refused."""

    def connect(source: Source) -> Connector:
        connector = _create(source.connector, source.config, source.secret)
        if isinstance(connector, UsesDepot):
            connector.use_depot(catalog.depot(source.id))
        return connector

    return connect


def _create(name: str, config: Mapping[str, Any], secret: str | None) -> Connector:
    return registry.create(name, config, secret)


def build(settings: Settings, *, invite: Invite | None = None, sinks: Sequence[Sink] = ()) -> Runtime:
    """Puts one process together; `sinks` get the documents besides the built-in index.

    Opens the database and brings its schema up to date; Redis is reached when first used.
    """
    invite = invite or _no_invitations
    clock = SystemClock()
    bus = Bus.from_url(settings.redis_url, name=settings.bus_name)
    key = settings.secret_key.get_secret_value() if settings.secret_key else None
    catalog = Catalog.open(settings.database_url, secret_key=key)
    connect = _connecting(catalog)

    def accept(events: Sequence[SourceChanged]) -> object:
        return intake.accept(events)  # which needs the sources, whose own signals come in by it too

    subscriptions = Subscriptions(catalog, accept, clock, connect, settings.public_url)
    sources = Sources(catalog, bus, _create, invite, accept, subscriptions, public_url=settings.public_url or settings.api_url)
    intake = Intake(bus, sources, clock, invite)
    bindings = Bindings(catalog, connect, clock)
    hooks = Hooks(
        catalog,
        bus,
        intake,
        clock,
        bindings.newest,
        subscriptions.heard,
        most_seen=settings.hook_seen,
        keep_logged=settings.hook_log,
    )
    return Runtime(
        settings=settings,
        clock=clock,
        bus=bus,
        catalog=catalog,
        bindings=bindings,
        sources=sources,
        subscriptions=subscriptions,
        intake=intake,
        hooks=hooks,
        desk=Desk(bus, catalog, connect, settings.data_dir),
        housekeeping=Housekeeping(
            bus, catalog, sources, subscriptions, clock, invite, stay_warm=settings.waiting_consumers > 0
        ),
        invite=invite,
        sinks=[*sinks, *_configured_sinks(settings)],
    )


def _configured_sinks(settings: Settings) -> list[Sink]:
    if settings.sink_url is None:
        return []
    from sourcebus.sinks.http import HttpSink  # only those who post documents pay for an HTTP client

    return [HttpSink(settings.sink_url)]
