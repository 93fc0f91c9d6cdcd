"""Slow and fast sources on the same slots, a source that answers 429, and how evenly equal sources are served.

All with real shifts (`benchmarks.slots`) that always find work; what is compared takes turns within one run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from benchmarks.processes import Running, scratch
from benchmarks.progress import step
from benchmarks.slots import Attempt, Plan, attempts, started
from benchmarks.timing import seen_ns
from sourcebus.bus import Bus
from sourcebus.model import SourceChanged
from sourcebus.testing import running_server

SLOTS, SLOW, FAST = 8, 4, 40
SLOW_MS, FAST_MS, SCALE = 1_000.0, 5.0, 10
"""Everything is ten times faster than the goal says (10 s and 50 ms): the limits of the shifts too."""

STORM_PAUSE_MS, OTHERS_MS = 400.0, 2.0
EQUAL = 40

_WITHIN_S = 120.0


@dataclass(frozen=True)
class Shares:
    """Events per second of the fast sources, round by round, without the slow ones and with them; and the slow ones' calls."""

    alone: list[float] = field(default_factory=list[float])
    beside: list[float] = field(default_factory=list[float])
    slow_calls: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class Storm:
    """The other sources' events per second without the storm and with it. `calls` were answered 429; of these `claimed_in`
    were claimed and `begun_in` begun while the provider's pause was on."""

    alone: list[float]
    beside: list[float]
    calls: int
    claimed_in: int
    begun_in: int
    pauses: int


