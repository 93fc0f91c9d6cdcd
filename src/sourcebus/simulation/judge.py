"""Holds every answer of the bus against its promises (docs/bus.md), by their numbers.

The judge keeps books of its own from what callers were answered; it never asks the bus what it thinks. Times here are the
bus's. Where the server's clock was set, the bus's time is known only from its last answer, and a check that
would need more is let go.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from sourcebus.bus import Claimed, DeadLetter, Settle
from sourcebus.model import ChangeKind, Lease, Quota, Signal, SourceChanged
from sourcebus.simulation.world import SimSource

MOST_BROKEN = 20
_NEVER = float("-inf")

Key = tuple[str, str, bool]
"""Source, reference, and whether it is a scope to scan."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept. `promise` is its number in docs/bus.md; 0: something else is wrong."""

    promise: int
    at_ms: float
    what: str


@dataclass(slots=True)
class Item:
    """The books of one object or scope. `asked`, `told`, `wished`, `claimed` and `finished` are step numbers: of the last
    signal that may have been kept, of the last that must have been, of the last manual refresh, of the last claim, and of the
    last claim that succeeded. `owed`: the version that was true at the last signal."""

    live: Lease | None = None
    deadline: float = _NEVER
    window_until: float = _NEVER
    asked: int = 0
    told: int = 0
    owed: int = 0
    wished: int = 0
    claimed: int = 0
    finished: int = 0
    done: bool = True
    hopeless: bool = False


@dataclass(slots=True)
class Bucket:
    """The tokens that may be there at most, and the provider's pause."""

    quota: Quota
    level: float
    at: float = _NEVER
    paused_until: float = _NEVER
    in_flight: set[Key] = field(default_factory=set[Key])


@dataclass(slots=True)
class Books:
    """What would be lost with Redis's data."""

    items: dict[Key, Item] = field(default_factory=dict[Key, Item])
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])
    away_until: dict[str, float] = field(default_factory=dict[str, float])
    """Source → until when it is held back because it could not be reached."""
    now: float = _NEVER

    def copy(self) -> Books:
        items = {key: copy(item) for key, item in self.items.items()}
        buckets = {name: replace(bucket, in_flight=set(bucket.in_flight)) for name, bucket in self.buckets.items()}
        return Books(items, buckets, dict(self.away_until), self.now)


def key_of(lease: Lease | SourceChanged) -> Key:
    return lease.source_id, lease.object_ref, lease.change_kind is ChangeKind.SCAN


