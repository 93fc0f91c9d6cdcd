"""What exists beside the bus: each source with its truth, its API and its part of the index; and Celery's queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sourcebus.simulation.loop import Loop
from sourcebus.simulation.provider import Provider, TrueQuota
from sourcebus.simulation.truth import Index, Truth
from sourcebus.simulation.world import SimSource, World

_INVITATION_MS = 30_000  # as in worker/app.py


@dataclass(slots=True)
class Place:
    """A source as the catalog has it. `life` grows when it is removed: what older leases found no longer counts."""

    source: SimSource
    truth: Truth
    provider: Provider
    index: Index
    present: bool = False
    held: bool = False
    life: int = 0
    listed_at_ms: float = float("-inf")
    """When the last complete listing began."""
    changes: int = 0
    announced: int = 0
    found: int = 0
    looked: int = 0
    unchanged: int = 0
    extracted: int = 0
    failed: int = 0
    throttled: int = 0
    longest_ms: float = 0.0
    worked_ms: float = 0.0
    waits_ms: dict[str, float] = field(default_factory=dict[str, float])

    def worked(self, ms: float) -> None:
        self.worked_ms += ms
        self.longest_ms = max(self.longest_ms, ms)

    def forget(self) -> None:
        """The source is removed, and its documents with it."""
        self.present = False
        self.life += 1
        self.index = Index(self.truth, known=False)


def places(world: World, now: Callable[[], float]) -> dict[str, Place]:
    """Every source there ever is. Sources of one bucket share the API's quota; the first of them sets it."""
    quotas: dict[str, TrueQuota] = {}
    made: dict[str, Place] = {}
    for source in world.all_sources().values():
        rate = source.quota.rate if source.true_rate is None else source.true_rate
        burst = source.quota.burst if source.true_burst is None else source.true_burst
        quota = quotas.setdefault(source.bucket, TrueQuota(rate, burst))
        truth = Truth(source)
        provider = Provider(world, source, truth, quota, now)
        made[source.id] = Place(source, truth, provider, Index(truth, source.known))
    return made


class Celery:
    """A queue of invitations. `free` slots take them in turn; messages too old are dropped, and all of them with Redis."""

    def __init__(self, loop: Loop, delay_ms: float) -> None:
        self._loop, self._delay_ms = loop, delay_ms
        self._queue: deque[tuple[int, float]] = deque()
        self._idle: deque[Callable[[int], None]] = deque()
        self.reachable = True

    def publish(self, tokens: Sequence[int]) -> None:
        """Never fails; where the broker is away the invitation is lost."""
        if self.reachable:
            for token in tokens:
                self._loop.after(self._delay_ms, lambda token=token: self._deliver(token))

    def _deliver(self, token: int) -> None:
        if not self.reachable:
            return
        if self._idle:
            self._idle.popleft()(token)
        else:
            self._queue.append((token, self._loop.now + _INVITATION_MS))

    def lose_all(self) -> None:
        self._queue.clear()

    def offer(self, start: Callable[[int], None]) -> None:
        """A slot is free: `start` is called with the next invitation."""
        while self._queue:
            token, expires = self._queue.popleft()
            if expires > self._loop.now:
                self._loop.after(self._delay_ms, lambda token=token: start(token))
                return
        self._idle.append(start)

    def withdraw(self, start: Callable[[int], None]) -> None:
        """That slot is gone."""
        self._idle = deque(one for one in self._idle if one != start)
