"""Every metric and every log event by name, in one list; and the one place where logging is set up.

A metric here is data. Who can measure it (the gateway, from the bus and the catalog, when it is scraped) makes the
Prometheus object from it. `docs/metrics.md` has both lists; a test keeps them equal.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import structlog

from sourcebus.settings import Settings

# ------------------------------------------------------------------------------------------------ metrics


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. A counter's `name` ends in ``_total``; units are in the name, in base units (seconds, bytes)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, in the unit of the name."""


_SOURCE = ("source",)

HTTP_REQUESTS: Final = Metric(
    "sourcebus_http_requests_total", "counter", "HTTP requests answered", ("method", "route", "status")
)
HTTP_SECONDS: Final = Metric(
    "sourcebus_http_request_duration_seconds",
    "histogram",
    "time from the request line to the end of the answer",
    ("route",),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)

DELIVERIES: Final = Metric(
    "sourcebus_deliveries_total",
    "counter",
    "requests to a source's hook, by what they were taken for: stored, duplicate, handshake, nothing, unverified, invalid, "
    "refused or failed",
    ("source", "result"),
)
UNLOGGED: Final = Metric(
    "sourcebus_deliveries_not_logged_total", "counter", "deliveries that came faster than the deliveries log takes them"
)

UP: Final = Metric(
    "sourcebus_up", "gauge", "1 if the part answers, 0 if not; its other metrics are absent while it is 0", ("part",)
)
SOURCES: Final = Metric("sourcebus_sources", "gauge", "registered sources")
PENDING: Final = Metric(
    "sourcebus_pending_objects",
    "gauge",
    "objects that wait to be processed, by lane (live, backfill, manual)",
    ("source", "lane"),
)
DELAYED: Final = Metric("sourcebus_delayed_objects", "gauge", "objects that wait for their window or back-off to end", _SOURCE)
IN_FLIGHT: Final = Metric("sourcebus_in_flight_objects", "gauge", "objects being processed under a live lease", _SOURCE)
DEAD: Final = Metric("sourcebus_dead_letters", "gauge", "objects given up after all attempts, with their error", _SOURCE)
OLDEST_DUE: Final = Metric(
    "sourcebus_oldest_due_age_seconds", "gauge", "how long the object that is due longest has waited; 0 if none is due", _SOURCE
)
STATE: Final = Metric(
    "sourcebus_source_state",
    "gauge",
    "1 for the state that the source is in: idle, ready, waiting or blocked",
    ("source", "state"),
)
SERVICE: Final = Metric("sourcebus_service_seconds", "gauge", "mean time that a worker spends on one object", _SOURCE)
ACCEPTED: Final = Metric("sourcebus_events_accepted_total", "counter", "events stored as a new pending object", _SOURCE)
MERGED: Final = Metric(
    "sourcebus_events_merged_total", "counter", "events that joined one already pending or in flight", _SOURCE
)
CLAIMED: Final = Metric("sourcebus_claims_total", "counter", "leases handed out", _SOURCE)
ACKED: Final = Metric("sourcebus_acks_total", "counter", "leases that ended in success", _SOURCE)
NACKED: Final = Metric("sourcebus_nacks_total", "counter", "leases that ended in a failure or were put off", _SOURCE)
REAPED: Final = Metric("sourcebus_leases_lost_total", "counter", "leases that ran out: a worker died or stood still", _SOURCE)
OVERFLOWED: Final = Metric(
    "sourcebus_overflows_total", "counter", "times that a list of pending objects became one rescan", _SOURCE
)
RERUNS: Final = Metric(
    "sourcebus_reruns_total", "counter", "objects looked at once more because a change came while they were in flight", _SOURCE
)
THROTTLED: Final = Metric(
    "sourcebus_throttled_total", "counter", "leases that ended in a provider's 429, which pauses", _SOURCE
)
WAITED: Final = Metric(
    "sourcebus_waited_seconds_total",
    "counter",
    "time with work that could not run, by reason (tokens, provider_pause, cap, window, no_worker); "
    "window is added up over objects",
    ("source", "reason"),
)
HELD_BACK: Final = Metric(
    "sourcebus_source_held_back",
    "gauge",
    "1 for what holds the source's work back now: tokens, provider_pause, out_of_reach, cap, window_or_backoff "
    "(its own gates), no_worker, workers_busy (want of workers) or paused",
    ("source", "reason"),
)
LEARNED: Final = Metric(
    "sourcebus_learned_rate_share", "gauge", "share of its configured rate that the source uses; below 1 after a 429", _SOURCE
)
COVERAGE: Final = Metric(
    "sourcebus_webhook_coverage",
    "gauge",
    "share of the changes that some webhook announced, over eight reconcile intervals; absent while there were none",
    _SOURCE,
)
FEED: Final = Metric(
    "sourcebus_source_feed",
    "gauge",
    "1 for how changes become known: poll, push, or fallback (polled because its webhooks cannot be relied on)",
    ("source", "feed"),
)
STALENESS: Final = Metric(
    "sourcebus_staleness_bound_seconds",
    "gauge",
    "within this time a change that nobody announces is found; absent where the source is never listed",
    _SOURCE,
)
CONSUMERS: Final = Metric("sourcebus_consumers", "gauge", "live consumers: worker slots that work or wait for work")
WAITING: Final = Metric("sourcebus_waiting_consumers", "gauge", "consumers that wait for work")
OBJECTS: Final = Metric(
    "sourcebus_catalog_objects",
    "gauge",
    "objects by what is known of them: indexed, unreadable or deleted",
    ("source", "state"),
)
DOCUMENTS: Final = Metric("sourcebus_catalog_documents", "gauge", "searchable documents", _SOURCE)

