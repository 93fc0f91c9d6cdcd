"""The front desk: what people look at. Reads the bus and the catalog side by side; changes nothing.

What is not known is said to be unknown; "the last scan went well" is never passed off as freshness.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from sourcebus.bus import Bus, Heard, SourceStats
from sourcebus.catalog import Catalog, Subscribed, Upkeep
from sourcebus.connectors import Connector
from sourcebus.errors import BusError, CatalogError, ConnectorError, InvalidInput
from sourcebus.freshness import JITTER, Feeding, staleness_bound_s
from sourcebus.model import SECRET_HERE, Change, JsonObject, Source, Version, from_ms

_SEEN_WITHIN_MS = 30_000
_PAGE = 500
_FEW = 50
"""So many objects are done in a moment: no progress is shown for them, and live changes are not taken for a scan's rest."""
_LEAST_FREE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked. `ok` None: could not be found out. `fix` says what to do where it is not good."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


@dataclass(slots=True)
class Verified:
    """The source held against the index, object by object: in the source but not indexed, indexed in another version,
    indexed but not in the source any more. `unreadable` are those that were looked at and cannot be extracted; they are no
    difference."""

    checked: int = 0
    missing: list[str] = field(default_factory=list[str])
    stale: list[str] = field(default_factory=list[str])
    orphaned: list[str] = field(default_factory=list[str])
    unreadable: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return not (self.missing or self.stale or self.orphaned)


