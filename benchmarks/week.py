"""A week of changes in the sites of one tenant, compressed, and what a ten-minute sweep makes of it under the same quota."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

HOT_FACTOR = 100
"""The hot site's changes, by those of each of the others."""

_DAYS, _WORKDAYS = 7, 5
_NIGHT, _NOON = 0.15, 1.0


@dataclass(frozen=True)
class Week:
    """`sites` of which number 0 is hot; `each` changes in each of the others; a day lasts `day_s` seconds."""

    sites: int
    each: int
    day_s: float
    hot_files: int
    files: int
    seed: int = 7

    @property
    def length_s(self) -> float:
        return _DAYS * self.day_s


@dataclass(frozen=True, slots=True)
class Edit:
    """Change number `serial` is made `at_s` seconds after the beginning, to one file of one site."""

    at_s: float
    site: int
    file: int
    serial: int


def edits(week: Week) -> list[Edit]:
    """By time. More by day than by night, hardly any at the weekend."""
    chance = random.Random(week.seed)
    made: list[tuple[float, int, int]] = []
    for site in range(week.sites):
        count, files = (week.each * HOT_FACTOR, week.hot_files) if site == 0 else (week.each, week.files)
        made += [(_moment(week, chance), site, chance.randrange(files)) for _ in range(count)]
    return [Edit(*one, serial) for serial, one in enumerate(sorted(made), 1)]


def _moment(week: Week, chance: random.Random) -> float:
    while True:
        at = chance.uniform(0, _DAYS)
        if chance.random() < _busy(at):
            return at * week.day_s


def _busy(day: float) -> float:
    """From 0 to 1, by the time in days since Monday 0:00."""
    by_day = _NIGHT + (_NOON - _NIGHT) * max(0.0, math.sin(math.pi * ((day % 1) * 24 - 7) / 12))
    return by_day if day < _WORKDAYS else by_day * 0.1


@dataclass
class Bucket:
    """The provider's quota, in virtual time: who asks waits until his units are there."""

    rate_per_s: float
    burst: float
    units: float = field(init=False)
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.units = self.burst

    def take(self, now_s: float, units: float) -> float:
        """When the call may begin."""
        self.units = min(self.burst, self.units + (now_s - self.at_s) * self.rate_per_s)
        self.at_s = now_s
        wait_s = max(0.0, (units - self.units) / self.rate_per_s)
        self.units += wait_s * self.rate_per_s - units
        self.at_s = now_s + wait_s
        return self.at_s


@dataclass(frozen=True)
class Swept:
    """Seconds from each change to the end of its processing, of the hot site and of the others; the longest sweep."""

    hot_s: list[float]
    others_s: list[float]
    sweeps: int
    longest_s: float


def swept(
    week: Week, changes: Sequence[Edit], *, rate: float, burst: float, call_s: float, every_s: float, weeks: int
) -> Swept:
    """Virtual time: every `every_s` one worker asks each site, one after the other, what changed (delta, 1 unit), and processes
    it at once (item and download, 2 units). A sweep that takes longer delays the next. The week is repeated `weeks` times."""
    repeated = [(turn * week.length_s + one.at_s, one.site, one.file) for turn in range(weeks) for one in changes]
    bucket, hot, others = Bucket(rate, burst), list[float](), list[float]()
    waiting: dict[int, dict[int, list[float]]] = {}
    now_s, following, sweeps, longest_s = 0.0, 0, 0, 0.0
    while following < len(repeated) or any(waiting.values()):
        began_s = now_s
        for site in range(week.sites):
            now_s = bucket.take(now_s, 1) + call_s
            while following < len(repeated) and repeated[following][0] <= now_s:
                at_s, where, file = repeated[following]
                waiting.setdefault(where, {}).setdefault(file, []).append(at_s)
                following += 1
            for made_s in list(waiting.pop(site, {}).values()):
                now_s = bucket.take(now_s, 2) + 2 * call_s
                (hot if site == 0 else others).extend(now_s - at_s for at_s in made_s)
        sweeps, longest_s = sweeps + 1, max(longest_s, now_s - began_s)
        now_s = max(now_s, (began_s // every_s + 1) * every_s)
    return Swept(hot, others, sweeps, longest_s)
