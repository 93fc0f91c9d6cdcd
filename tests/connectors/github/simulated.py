"""A connector on a repository of the simulated GitHub."""

from __future__ import annotations

from collections.abc import Callable

from sourcebus.connectors.github import GithubConnector
from sourcebus.testing.providers.github import TOKEN, GithubServer
from sourcebus.testing.providers.github_repository import SimulatedRepository

Connect = Callable[..., GithubConnector]
"""`connect(*kinds, **settings)`: a connector on the test's repository."""


def connected(github: GithubServer, repo: SimulatedRepository, *kinds: str, **more: object) -> GithubConnector:
    owner, _, name = repo.full_name.partition("/")
    config = {"owner": owner, "repo": name, "api": github.url, **({"kinds": [*kinds]} if kinds else {}), **more}
    return GithubConnector.create(config, TOKEN)
