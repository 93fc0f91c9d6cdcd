"""Worlds by the number. A seed that fails prints how to see it again: ``python -m sourcebus.simulation --seed N``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from random import SystemRandom

import pytest
from redis import Redis

from sourcebus.simulation import random_world, simulate
from sourcebus.simulation.__main__ import failure
from tests.keyspace import check, read

SEEDS = 24
AUDIT_EVERY = 20  # samples: reading a whole keyspace costs as much as twenty calls


def auditor(redis: Redis) -> Callable[[], None]:
    samples = count()

    def audit() -> None:
        if next(samples) % AUDIT_EVERY == 0:
            check(read(redis, "simulation"))

    return audit


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_promise_is_kept(seed: int, url: str):
    redis = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
    report = simulate(random_world(seed), url, audit=auditor(redis))
    redis.close()
    assert report.good, failure(report)
    assert sum(source.looked for source in report.sources) > 20, "a world in which nothing happens proves nothing"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_new_worlds_for_some_minutes(url: str, capsys: pytest.CaptureFixture[str]):
    """``SOAK_MINUTES`` says for how long: 10, or hours."""
    redis = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]
    end = time.monotonic() + float(os.environ.get("SOAK_MINUTES", "10")) * 60
    first = SystemRandom().randrange(10**9)
    for seed in count(first):
        if time.monotonic() >= end:
            break
        if (seed - first) % 100 == 0:
            with capsys.disabled():
                print(f"\nsimulation: {seed - first} new worlds kept every promise, now at seed {seed}", flush=True)  # noqa: T201  a long run that says nothing looks hung
        report = simulate(random_world(seed), url, audit=auditor(redis))
        assert report.good, failure(report)
    redis.close()
