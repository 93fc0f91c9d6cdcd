"""Ground truth: which object had which version when; and what the index knows of it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sourcebus.simulation.world import SimSource, World


class SimChange(NamedTuple):
    """From `at_ms` on the object is at `version`; `gone`: and does not exist any more."""

    at_ms: float
    ref: str
    version: int
    gone: bool


def schedule(world: World, source: SimSource) -> list[SimChange]:
    """Everything that changes in a source during the run, in order. Depends on nothing that the bus does."""
    random = world.random("changes", source.id)
    times: list[tuple[float, int]] = []
    at = 0.0
    while source.changes_per_hour and (at := at + random.expovariate(source.changes_per_hour / 3_600_000)) < world.duration_ms:
        times.append((at, int(source.objects * random.random() ** source.skew)))
    for burst in source.bursts:
        first = random.randrange(source.objects)
        for number in range(burst.objects * burst.times):
            when = burst.at_ms + random.random() * burst.over_ms
            if when < world.duration_ms:
                times.append((when, (first + number % burst.objects) % source.objects))
    versions: dict[int, tuple[int, bool]] = defaultdict(lambda: (1, False))
    changes: list[SimChange] = []
    for when, number in sorted(times):
        version, gone = versions[number]
        versions[number] = version + 1, not gone and random.random() < source.deletes
        changes.append(SimChange(when, str(number), *versions[number]))
    return changes


class Truth:
    """A source's objects as they are now: reference → (version, gone)."""

    def __init__(self, source: SimSource) -> None:
        self.objects: dict[str, tuple[int, bool]] = {str(number): (1, False) for number in range(source.objects)}

    def apply(self, change: SimChange) -> None:
        self.objects[change.ref] = change.version, change.gone

    def version(self, ref: str) -> tuple[int, bool]:
        return self.objects.get(ref, (0, True))

    def listing(self) -> Iterator[tuple[str, int]]:
        return ((ref, version) for ref, (version, gone) in self.objects.items() if not gone)


@dataclass(slots=True)
class Indexed:
    """What the catalog has of an object. `version` 0: nothing."""

    version: int = 0
    gone: bool = True
    fence: int = 0


class Index:
    """The catalog of one source, guarded by fences as the real one is, and how long each change took to arrive in it."""

    def __init__(self, truth: Truth, known: bool) -> None:
        self.objects: dict[str, Indexed] = {}
        self.fresh_ms: list[float] = []
        self._open: dict[str, deque[tuple[int, float]]] = defaultdict(deque)
        if known:
            self.objects = {ref: Indexed(version, gone) for ref, (version, gone) in truth.objects.items()}

    def changed(self, change: SimChange, now: float) -> None:
        """The world changed; from now on this change is awaited."""
        self._open[change.ref].append((change.version, now))

    def get(self, ref: str) -> Indexed:
        return self.objects.get(ref) or Indexed()

    def write(self, ref: str, version: int, gone: bool, fence: int, now: float) -> bool:
        """False where a newer lease has written before: then nothing changes."""
        have = self.objects.setdefault(ref, Indexed())
        if fence < have.fence:
            return False
        have.version, have.gone, have.fence = version, gone, fence
        waiting = self._open.get(ref)
        while waiting and waiting[0][0] <= version:
            self.fresh_ms.append(now - waiting.popleft()[1])
        return True

    def waiting(self) -> int:
        """Changes that have not arrived."""
        return sum(map(len, self._open.values()))