class Judge:
    """`server_ms` is the server's clock. `broken` fills with what was not kept, up to `MOST_BROKEN`."""

    def __init__(self, at_ms: Callable[[], float], server_ms: Callable[[], float]) -> None:
        self._at_ms, self._server_ms = at_ms, server_ms
        self.broken: list[Broken] = []
        self.books = Books()
        self.sources: dict[str, SimSource] = {}
        self.held: set[str] = set()
        self.straight = True
        """The server's clock was never set, so it is the bus's time."""
        self.claims: dict[str, int] = defaultdict(int)
        self._step = 0
        self._fence = 0

    def breaks(self, promise: int, what: str) -> None:
        if len(self.broken) < MOST_BROKEN:
            self.broken.append(Broken(promise, self._at_ms(), what))

    def _now(self) -> float:
        """The bus's time, in whole milliseconds as it counts, or a moment before it."""
        return math.floor(self._server_ms()) if self.straight else self.books.now

    # --- what happens to sources ---------------------------------------------------------------------------------

    def registered(self, source: SimSource) -> None:
        self.sources[source.id] = source
        old = self.books.buckets.get(source.bucket)
        bucket = Bucket(source.quota, source.quota.burst)
        if old:
            bucket.in_flight, bucket.paused_until = old.in_flight, old.paused_until
            if _same_rate(old.quota, source.quota):
                bucket.level, bucket.at = old.level, old.at
        self.books.buckets[source.bucket] = bucket

    def unregistered(self, source_id: str) -> None:
        self.held.discard(source_id)
        self.books.away_until.pop(source_id, None)
        if source_id in self.sources and not self.sources[source_id].quota.bucket:
            self.books.buckets[source_id] = Bucket(self.sources[source_id].quota, self.sources[source_id].quota.burst)
        for key in [key for key in self.books.items if key[0] == source_id]:
            self._free(key, self.books.items.pop(key))

    def clock_was_set(self) -> None:
        self.straight = False

    def lost(self, books: Books) -> None:
        """Redis lost its data and stands at these books again."""
        self.books = books.copy()
        self.books.now = _NEVER  # a new life may begin at an earlier time: only the clock decides

    # --- signals and leases --------------------------------------------------------------------------------------

    def told(self, events: Iterable[SourceChanged], truth: Callable[[str, str], int], *, sure: bool = True) -> None:
        """Signals were accepted, while the objects were at these versions. Not `sure`: some were folded into a scan."""
        self._step += 1
        for event in events:
            item = self._item(key_of(event))
            item.asked = self._step
            if event.signal is Signal.MANUAL:
                item.wished = self._step
            if not sure:
                continue
            item.told = self._step
            if event.change_kind is not ChangeKind.SCAN:
                item.owed = max(item.owed, truth(event.source_id, event.object_ref))

    def claimed(self, claimed: Claimed, asked: int) -> None:
        self._step += 1
        if claimed.now_ms < self.books.now:
            self.breaks(12, f"time went back from {self.books.now:.0f} to {claimed.now_ms}")
        if claimed.now_ms < int(self._server_ms()):
            self.breaks(12, f"the bus's time {claimed.now_ms} is behind the server's {self._server_ms():.0f}")
        self.books.now = claimed.now_ms
        if len(claimed.leases) > asked:
            self.breaks(12, f"asked for {asked} leases, got {len(claimed.leases)}")
        for lease in claimed.leases:
            self._begun(lease)

    def _begun(self, lease: Lease) -> None:
        key = key_of(lease)
        item = self._item(key)
        self.claims[lease.source_id] += 1
        if lease.fence <= self._fence:
            self.breaks(3, f"fence {lease.fence} of {_shown(key)} is not above {self._fence}: a newer lease looks older")
        self._fence = max(self._fence, lease.fence)
        if item.live and lease.claimed_at_ms < item.deadline:
            self.breaks(3, f"two live leases of {_shown(key)}: {item.live.fence} and {lease.fence}")
        if lease.signal is not Signal.MANUAL and lease.claimed_at_ms < item.window_until:
            self.breaks(2, f"{_shown(key)} claimed {item.window_until - lease.claimed_at_ms:.0f} ms before its window's end")
        if item.asked <= item.claimed and item.done and not key[2]:
            self.breaks(2, f"{_shown(key)} claimed though nobody asked for it since it was done")
        if lease.signal is Signal.MANUAL and item.wished <= item.finished:
            self.breaks(7, f"{_shown(key)} goes before others as a manual refresh, and nobody asked for one since it was done")
        if lease.source_id in self.held:
            self.breaks(12, f"{_shown(key)} claimed while its source was held")
        self._free(key, item)
        item.live, item.deadline, item.claimed, item.done, item.hopeless = lease, lease.deadline_ms, self._step, False, False
        self._charge(key, lease)

    def _charge(self, key: Key, lease: Lease) -> None:
        source = self.sources[lease.source_id]
        bucket = self.books.buckets[source.bucket]
        now = float(lease.claimed_at_ms)
        if now < bucket.paused_until:
            self.breaks(6, f"{_shown(key)} claimed {bucket.paused_until - now:.0f} ms before the end of its provider's pause")
        away_until = self.books.away_until.get(lease.source_id, _NEVER)
        if now < away_until:
            self.breaks(6, f"{_shown(key)} claimed {away_until - now:.0f} ms before its source is tried again")
        bucket.in_flight.add(key)
        living = [one for one in bucket.in_flight if self.books.items[one].deadline > now]
        if len(living) > bucket.quota.concurrency:
            self.breaks(4, f"{len(living)} leases in flight in bucket {source.bucket}, cap {bucket.quota.concurrency}")
        if bucket.quota.rate is None:
            return
        if bucket.at != _NEVER:
            bucket.level = min(bucket.quota.burst, bucket.level + max(0.0, now - bucket.at) * bucket.quota.rate / 1000)
        bucket.at = now
        slack = 0.01 + bucket.quota.rate * 0.002  # the bus counts in whole milliseconds
        if lease.signal is not Signal.MANUAL and bucket.level < min(1.0, bucket.quota.burst) - slack:
            self.breaks(4, f"{_shown(key)} claimed with {bucket.level:.3f} tokens in bucket {source.bucket}")
        bucket.level -= 1.0

    def settled(self, lease: Lease, how: Settle | None, done: bool, wait_ms: float, bus_ms: float) -> None:
        """`how` None is an ack. `bus_ms` is the bus's time, where it is not the last that was heard."""
        key = key_of(lease)
        item = self._item(key)
        mine = item.live is not None and item.live.fence == lease.fence
        if not mine:
            if done:
                self.breaks(3, f"lease {lease.fence} of {_shown(key)} was over, and yet it settled something")
            return
        if not done:
            if self.straight and self._now() < item.deadline:
                self.breaks(3, f"living lease {lease.fence} of {_shown(key)} was refused")
            return
        self._free(key, item)
        bucket = self.books.buckets[self.sources[lease.source_id].bucket]
        if how is None:
            item.done, item.finished = True, item.claimed
            item.window_until = lease.claimed_at_ms + self.sources[lease.source_id].window_ms
        elif how is Settle.RELEASE:
            bucket.level += 1.0
        elif how is Settle.THROTTLED:
            bucket.paused_until = max(bucket.paused_until, bus_ms + wait_ms)
        elif how is Settle.UNAVAILABLE:
            away_until = self.books.away_until
            away_until[lease.source_id] = max(away_until.get(lease.source_id, _NEVER), bus_ms + wait_ms)
        item.hopeless = how is Settle.HOPELESS

    def extended(self, leases: Sequence[Lease], kept: Sequence[bool], lease_ms: float) -> None:
        for lease, done in zip(leases, kept, strict=True):
            item = self._item(key_of(lease))
            if not (item.live and item.live.fence == lease.fence):
                if done:
                    self.breaks(3, f"lease {lease.fence} of {_shown(key_of(lease))} was over, and yet it was extended")
            elif done:
                item.deadline = max(item.deadline, self._now() + lease_ms)
            elif self.straight and self._now() < item.deadline:
                self.breaks(3, f"living lease {lease.fence} of {_shown(key_of(lease))} was not extended")

    def _item(self, key: Key) -> Item:
        return self.books.items.setdefault(key, Item())

    def _free(self, key: Key, item: Item) -> None:
        item.live, item.deadline = None, _NEVER
        if key[0] in self.sources and (bucket := self.books.buckets.get(self.sources[key[0]].bucket)):
            bucket.in_flight.discard(key)

    # --- at the end ----------------------------------------------------------------------------------------------

    def all_delivered(self, letters: Sequence[DeadLetter]) -> set[Key]:
        """Nothing is pending any more: what was accepted was claimed later, and that ended well or as a dead letter.
        Answers what lies among the dead."""
        dead = {(letter.source_id, letter.object_ref, letter.change_kind is ChangeKind.SCAN): letter for letter in letters}
        for key, item in self.books.items.items():
            if item.told > item.claimed:
                self.breaks(1, f"the last signal of {_shown(key)} was never followed by a claim")
            elif not item.done and key not in dead:
                self.breaks(1, f"the last claim of {_shown(key)} neither succeeded nor left a dead letter")
            elif not item.done and not item.hopeless and dead[key].attempts != self.sources[key[0]].max_attempts:
                self.breaks(9, f"{_shown(key)} died after {dead[key].attempts} attempts")
        return set(dead)


def _same_rate(old: Quota, new: Quota) -> bool:
    return (old.rate, old.burst) == (new.rate, new.burst)


def _shown(key: Key) -> str:
    return f"{key[0]}/{key[1] or '(all)'}" + (" (scan)" if key[2] else "")
