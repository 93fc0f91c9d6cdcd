"""Prometheus objects made from `sourcebus.telemetry`: what this process counts, and what the parts say when asked.

Workers have no port to scrape: what they do is counted in the bus, so any one gateway tells of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sourcebus import telemetry
from sourcebus.bus import REASONS, SourceStats
from sourcebus.errors import SourcebusError
from sourcebus.freshness import Feeding, staleness_bound_s
from sourcebus.model import JsonObject
from sourcebus.runtime import Runtime
from sourcebus.telemetry import Metric

STATES: Final = ("idle", "ready", "waiting", "blocked")

Row = tuple[Metric, tuple[str, ...], float]
"""A metric, its labels (the source first, if it has any) and its value."""

_LARGEST: Final = (telemetry.OLDEST_DUE, telemetry.SERVICE, telemetry.STALENESS)
_SMALLEST: Final = (telemetry.LEARNED, telemetry.COVERAGE)
"""Of several sources under one label the largest or the smallest value is told; of all other metrics the sum."""

_log = structlog.get_logger(__name__)


class Metrics:
    """One gateway's metrics. `registry` is what `/metrics` writes down; nothing is registered globally."""

    def __init__(self, runtime: Runtime) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        requests, seconds = telemetry.HTTP_REQUESTS, telemetry.HTTP_SECONDS
        self._requests = Counter(requests.name, requests.help, requests.labels, registry=self.registry)
        self._seconds = Histogram(seconds.name, seconds.help, seconds.labels, buckets=seconds.buckets, registry=self.registry)
        self._measured: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        deliveries = telemetry.DELIVERIES
        self._deliveries = Counter(deliveries.name, deliveries.help, deliveries.labels, registry=self.registry)
        self._counters: dict[tuple[str, str], Counter] = {}
        self._most_sources = runtime.settings.metrics_sources
        self.registry.register(_Parts(runtime))

    def measure(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request answered. `route` is its template, so that ids in paths make no new series."""
        measured = self._measured.get((method, route, status))
        if measured is None:
            known = method if method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT") else "(other)"
            measured = self._requests.labels(known, route, str(status)), self._seconds.labels(route)
            if known == method:  # finding them by their labels costs more than counting
                self._measured[method, route, status] = measured
        requests, duration = measured
        requests.inc()
        duration.observe(seconds)

    def count_delivery(self, source_id: str, result: str) -> None:
        """One request to a source's hook, by what it was taken for."""
        counter = self._counters.get((source_id, result))
        if counter is None:
            own = any(known == source_id for known, _ in self._counters)
            room = own or len({known for known, _ in self._counters}) < self._most_sources
            label = source_id.encode("utf-8", "replace").decode() if room else telemetry.REST
            counter = self._deliveries.labels(label, result)
            if room:
                self._counters[source_id, result] = counter
        counter.inc()


class _Parts(Collector):
    """Asks the bus and the catalog at every scrape. A part that does not answer has `sourcebus_up` 0 and no other metric:
    a value from before would pass for one of now."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        rows: list[Row] = [(telemetry.UNLOGGED, (), self._runtime.hooks.log.not_logged)]
        for part, ask in (("bus", self._bus_rows), ("catalog", self._catalog_rows)):
            found = self._asked(part, ask)
            rows += [(telemetry.UP, (part,), float(found is not None)), *(found or ())]
        yield from _families(rows)

    def _asked(self, part: str, ask: Callable[[], list[Row]]) -> list[Row] | None:
        try:
            return ask()
        except SourcebusError as error:
            _log.warning("http_scrape_failed", part=part, error=str(error))
            return None

    def _bus_rows(self) -> list[Row]:
        ids = sorted(self._runtime.bus.source_ids())
        label = self._labels(ids)
        stats = [stat for stat in self._runtime.bus.stats(ids) if stat is not None]
        rows = [row for stat in stats for row in _rows_of(stat, label(stat.source_id))]
        for source_id, heard in zip(ids, self._runtime.bus.heard(ids), strict=True):
            if heard.coverage is not None:
                rows.append((telemetry.COVERAGE, (label(source_id),), heard.coverage))
        vitals = self._runtime.bus.vitals()
        rows += [(telemetry.CONSUMERS, (), vitals.consumers), (telemetry.WAITING, (), vitals.waiting)]
        return [(telemetry.SOURCES, (), float(len(ids))), *rows]

    def _catalog_rows(self) -> list[Row]:
        counts = self._runtime.catalog.counts()
        label = self._labels(sorted(counts))
        rows: list[Row] = []
        for source_id, count in counts.items():
            rows.append((telemetry.DOCUMENTS, (label(source_id),), count.get("documents", 0)))
            for state in ("indexed", "unreadable", "deleted"):
                rows.append((telemetry.OBJECTS, (label(source_id), state), count.get(state, 0)))
        for source_id, state in self._runtime.catalog.states(sorted(counts)).items():
            rows += _feed_rows(label(source_id), state.get("feed") or {})
        return rows

    def _labels(self, ids: list[str]) -> Callable[[str], str]:
        own = set(ids[: self._runtime.settings.metrics_sources])
        return lambda source_id: source_id if source_id in own else telemetry.REST


def _feed_rows(source: str, feed: JsonObject) -> Iterable[Row]:
    """From what the last listing of the whole source left in the catalog."""
    for feeding in Feeding:
        yield telemetry.FEED, (source, feeding.value), float(feed.get("mode", Feeding.POLL) == feeding)
    bound_s = staleness_bound_s(feed.get("interval_s", 0), feed.get("scan_s", 0), feed.get("queue_s", 0))
    if bound_s is not None:
        yield telemetry.STALENESS, (source,), bound_s


def _rows_of(stat: SourceStats, source: str) -> Iterable[Row]:
    for lane, count in (("live", stat.live), ("backfill", stat.backfill), ("manual", stat.manual)):
        yield telemetry.PENDING, (source, lane), count
    for state in STATES:
        yield telemetry.STATE, (source, state), float(stat.state == state)
    for reason in REASONS:
        yield telemetry.HELD_BACK, (source, reason), float(stat.reason == reason)
    for reason, waited_ms in stat.waited_ms.items():
        yield telemetry.WAITED, (source, reason), waited_ms / 1000
    for metric, value in (
        (telemetry.DELAYED, stat.delayed),
        (telemetry.IN_FLIGHT, stat.in_flight),
        (telemetry.DEAD, stat.dead),
        (telemetry.OLDEST_DUE, stat.oldest_due_s or 0.0),
        (telemetry.SERVICE, stat.service_ms / 1000),
        (telemetry.ACCEPTED, stat.accepted),
        (telemetry.MERGED, stat.merged),
        (telemetry.CLAIMED, stat.claimed),
        (telemetry.ACKED, stat.acked),
        (telemetry.NACKED, stat.nacked),
        (telemetry.REAPED, stat.reaped),
        (telemetry.OVERFLOWED, stat.overflowed),
        (telemetry.RERUNS, stat.reruns),
        (telemetry.THROTTLED, stat.throttled),
        (telemetry.LEARNED, stat.learned_share),
    ):
        yield metric, (source,), value


def _families(rows: Iterable[Row]) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    values: dict[Metric, dict[tuple[str, ...], float]] = {}
    for metric, labels, value in rows:
        seen = values.setdefault(metric, {})
        had = seen.get(labels)
        together = max if metric in _LARGEST else min if metric in _SMALLEST else add
        seen[labels] = value if had is None else together(had, value)
    for metric, seen in values.items():
        make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = make(metric.name, metric.help, labels=metric.labels)
        for labels, value in seen.items():
            family.add_metric([label.encode("utf-8", "replace").decode() for label in labels], value)
        yield family