METRICS: Final[tuple[Metric, ...]] = (
    HTTP_REQUESTS,
    HTTP_SECONDS,
    DELIVERIES,
    UNLOGGED,
    UP,
    SOURCES,
    PENDING,
    DELAYED,
    IN_FLIGHT,
    DEAD,
    OLDEST_DUE,
    STATE,
    SERVICE,
    ACCEPTED,
    MERGED,
    CLAIMED,
    ACKED,
    NACKED,
    REAPED,
    OVERFLOWED,
    RERUNS,
    THROTTLED,
    WAITED,
    HELD_BACK,
    LEARNED,
    COVERAGE,
    FEED,
    STALENESS,
    CONSUMERS,
    WAITING,
    OBJECTS,
    DOCUMENTS,
)

REST: Final = "(other)"
"""The `source` label under which the sources beyond `Settings.metrics_sources` are added up."""

# ------------------------------------------------------------------------------------------------ log events

EVENTS: Final[Mapping[str, str]] = {
    "bus_lost_its_data": "Redis came back empty: every source was registered again and is looked through",
    "bus_unavailable": "Redis did not answer; the work goes on when it does",
    "catalog_unavailable": "the database did not answer; what was claimed is given back",
    "connectors.listing_incomplete": "a part of a folder could not be read, so this pass deletes nothing",
    "connectors.mailbox_unreadable": "a mailbox is there and cannot be opened, so this pass deletes nothing of it",
    "connectors.mailbox_watch_lost": "an IMAP connection that listened was lost; it is made anew, and its mailbox is scanned",
    "connectors.message_unread": "a message of a queue makes no sense; it is deleted and the source is listed",
    "connectors.messages_kept": "messages could not be deleted from a queue; they come again",
    "connectors.mirror_remade": "the local copy of a git repository was damaged or could not be updated, and is made anew",
    "connectors.name_unusable": "an object is left out: its name cannot be written as a path",
    "connectors.queue_silent": "a queue did not answer; it is asked again",
    "connectors.path_too_long": "a file is left out: its path is longer than a reference may be",
    "connectors.root_back": "a source's folder is there again",
    "connectors.root_missing": "a source's folder is not there",
    "connectors.watch_limit": "the system has no watches left for all folders; they are looked through on a timer",
    "connectors.watch_overflow": "the system lost change messages; the whole source is listed again",
    "connectors.watch_refused": "the system does not let a folder be watched; it is looked through on a timer",
    "connectors.watching": "a source's folder is being watched",
    "cursor_expired": "a change feed cannot go on from where it was; the scope is listed as a whole",
    "deletes_held": "a listing would delete more of a source than it may; nothing was deleted",
    "deliveries_not_logged": "lines of the deliveries log could not be stored; the events of those deliveries are",
    "deliveries_refused": "a source's hook refuses what is sent to it; at most one line a minute and source",
    "extraction_failed": "an object could not be extracted; it is tried again, or is a dead letter now",
    "extraction_timeout": "an extraction runs longer than it may; its lease is given up",
    "heartbeat_failed": "leases could not be extended",
    "hook_unusable": "a source's hook cannot be used because of how the source is set; its deliveries are answered 503",
    "http_error": "a request failed in a way nobody foresaw; `error_id` is what the client was told",
    "http_hook_failed": "events were stored, but what should happen right afterwards failed; the tick makes up for it",
    "http_scrape_failed": "a part did not answer while metrics were collected",
    "invitation_not_published": "Celery's broker did not take an invitation; the tick makes up for it",
    "quota_not_understood": "a provider's word on what is left of its quota makes no sense; it is left aside",
    "signal_not_stored_yet": "a watch could not store a change; it tries again until it is stored",
    "source_not_recovered": "a source that Redis lost could not be registered again",
    "source_recovered": "a source that Redis lost is registered again and looked through",
    "state_not_written": "a fact about a source could not be stored",
    "storage_full": "the disk or the database is full; events wait",
    "story_not_written": "a line of an object's story could not be stored",
    "subscribed": "a provider has promised to send webhooks",
    "subscription_failed": "a provider could not be subscribed to; it is tried again",
    "subscription_lost": "a provider has ended a subscription; a new one is made and the gap looked through",
    "subscription_not_cancelled": "an old subscription could not be cancelled; it ends by itself",
    "watch_failed": "a watch ended with an error; it is begun again",
    "watch_not_possible": "a source cannot be watched as it is configured",
    "webhooks_not_relied_on": "a source falls back to polling: webhooks do not announce what they should, or are silent",
    "webhooks_relied_on": "webhooks announce a source's changes; it is listed only slowly beside them",
}
"""Log event name → when it is written. A test holds it against the code."""

