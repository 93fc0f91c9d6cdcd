"""What came out of a run, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sourcebus.simulation.judge import Broken
from sourcebus.simulation.place import Place


@dataclass(frozen=True, slots=True)
class Freshness:
    """Milliseconds from a change in the source until the index had it, over all changes that arrived. `missing` never did."""

    p50_ms: float
    p95_ms: float
    max_ms: float
    arrived: int
    missing: int

    @classmethod
    def of(cls, arrived_ms: Sequence[float], missing: int) -> Freshness:
        ordered = sorted(arrived_ms)
        if not ordered:
            return cls(0.0, 0.0, 0.0, 0, missing)
        last = len(ordered) - 1
        return cls(ordered[round(last * 0.5)], ordered[round(last * 0.95)], ordered[last], len(ordered), missing)


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source. `waits_ms`: how long objects stood there ready or delayed, summed over them, by the names of
    `sourcebus.bus.standing.WAITED` and ``paused``. `throttled` calls met a 429. `demand_per_s` and `rate_per_s` are calls."""

    id: str
    changes: int
    announced: int
    found_by_scans: int
    looked: int
    extractions: int
    unchanged: int
    failed: int
    throttled: int
    dead: int
    freshness: Freshness
    worked_ms: float
    waits_ms: Mapping[str, float]
    demand_per_s: float
    rate_per_s: float | None

    @property
    def quota_too_small(self) -> bool:
        """Most of its waiting was for tokens or for the provider's pause."""
        total = sum(self.waits_ms.values())
        bound = sum(self.waits_ms.get(reason, 0.0) for reason in ("tokens", "provider_pause"))
        return total > 0 and bound > total / 2


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `slot_busy` is the share of the slots' time that was spent working, until the changes ended.
    `trace_sha256` is equal for equal runs; `broken` is empty where every promise was kept."""

    seed: int
    sources: tuple[SourceReport, ...]
    freshness: Freshness
    slot_busy: float
    virtual_ms: float
    settled_ms: float
    """From the last change until nothing was owed any more."""
    calls: int
    """To the bus."""
    lines: int
    trace_sha256: str
    broken: tuple[Broken, ...]

    @property
    def good(self) -> bool:
        return not self.broken


def report_of(place: Place, dead: int, seconds: float) -> SourceReport:
    """One place's books as a report, over a run of so many virtual seconds."""
    return SourceReport(
        id=place.source.id,
        changes=place.changes,
        announced=place.announced,
        found_by_scans=place.found,
        looked=place.looked,
        extractions=place.extracted,
        unchanged=place.unchanged,
        failed=place.failed,
        throttled=place.throttled,
        dead=dead,
        freshness=Freshness.of(place.index.fresh_ms, place.index.waiting()),
        worked_ms=place.worked_ms,
        waits_ms=dict(sorted(place.waits_ms.items())),
        demand_per_s=place.looked / seconds,
        rate_per_s=place.source.quota.rate,
    )
