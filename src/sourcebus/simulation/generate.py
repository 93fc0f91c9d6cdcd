"""Worlds by the number: one seed, one world, with all that can go wrong in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from sourcebus.model import Quota
from sourcebus.simulation.world import (
    Burst,
    ClockJump,
    Crash,
    Happening,
    Latency,
    Pause,
    Put,
    RedisRestart,
    RedisWipe,
    Refresh,
    Remove,
    SimSource,
    Stall,
    Webhooks,
    World,
)

_MINUTE_MS = 60_000.0

# --- kinds of sources ------------------------------------------------------------------------------------------------


def _chat(name: str, random: Random) -> SimSource:
    """Many small changes on few objects, well announced, fast."""
    return SimSource(
        name,
        objects=random.randint(3, 40),
        changes_per_hour=random.uniform(20, 150),
        skew=random.choice([1.0, 3.0]),
        webhooks=Webhooks(Latency(random.choice([50.0, 400.0]), 1.0), duplicated=0.2),
        extract=Latency(30.0, 0.5),
        recheck=Latency(10.0),
        window_ms=random.choice([1_000.0, 5_000.0, 30_000.0]),
    )


def _drive(name: str, random: Random) -> SimSource:
    """A quota, a slow API with a heavy tail, webhooks that are late, doubled or lost, and a poll that makes up for them."""
    rate = random.uniform(0.3, 3.0)
    return SimSource(
        name,
        objects=random.randint(20, 150),
        changes_per_hour=random.uniform(10, 80),
        webhooks=Webhooks(Latency(2_000.0, 1.5, tail=0.1, most_ms=300_000.0), lost=random.choice([0.0, 0.2]), duplicated=0.3),
        poll_ms=random.uniform(4, 10) * _MINUTE_MS,
        extract=Latency(random.choice([400.0, 2_000.0]), 0.8, tail=0.03),
        quota=Quota(rate=rate, burst=random.choice([1.0, 5.0, 20.0]), concurrency=random.choice([1, 2, 8])),
        bursts=(Burst(random.uniform(2, 10) * _MINUTE_MS, random.randint(5, 25), random.randint(1, 3), 5_000.0),),
    )


def _wiki(name: str, random: Random) -> SimSource:
    """No webhooks at all."""
    return SimSource(
        name,
        objects=random.randint(20, 200),
        changes_per_hour=random.uniform(10, 60),
        webhooks=None,
        poll_ms=random.uniform(3, 12) * _MINUTE_MS,
        extract=Latency(150.0, 0.5),
        quota=Quota(rate=random.choice([None, 1.0, 5.0]), burst=4, concurrency=4),
    )


def _strict(name: str, random: Random) -> SimSource:
    """Grants less than it says: 429."""
    return SimSource(
        name,
        objects=random.randint(50, 200),
        changes_per_hour=random.uniform(50, 200),
        webhooks=Webhooks(),
        extract=Latency(100.0, 0.5),
        quota=Quota(rate=random.uniform(0.3, 3.0), burst=random.choice([2.0, 10.0]), concurrency=8),
        true_rate=random.uniform(0.1, 0.5),
        bursts=(Burst(random.uniform(2, 20) * _MINUTE_MS, random.randint(5, 30)),),
        true_burst=random.choice([1.0, 5.0]),
        retry_after_ms=random.choice([None, 1_000.0, 10_000.0, 60_000.0]),
        reconcile_ms=random.choice([0.0, 12 * _MINUTE_MS]),
    )


def _flaky(name: str, random: Random) -> SimSource:
    """Fails, hangs, has objects that nobody can read, and whole outages."""
    begin = random.uniform(2, 15) * _MINUTE_MS
    return SimSource(
        name,
        objects=random.randint(10, 100),
        changes_per_hour=random.uniform(20, 100),
        deletes=0.3,
        poll_ms=random.choice([0.0, 5 * _MINUTE_MS]),
        extract=Latency(300.0, 1.0, tail=0.02, most_ms=random.choice([20_000.0, 700_000.0])),
        failures=random.choice([0.05, 0.3, 0.6]),
        hopeless=random.choice([0.0, 0.1]),
        outages=((begin, begin + random.uniform(5_000, 120_000)),),
        max_attempts=random.randint(1, 4),
        backoff_ms=random.choice([100.0, 2_000.0]),
        backoff_cap_ms=20_000.0,
    )


def _backfill(name: str, random: Random) -> SimSource:
    """New: everything has to be found and extracted, beside its live changes."""
    return SimSource(
        name,
        objects=random.randint(20, 120),
        changes_per_hour=random.uniform(0, 60),
        known=False,
        extract=Latency(random.choice([20.0, 200.0, 1_000.0]), 0.5),
        quota=Quota(concurrency=random.choice([2, 1_000])),
        weight=random.choice([1.0, 1.0, 3.0]),
        max_pending=random.choice([20, 200_000]),
        poll_ms=12 * _MINUTE_MS,
    )


_KINDS: tuple[Callable[[str, Random], SimSource], ...] = (_chat, _drive, _wiki, _strict, _flaky, _backfill)


def _sources(random: Random) -> list[SimSource]:
    made = [random.choice(_KINDS)(f"s{number}", random) for number in range(random.randint(2, 5))]
    if random.random() < 0.4:  # two of one tenant
        shared = Quota(
            rate=random.uniform(0.5, 4.0), burst=random.choice([1.0, 6.0]), concurrency=random.choice([1, 6]), bucket="tenant"
        )
        made += [replace(_wiki("t0", random), quota=shared), replace(_chat("t1", random), quota=shared, changes_per_hour=60.0)]
    return made


# --- what goes wrong -------------------------------------------------------------------------------------------------


def _faults(random: Random, duration_ms: float, slots: int) -> list[Happening]:
    def sometime() -> float:
        return random.uniform(0.05, 0.9) * duration_ms

    found: list[Happening] = []
    for _ in range(random.choice([0, 1, 4])):
        found.append(Crash(sometime(), random.uniform(100, 60_000), random.choice([None, random.randrange(slots)])))
    for _ in range(random.choice([0, 1, 4])):
        found.append(Stall(sometime(), random.uniform(1_000, 120_000), random.randrange(slots)))
    if random.random() < 0.4:
        found.append(RedisRestart(sometime(), random.uniform(100, 20_000)))
    if random.random() < 0.2:
        found.append(RedisRestart(sometime(), random.uniform(500, 20_000), random.uniform(100, 2_000)))
    if random.random() < 0.25:
        found.append(RedisWipe(sometime()))
    # Fences of a new life are above those of the one before only if the server's clock is: see docs/simulation.md.
    if any(isinstance(one, RedisWipe) or (isinstance(one, RedisRestart) and one.loses_ms) for one in found):
        return found
    if random.random() < 0.3:
        by_ms = random.choice([1_000.0, 45_000.0, 600_000.0])
        first = sometime()
        found += [ClockJump(first, by_ms), ClockJump(first + random.uniform(1_000, 300_000), -by_ms)]
    if random.random() < 0.2:
        found.append(ClockJump(sometime(), -random.choice([200.0, 30_000.0])))
    return found


def _doings(random: Random, duration_ms: float, sources: list[SimSource]) -> list[Happening]:
    def sometime() -> float:
        return random.uniform(0.05, 0.9) * duration_ms

    found: list[Happening] = []
    for _ in range(random.choice([0, 0, 5])):
        source = random.choice(sources)
        found.append(Refresh(sometime(), source.id, random.choice(["", str(random.randrange(source.objects))])))
    if random.random() < 0.3:
        found.append(Pause(sometime(), random.choice(sources).id, random.uniform(5_000, 300_000)))
    if random.random() < 0.3:
        removed, at = random.choice(sources), sometime()
        found.append(Remove(at, removed.id))
        if random.random() < 0.6:
            found.append(Put(at + random.choice([0.0, 100.0, 60_000.0]), replace(removed, known=False)))
    if random.random() < 0.3:
        found.append(Put(sometime(), _wiki("late", random)))
    if random.random() < 0.3:
        changed = random.choice([source for source in sources if not source.quota.bucket] or sources)
        quota = replace(changed.quota, rate=random.choice([None, 0.5, 5.0]), burst=random.choice([1.0, 8.0]))
        found.append(Put(sometime(), replace(changed, quota=quota if not changed.quota.bucket else changed.quota)))
    return found


def random_world(seed: int) -> World:
    """A world of 20 to 50 virtual minutes. Seeds are any whole numbers."""
    random = Random(f"world/{seed}")
    duration_ms = random.uniform(20, 50) * _MINUTE_MS
    slots = random.randint(1, 6)
    sources = _sources(random)
    happenings = [*_faults(random, duration_ms, slots), *_doings(random, duration_ms, sources)]
    return World(
        seed,
        tuple(sources),
        slots=slots,
        duration_ms=duration_ms,
        happenings=tuple(sorted(happenings, key=lambda one: one.at_ms)),
        lost_replies=random.choice([0.0, 0.0, 0.002, 0.02]),
        claim_batch=random.choice([1, 8, 64]),
        slice_ms=random.choice([15_000.0, 60_000.0]),
        tick_ms=random.choice([2_500.0, 5_000.0, 10_000.0]),
        sample_ms=20_000.0,
        settle_ms=180 * _MINUTE_MS,
    )
