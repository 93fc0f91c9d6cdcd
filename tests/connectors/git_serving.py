"""A real git server, started once, and a new repository on it for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sourcebus.connectors.git import GitConnector
from sourcebus.testing.git_server import GitServer, Repository

__all__ = ["Open", "git_open", "git_server", "repository"]

Open = Callable[..., GitConnector]

_numbers = count()


@pytest.fixture(scope="session")
def git_server() -> Iterator[GitServer]:
    try:
        server = GitServer()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def repository(git_server: GitServer) -> Repository:
    return git_server.create(f"r{next(_numbers)}")


@pytest.fixture
def git_open(repository: Repository, tmp_path: Path) -> Iterator[Open]:
    """`git_open(**settings)`: a connector on `repository`, with a mirror of this test's own."""
    opened: list[GitConnector] = []

    def make(secret: str | None = None, **settings: Any) -> GitConnector:
        config = {"url": repository.url, "cache_dir": str(tmp_path / "cache"), **settings}
        opened.append(GitConnector.create(config, secret))
        return opened[-1]

    yield make
    for connector in opened:
        connector.close()