class Desk:
    """`connect` makes a fresh connector for a source; `data_dir` is where the disk must have room."""

    def __init__(self, bus: Bus, catalog: Catalog, connect: Callable[[Source], Connector], data_dir: Path) -> None:
        self._bus, self._catalog, self._connect, self._data_dir = bus, catalog, connect, data_dir

    # --- status --------------------------------------------------------------------------------------------------

    def status(self, source_ids: Sequence[str] | None = None, workspace: str | None = None) -> list[JsonObject]:
        """How sources stand, ordered by id: backlog and reason from the bus, counts and last scan from the catalog."""
        sources = self._sources(source_ids, workspace)
        ids = [source.id for source in sources]
        counts, states = self._catalog.counts(ids), self._catalog.states(ids)
        return [
            self._line(source, stats, counts.get(source.id, {}), states.get(source.id, {}), heard)
            for source, stats, heard in zip(sources, self._bus.stats(ids), self._bus.heard(ids), strict=True)
        ]

    def _sources(self, source_ids: Sequence[str] | None, workspace: str | None) -> list[Source]:
        if source_ids is not None:
            return [self._catalog.source(source_id) for source_id in source_ids]
        found: list[Source] = []
        while page := self._catalog.sources(workspace=workspace, after=found[-1].id if found else None):
            found += page
        return found

    def _line(
        self, source: Source, stats: SourceStats | None, counts: dict[str, int], state: JsonObject, heard: Heard
    ) -> JsonObject:
        line: JsonObject = {
            "id": source.id,
            "connector": source.connector,
            "workspace": source.workspace,
            "mode": source.mode.value,
            "state": stats.state if stats else "unknown",
            "reason": stats.reason if stats else "the bus does not know it yet",
            "why": stats.why if stats else "the bus does not know it yet",
            "until": from_ms(stats.until_ms).isoformat() if stats and stats.until_ms else None,
            "pending": stats.pending if stats else None,
            "in_flight": stats.in_flight if stats else None,
            "dead": stats.dead if stats else None,
            "oldest_due_at": from_ms(stats.oldest_due_ms).isoformat() if stats and stats.oldest_due_ms else None,
            "indexed": counts.get("indexed", 0),
            "unreadable": counts.get("unreadable", 0),
            "documents": counts.get("documents", 0),
            "last_scan_at": from_ms(state["last_scan_at_ms"]).isoformat() if "last_scan_at_ms" in state else None,
            "last_scan": state.get("last_scan"),
            "error": state.get("error"),
            "held": state.get("held"),
        }
        line |= _feed(stats, state, heard)
        return line | {"progress": _progress(stats, counts, cast("JsonObject", state.get("last_scan") or {}))}

    def staleness(self, source_id: str) -> JsonObject:
        """Within how many seconds a change that nobody announces is found, at most, and what that is made of."""
        source = self._catalog.source(source_id)
        feed = cast("JsonObject", self._catalog.state(source_id).get("feed") or {})
        return _staleness(self._bus.stats([source.id])[0], feed)

    def subscriptions(
        self,
        workspace: str | None = None,
        after: str | None = None,
        limit: int = 1000,
        *,
        reveal: bool = False,
    ) -> tuple[list[JsonObject], str | None]:
        """A line for each subscription, and for each source that wants one and has none; and where the next page begins.

        `reveal` fills in the secret where a person has to paste it at the provider: for the server's own command line only.
        """
        found = self._catalog.upkeep.listed(workspace, after, limit)
        ids = [upkeep.source_id for upkeep, _ in found]
        lines: list[JsonObject] = []
        for (upkeep, known), heard in zip(found, self._bus.heard(ids), strict=True):
            coverage = heard.coverage
            common: JsonObject = {
                "last_delivery_at": from_ms(heard.last_ms).isoformat() if heard.last_ms else None,
                "webhook_coverage": None if coverage is None else round(coverage, 4),
                "error": upkeep.error,
            }
            made = [_subscription(upkeep, one) | common for one in known or [None]]
            lines += [line | {"to_do": self._to_do(line, reveal)} for line in made]
        return lines, ids[-1] if len(ids) == limit else None

    def _to_do(self, line: JsonObject, reveal: bool) -> str | None:
        text: str | None = line["to_do"]
        if text is None or SECRET_HERE not in text:
            return text
        if not reveal:
            return text.replace(SECRET_HERE, "(sourcebus subscriptions shows it on the server)")
        known = {one.id: one.secret for one in self._catalog.subscriptions(line["source_id"])}
        return text.replace(SECRET_HERE, known.get(line["id"]) or "(it is gone)")

    # --- one object ----------------------------------------------------------------------------------------------

    def why(self, source_id: str, object_ref: str) -> list[JsonObject]:
        """The object's story, newest first; what the bus knows of it now comes first."""
        self._catalog.source(source_id)
        story = [
            {"at": from_ms(line.at_ms).isoformat(), "what": line.what} | line.detail
            for line in self._catalog.story(source_id, object_ref)
        ]
        peek = self._bus.peek(source_id, object_ref)
        if peek.state in ("absent", "cooling") and not peek.dead_letter:
            return story
        now: JsonObject = {
            "at": None,
            "what": "now",
            "state": peek.state,
            "attempts": peek.attempts,
            "newer_change": peek.dirty,
        }
        if peek.since_ms and peek.state != "cooling":
            now["since"] = from_ms(peek.since_ms).isoformat()
        if peek.at_ms:
            now["due"] = from_ms(peek.at_ms).isoformat()
        if peek.dead_letter:
            now["dead_letter"] = peek.dead_letter
        return [now, *story]

    # --- verify --------------------------------------------------------------------------------------------------

    def verify(self, source_id: str, on_progress: Callable[[int], None] | None = None) -> Verified:
        """Lists the source completely and compares it with the index. `on_progress` gets the number checked so far.

        Raises `ConnectorError` where the source cannot be listed. What changes meanwhile may show as a difference.
        """
        source = self._catalog.source(source_id)
        connector = self._connect(source)
        result, seen, page = Verified(), set[str](), list[Change]()
        try:
            for item in connector.changes(None):
                if isinstance(item, Change):
                    page.append(item)
                if len(page) >= _PAGE:
                    self._compare(source_id, connector, page, seen, result)
                    page.clear()
                    if on_progress:
                        on_progress(result.checked)
            self._compare(source_id, connector, page, seen, result)
            self._compare_unlisted(source_id, connector, seen, result)
        finally:
            connector.close()
        if on_progress:
            on_progress(result.checked)
        return result

    def _compare(self, source_id: str, connector: Connector, page: Sequence[Change], seen: set[str], result: Verified) -> None:
        known = self._catalog.versions([(source_id, change.object_ref) for change in page])
        for change in page:
            ref = change.object_ref
            seen.add(ref)
            result.checked += 1
            version = known.get((source_id, ref))
            if version is None or version.state == "deleted":
                if connector.version(ref) is not None:
                    result.missing.append(ref)
                continue
            if version.state == "unreadable":
                result.unreadable.append(ref)
            if self._differs(connector, change, version):
                result.stale.append(ref)

    @staticmethod
    def _differs(connector: Connector, change: Change, known: Version) -> bool:
        if change.fingerprint is not None and change.fingerprint == known.fingerprint:
            return False
        try:
            return connector.version(change.object_ref) != known.version
        except ConnectorError:
            return known.state != "unreadable"

    def _compare_unlisted(self, source_id: str, connector: Connector, seen: set[str], result: Verified) -> None:
        """What is indexed and was not listed: gone, or the source lists only a part, or cannot list at all."""
        after = None
        while page := self._catalog.objects(source_id, after=after, limit=5_000):
            for ref, known in page:
                if ref in seen:
                    continue
                result.checked += 1
                version = connector.version(ref)
                if version is None:
                    result.orphaned.append(ref)
                elif version != known.version:
                    result.stale.append(ref)
            after = page[-1][0]

    # --- health --------------------------------------------------------------------------------------------------

    def health(self) -> list[Check]:
        """What must be true for changes to become searchable: Redis, the database, a consumer, housekeeping."""
        return [*self._bus_health(), self._database()]

    def _bus_health(self) -> list[Check]:
        try:
            vitals = self._bus.vitals()
        except BusError as error:
            down = Check("redis", False, str(error), "start Redis or Valkey, or set SOURCEBUS_REDIS_URL")
            return [
                down,
                Check("worker", None, "unknown while Redis is down"),
                Check("beat", None, "unknown while Redis is down"),
            ]
        ticked = vitals.ticked_ms
        quiet_s = None if ticked is None else (vitals.now_ms - ticked) / 1000
        return [
            Check("redis", True, "answers"),
            Check(
                "worker",
                vitals.consumers > 0,
                f"{vitals.consumers} consumers live, {vitals.waiting} waiting for work",
                "celery -A sourcebus.worker worker",
            ),
            Check(
                "beat",
                quiet_s is not None and quiet_s * 1000 < _SEEN_WITHIN_MS,
                "never seen" if quiet_s is None else f"housekeeping was done {quiet_s:.0f} s ago",
                "celery -A sourcebus.worker beat",
            ),
        ]

    def _database(self) -> Check:
        try:
            self._catalog.ping()
        except CatalogError as error:
            return Check("database", False, str(error), "check SOURCEBUS_DATABASE_URL")
        return Check("database", True, "answers")

    def doctor(self) -> list[Check]:
        """`health`, and whether the server's settings keep what the bus promises (docs/bus.md)."""
        checks = self.health()
        if checks[0].ok:
            checks += _server_checks(self._bus.server_info())
        checks.append(self._disk())
        return checks + [self._source(source) for source in self._sources_or_none()] + self._subscription_checks()

    def _subscription_checks(self) -> list[Check]:
        """Only those that are not well: most sources have none."""
        try:
            lines, _ = self.subscriptions()
        except (BusError, CatalogError):
            return []
        dead = [line for line in lines if line["state"] not in ("living", "wanted") or line["error"]]
        fix = "its provider may refuse it: sourcebus subscriptions shows the error; the source is polled meanwhile"
        return [
            Check(f"subscription of {line['source_id']}", False, f"{line['state']}: {line['error'] or line['id']}", fix)
            for line in dead
        ]

    def _sources_or_none(self) -> list[Source]:
        try:
            return self._sources(None, None)
        except CatalogError:
            return []

    def _source(self, source: Source) -> Check:
        name = f"source {source.id}"
        try:
            self._connect(source).close()
        except InvalidInput as error:
            return Check(name, False, str(error), f"sourcebus source set {source.id}")
        state = self._catalog.state(source.id)
        if error := state.get("error"):
            return Check(name, False, str(error).rstrip("."), f"sourcebus status {source.id} says when it is tried again")
        if held := state.get("held"):
            return Check(
                name, False, f"{held['count']} of {held['of']} deletes are held", f"sourcebus source release {source.id}"
            )
        return Check(name, True, source.connector)

    def _disk(self) -> Check:
        try:
            free = shutil.disk_usage(self._data_dir if self._data_dir.exists() else self._data_dir.parent).free
        except OSError as error:
            return Check("disk", None, str(error))
        fix = "make room: events wait while the disk is full, none is lost"
        return Check("disk", free >= _LEAST_FREE_BYTES, f"{free // 2**20} MiB free", fix)


