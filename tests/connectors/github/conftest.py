"""One simulated GitHub for the tests of a module, a repository of its own for each test."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from tests.connectors.github.simulated import Connect, connected

from sourcebus.connectors.github import GithubConnector
from sourcebus.testing.providers.github import GithubServer
from sourcebus.testing.providers.github_repository import SimulatedRepository


@pytest.fixture(scope="module")
def one_server() -> Generator[GithubServer]:
    with GithubServer() as server:
        yield server


@pytest.fixture
def github(one_server: GithubServer) -> Generator[GithubServer]:
    yield one_server
    one_server.accept_again()
    one_server.hidden.clear()
    one_server.tree_limit, one_server.compare_limit, one_server.hook_permission, one_server.remaining = 100_000, 300, True, 5000


@pytest.fixture
def repo(github: GithubServer, request: pytest.FixtureRequest) -> SimulatedRepository:
    return github.repository(f"octo/r{abs(hash(request.node.nodeid))}")


@pytest.fixture
def connect(github: GithubServer, repo: SimulatedRepository) -> Generator[Connect]:
    made: list[GithubConnector] = []

    def make(*kinds: str, **more: object) -> GithubConnector:
        made.append(connected(github, repo, *kinds, **more))
        return made[-1]

    yield make
    for connector in made:
        connector.close()
