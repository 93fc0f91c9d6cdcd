"""One real server for all simulations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sourcebus.testing import running_server


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with running_server() as url:
        yield url