def _feed(stats: SourceStats | None, state: JsonObject, heard: Heard) -> JsonObject:
    """How a source's changes become known, the share that webhooks announced, and by when the others are found."""
    feed = cast("JsonObject", state.get("feed") or {})
    coverage = heard.coverage
    return {
        "feed": feed.get("mode", Feeding.POLL.value),
        "feed_reason": feed.get("reason") or None,
        "last_heard_at": from_ms(heard.last_ms).isoformat() if heard.last_ms else None,
        "webhook_coverage": None if coverage is None else round(coverage, 4),
        "webhook_changes": heard.announced + heard.missed,
    } | _staleness(stats, feed)


def _staleness(stats: SourceStats | None, feed: JsonObject) -> JsonObject:
    """As it was at the last listing of the whole source: before the first nothing is known."""
    interval_s, scan_s = float(feed.get("interval_s", 0)), float(feed.get("scan_s", 0))
    queue_s = max(float(feed.get("queue_s", 0)), (stats and stats.oldest_due_s) or 0.0)
    bound_s = staleness_bound_s(interval_s, scan_s, queue_s)
    return {
        "staleness_bound_s": None if bound_s is None else round(bound_s, 3),
        "staleness": {
            "interval_s": round(interval_s * JITTER, 3),
            "scan_s": scan_s,
            "queue_s": round(queue_s, 3),
            "present_interval_s": feed.get("every_s"),
        },
    }


