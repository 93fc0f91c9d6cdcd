"""Looks at the bus, and what differs from the look before. Only the bus is asked, a page of sources at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import exp
from typing import Final

from sourcebus.bus import COUNTED_AS, WAITED, Bus, SourceStats, Vitals
from sourcebus.cli.terminal import visible

_FADE_S = 30.0
"""What a source waited for is shown of about the last half minute."""

GATES: Final = ("provider_pause", "out_of_reach", "tokens", "cap", "window_or_backoff")
"""What a source waits for however many workers there are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One source at one look. Rates per second are None before its second look; `waited` is the share of recent time by the
    names of `WAITED`, at most 1 together."""

    stats: SourceStats
    name: str
    acks_per_s: float | None
    waited: Mapping[str, float]

    @property
    def standing(self) -> str:
        """The reason that holds it back, else ``running``, ``ready`` or ``idle``."""
        return "running" if self.runs else self.stats.reason or self.stats.state

    @property
    def runs(self) -> bool:
        """Something is in flight; or it is ready and something was done since the look before: quick work is rarely seen."""
        if self.stats.reason in ("no_worker", "paused"):
            return False
        return self.stats.in_flight > 0 or (self.stats.state == "ready" and bool(self.acks_per_s))

    @property
    def why(self) -> str:
        """The bus's sentence (`SourceStats.why`), knowing also of what ran between the looks."""
        stats = replace(self.stats, in_flight=1) if self.runs and not self.stats.in_flight else self.stats
        return stats.why


@dataclass(frozen=True, slots=True)
class Picture:
    """All that one look saw. `since_begun` is how many re-runs, reaps and 429s came after this view's first look, `total` how
    many there were ever; `oldest_s` leaves out sources that a person paused."""

    rows: Sequence[Row]
    vitals: Vitals
    claims_per_s: float | None
    acks_per_s: float | None
    total: Mapping[str, int]
    since_begun: Mapping[str, int]
    oldest_s: float | None

    @property
    def standings(self) -> Counter[str]:
        return Counter(row.standing for row in self.rows)


_NOTHING: Final[Mapping[str, float]] = {}
TROUBLES: Final = ("reruns", "reaped", "throttled")


class Looker:
    """Keeps what it needs of the look before. `pattern` (as in a shell) picks sources by id."""

    def __init__(self, bus: Bus, pattern: str | None = None) -> None:
        self._bus, self._pattern = bus, pattern
        self._before: dict[str, tuple[SourceStats, Mapping[str, float]]] = {}
        self._begun: dict[str, int] = {}

    def look(self) -> Picture:
        """Asks the bus for every source. BusUnavailable."""
        vitals = self._bus.vitals()
        ids = [one for one in self._bus.source_ids() if self._pattern is None or fnmatchcase(one, self._pattern)]
        found = [stats for stats in self._bus.stats(ids) if stats is not None]
        rows, claims, acks = list[Row](), 0.0, 0.0
        now: dict[str, tuple[SourceStats, Mapping[str, float]]] = {}
        for stats in found:
            before, faded = self._before.get(stats.source_id, (None, _NOTHING))
            acked = _rate(before, stats, lambda one: one.acked)
            waited = faded_in(faded, before, stats)
            now[stats.source_id] = (stats, waited)
            rows.append(Row(stats, visible(stats.source_id), acked, waited))
            claims += _rate(before, stats, lambda one: one.claimed) or 0.0
            acks += acked or 0.0
        first, self._before = not self._before, now
        total = {name: sum(int(getattr(stats, name)) for stats in found) for name in TROUBLES}
        self._begun = self._begun or total
        ages = [stats.oldest_due_s for stats in found if stats.oldest_due_s is not None and stats.reason != "paused"]
        return Picture(
            rows,
            vitals,
            None if first else claims,
            None if first else acks,
            total,
            {name: max(0, count - self._begun[name]) for name, count in total.items()},
            max(ages, default=None),
        )


def _rate(before: SourceStats | None, now: SourceStats, count: Callable[[SourceStats], int]) -> float | None:
    """Per second; None where there is nothing to compare, also after Redis lost its data and counts anew."""
    if before is None or now.now_ms <= before.now_ms or count(now) < count(before):
        return None
    return (count(now) - count(before)) * 1000 / (now.now_ms - before.now_ms)


def faded_in(faded: Mapping[str, float], before: SourceStats | None, now: SourceStats) -> Mapping[str, float]:
    """Shares of recent time by what was waited for: the older ones fade, the span since `before` comes in.

    The bus counts a wait when it ends. One that is under way counts as the whole span; when it ends it cannot count for more.
    """
    passed_ms = now.now_ms - before.now_ms if before else 0
    if before is None or passed_ms <= 0:
        return faded
    new = {name: min(1.0, max(0, now.waited_ms[name] - before.waited_ms[name]) / passed_ms) for name in WAITED}
    under_way = COUNTED_AS.get(now.reason)
    flows = now.reason == "workers_busy" and now.claimed > before.claimed  # its work waits, the source as such does not
    if under_way and not new[under_way] and not flows:
        new[under_way] = 1.0
    crowd = max(1.0, sum(new.values()))
    share = 1 - exp(-passed_ms / 1000 / _FADE_S)
    if not faded:
        return {name: new[name] / crowd for name in WAITED}
    return {name: faded[name] * (1 - share) + new[name] / crowd * share for name in WAITED}


# --- orders ------------------------------------------------------------------------------------------------------


def attention(row: Row) -> tuple[float, ...]:
    """Who needs somebody first: nobody to work on it, then what is due and waits (the longest first), then what runs, then
    what is delayed, paused or has dead letters, then the idle."""
    stats = row.stats
    group = _GROUPS.get(row.standing, 1)
    if group == 4 and stats.dead:
        group = 3
    return (group, -(stats.oldest_due_s or 0.0), -stats.pending, -stats.dead)


_GROUPS: Final = {"no_worker": 0, "running": 2, "window_or_backoff": 3, "paused": 3, "idle": 4}

SORTS: Final[Mapping[str, Callable[[Row], tuple[float, ...]]]] = {
    "attention": attention,
    "name": lambda _row: (),
    "pending": lambda row: (-row.stats.pending,),
    "oldest": lambda row: (-(row.stats.oldest_due_s or 0.0),),
    "rate": lambda row: (-(row.acks_per_s or 0.0),),
    "dead": lambda row: (-row.stats.dead,),
}
"""Sort keys; ties go by name."""


def ordered(picture: Picture, sort: str) -> list[Row]:
    """The rows by one of `SORTS`."""
    key = SORTS[sort]
    return sorted(picture.rows, key=lambda row: (*key(row), row.name))
