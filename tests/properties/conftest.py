"""One real server for all property tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from sourcebus.testing import running_server


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with running_server() as url:
        client = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
        yield client
        client.close()