def _subscription(upkeep: Upkeep, known: Subscribed | None) -> JsonObject:
    now = datetime.now(UTC)
    line: JsonObject = {
        "source_id": upkeep.source_id,
        "id": None,
        "state": "wanted" if upkeep.error is None else "failing",
        "expires_at": None,
        "renew_at": None,
        "made_at": None,
        "to_do": None,
    }
    if known is None:
        return line
    expires_ms = known.subscription.expires_at_ms
    return line | {
        "id": known.subscription.id,
        "state": "ended" if expires_ms is not None and from_ms(expires_ms) <= now else "living",
        "expires_at": None if expires_ms is None else from_ms(expires_ms).isoformat(),
        "renew_at": None if known.renew_at_ms is None else from_ms(known.renew_at_ms).isoformat(),
        "made_at": from_ms(known.made_at_ms).isoformat(),
        "to_do": known.subscription.state.get("to_do"),
    }


def _server_checks(info: dict[str, Any]) -> list[Check]:
    valkey = info.get("valkey_version")
    version = str(valkey or info.get("redis_version", "0"))
    least = (7, 2) if valkey else (6, 2)
    have = tuple(int(part) for part in version.split(".")[:2])
    product = "Valkey" if valkey else "Redis"
    needs = f"{product} {least[0]}.{least[1]} or newer"
    policy, append = info.get("maxmemory-policy"), info.get("appendonly")
    unknown = "the server does not let its settings be read"
    return [
        Check("server version", have >= least, f"{product} {version}", needs),
        Check(
            "eviction",
            None if policy is None else policy == "noeviction",
            str(policy or unknown),
            "set maxmemory-policy noeviction: any other loses events without a word when memory runs out",
        ),
        Check(
            "persistence",
            None if append is None else append == "yes",
            unknown if append is None else f"appendonly {append}",
            "set appendonly yes; without it a restart forgets what is pending and every source is scanned again",
        ),
    ]


def _progress(stats: SourceStats | None, counts: dict[str, int], last_scan: JsonObject) -> JsonObject | None:
    """How far the work that the last scan found has come; None when nothing of it is left but a few.

    `rate_per_s` is the mean since that scan began, and `eta_s` what follows from it (None before the first is done).
    """
    emitted = int(last_scan.get("emitted", 0)) + int(last_scan.get("deleted", 0))
    left = stats.pending + stats.in_flight if stats else 0
    if not stats or emitted <= _FEW or not (stats.backfill or left > _FEW):
        return None
    total = max(emitted, left)
    done = total - left
    began_ms = int(last_scan.get("began_at_ms", 0))
    passed_s = max(0.001, (stats.now_ms - began_ms) / 1000)
    rate = done / passed_s
    return {
        "done": done,
        "total": total,
        "rate_per_s": round(rate, 1),
        "eta_s": round(left / rate, 1) if rate > 0 else None,
        "indexed": counts.get("indexed", 0),
    }