def slow_beside_fast(rounds: int, turn_s: float) -> Shares:
    """8 slots, two processes of four threads each."""
    limits = {"slow_ms": 250 // SCALE, "claim_ms": 20 // SCALE, "lease_ms": 30_000 // SCALE, "slice_ms": 15_000 // SCALE}
    with running_server() as url, scratch() as folder, step("slow sources beside fast ones", 2 * rounds) as shown:
        call_ms = {"slow": SLOW_MS, "fast": FAST_MS}
        plan = Plan(url, str(folder), call_ms, slots=SLOTS // 2, commit_ms=50 / SCALE, limits=limits)
        field_ = _Field(url, _names("slow", SLOW), _names("fast", FAST))
        found = Shares()
        try:
            with started(plan) as field_.processes:
                field_.warm_up()
                for at in range(rounds):
                    for beside in (True, False) if at % 2 else (False, True):
                        field_.fill(round((turn_s + 2) * SLOTS * 1000 / FAST_MS))
                        field_.turn(beside=beside)
                        others, guests = field_.rates(turn_s)
                        (found.beside if beside else found.alone).append(others)
                        if beside:
                            found.slow_calls.append(guests)
                        shown.advance()
        finally:
            field_.close()
    return found


def storm_beside_others(rounds: int, turn_s: float) -> Storm:
    """Two slots; one of 41 backlogged sources answers every call with 429 and asks to wait."""
    with running_server() as url, scratch() as folder, step("a 429 storm on one source", 2 * rounds) as shown:
        plan = Plan(url, str(folder), {"storm": OTHERS_MS, "fast": OTHERS_MS}, throttle_ms=STORM_PAUSE_MS)
        field_ = _Field(url, _names("storm", 1), _names("fast", FAST))
        alone: list[float] = []
        beside: list[float] = []
        try:
            with started(plan) as field_.processes:
                field_.warm_up()
                for at in range(rounds):
                    for raging in (True, False) if at % 2 else (False, True):
                        field_.fill(round((turn_s + 2) * 2 * 1000 / OTHERS_MS))
                        field_.turn(beside=raging)
                        time.sleep(STORM_PAUSE_MS / 1000)
                        others, _guests = field_.rates(turn_s)
                        (beside if raging else alone).append(others)
                        shown.advance()
        finally:
            field_.close()
        seen = attempts(folder)
    pauses = [(one.stored_ms, one.sent_ms + STORM_PAUSE_MS) for one in seen]
    return Storm(
        alone,
        beside,
        len(seen),
        sum(_within(one.claimed_ms, pauses) for one in seen),
        sum(_within(one.begun_ms, pauses) for one in seen),
        _episodes(seen),
    )


def _within(at_ms: float, pauses: Sequence[tuple[float, float]]) -> bool:
    """Whether the pause was on for certain: the bus's clock has whole milliseconds, so the edges are left out."""
    return any(begins + 1 < at_ms < ends - 1 for begins, ends in pauses)


def _episodes(seen: Sequence[Attempt]) -> int:
    """How many pauses there were, by the times at which the first answer of each was stored."""
    stored = sorted(one.stored_ms for one in seen)
    return sum(not at or later - stored[at - 1] > STORM_PAUSE_MS / 2 for at, later in enumerate(stored))


def even_shares(each: int) -> list[int]:
    """Claims of each of 40 equal backlogged sources when three quarters of all are claimed."""
    with running_server() as url, scratch() as folder, step("equal sources", EQUAL * each) as shown:
        plan = Plan(url, str(folder), {"fast": OTHERS_MS})
        field_ = _Field(url, [], _names("fast", EQUAL))
        try:
            field_.fill(EQUAL * each)
            with started(plan) as field_.processes:
                goal = EQUAL * each * 3 // 4

                def enough() -> bool:
                    done = sum(field_.claims())
                    shown.to(done)
                    return done >= goal

                seen_ns(enough, within_s=_WITHIN_S, every_s=0.02)
                claims = field_.claims()
        finally:
            field_.close()
    if max(claims) >= each:
        raise RuntimeError("a source ran dry before the claims were counted")
    return claims


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 where all are equal, 1/n where one has everything (Jain, Chiu, Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def _names(word: str, many: int) -> list[str]:
    return [f"{word}-{at}" for at in range(many)]


class _Field:
    """A bus with `guests` that come and go, and `others` that are always backlogged."""

    def __init__(self, url: str, guests: list[str], others: list[str]) -> None:
        self._bus = Bus.from_url(url)
        self._guests, self._others = guests, others
        self._numbers = count()
        self.processes: list[Running] = []
        for source_id in (*guests, *others):
            self._bus.register(source_id, window_ms=0)
        for source_id in guests:
            self._bus.pause(source_id)
            self._bus.emit([self._event(source_id) for _ in range(2_000)])

    def close(self) -> None:
        self._bus.close()

    def _event(self, source_id: str) -> SourceChanged:
        return SourceChanged(source_id, f"object-{next(self._numbers)}")

    def fill(self, together: int) -> None:
        """Sees that the others have so many pending between them."""
        wanted = together // len(self._others)
        for stats in self._bus.stats(self._others):
            if stats and (missing := wanted - stats.pending) > 0:
                self._bus.emit([self._event(stats.source_id) for _ in range(missing)])

    def warm_up(self) -> None:
        """Until every slot has worked for some time."""
        self.fill(4_000)
        seen_ns(lambda: self._acked(self._others) > 1_000, within_s=_WITHIN_S)

    def turn(self, *, beside: bool) -> None:
        """The guests come, or go; then none of them is running any more."""
        for source_id in self._guests:
            if beside:
                self._bus.resume(source_id)
            else:
                self._bus.pause(source_id)
        if not beside:
            seen_ns(lambda: not any(stats and stats.in_flight for stats in self._bus.stats(self._guests)), within_s=_WITHIN_S)

    def rates(self, turn_s: float) -> tuple[float, float]:
        """Events acknowledged per second in the next `turn_s` seconds: the others', the guests'."""
        began, before = time.monotonic(), (self._acked(self._others), self._acked(self._guests))
        time.sleep(turn_s)
        for process in self.processes:
            process.check()
        passed, after = time.monotonic() - began, (self._acked(self._others), self._acked(self._guests))
        if any(stats and not stats.pending for stats in self._bus.stats(self._others)):
            raise RuntimeError("a source ran dry while it was measured")
        return (after[0] - before[0]) / passed, (after[1] - before[1]) / passed

    def claims(self) -> list[int]:
        return [stats.claimed for stats in self._bus.stats(self._others) if stats]

    def _acked(self, source_ids: list[str]) -> int:
        return sum(stats.acked for stats in self._bus.stats(source_ids) if stats)