# ------------------------------------------------------------------------------------------------ logging

HIDDEN: Final = "***"

_SECRET_NAME = re.compile(
    r"secret|passw|passphrase|token(?!s)|api_?key|authorization|cookie|credential|private_key|dsn", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/@:]*):([^\s@]+)@")
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]+", re.IGNORECASE)


def hide_secrets(value: object, name: str = "") -> object:
    """`value` as it may be shown: what stands under a secret's name, passwords in URLs and bearer keys become ``***``."""
    if name and value is not None and _SECRET_NAME.search(name) and not isinstance(value, bool):
        return HIDDEN
    if isinstance(value, str):
        return _BEARER.sub(rf"\1 {HIDDEN}", _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", value))
    if isinstance(value, Mapping):
        return {key: hide_secrets(item, str(key)) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [hide_secrets(item) for item in cast("list[object]", value)]
    return value


def configure_logging(settings: Settings) -> None:
    """Sends everything that is logged, also by libraries, to standard error: text for people, or one JSON object a line.

    May be called again; the last call counts. Tracebacks are shown without local variables, and nothing secret is shown.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _hide,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())


def _renderer(settings: Settings) -> structlog.types.Processor:
    if settings.log_json:
        return structlog.processors.JSONRenderer(default=repr, ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _hide(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {name: value if name.startswith("_") else hide_secrets(value, name) for name, value in event.items()}
