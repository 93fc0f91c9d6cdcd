"""A real server for the whole session; a bus of its own, on a clock turned by hand, for every test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from redis import Redis

from sourcebus.bus import Bus
from sourcebus.testing import ManualClock, running_server

_names = count(1)


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with running_server() as url:
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
