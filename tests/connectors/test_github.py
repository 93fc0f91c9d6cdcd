"""The connector `github` against the simulated GitHub: the suite, deltas, refusals, subscriptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import pytest

from sourcebus.connectors.github import GithubConnector
from sourcebus.errors import CursorExpired, InvalidInput, NeedsAuth, ObjectGone, ObjectUnreadable, SubscriptionLost, Throttled
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.github import TOKEN, GithubServer
from sourcebus.testing.providers.github_repository import SimulatedRepository
from sourcebus.testing.providers.server import Answer

HOOK = "http://127.0.0.1:9/hooks/docs"


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


Connect = Callable[..., GithubConnector]


@pytest.fixture
def connect(github: GithubServer, repo: SimulatedRepository) -> Generator[Connect]:
    made: list[GithubConnector] = []

    def make(*kinds: str, **more: object) -> GithubConnector:
        made.append(connected(github, repo, *kinds, **more))
        return made[-1]

    yield make
    for connector in made:
        connector.close()


def connected(github: GithubServer, repo: SimulatedRepository, *kinds: str, **more: object) -> GithubConnector:
    owner, _, name = repo.full_name.partition("/")
    config = {"owner": owner, "repo": name, "api": github.url, **({"kinds": [*kinds]} if kinds else {}), **more}
    return GithubConnector.create(config, TOKEN)


# the suite


class Files(SourceUnderTest):
    def __init__(self, github: GithubServer, repo: SimulatedRepository) -> None:
        self.github, self.repo = github, repo

    def connect(self) -> GithubConnector:
        return connected(self.github, self.repo)

    def write(self, name: str, text: str) -> str:
        self.repo.push({f"docs/{name}.md": text})
        return f"contents/docs/{name}.md"

    def delete(self, ref: str) -> None:
        self.repo.push({ref.removeprefix("contents/"): None})

    def break_off(self) -> None:
        self.github.refuse(Answer(502, {"message": "Server Error"}), times=1000)

    def mend(self) -> None:
        self.github.accept_again()


class Issues(Files):
    """Objects are issues, whose text is changed as often as it is asked for within one second."""

    def __init__(self, github: GithubServer, repo: SimulatedRepository) -> None:
        super().__init__(github, repo)
        self.numbers: dict[str, int] = {}

    def write(self, name: str, text: str) -> str:
        if name in self.numbers:
            self.repo.edit(self.numbers[name], body=text)
        else:
            self.numbers[name] = self.open(name, text)
        return f"{self.kind}/{self.numbers[name]}"

    kind = "issues"

    def open(self, name: str, text: str) -> int:
        return self.repo.open(name, text)

    def delete(self, ref: str) -> None:
        number = int(ref.split("/")[1])
        self.repo.delete(number)
        self.numbers = {name: held for name, held in self.numbers.items() if held != number}


class Comments(Issues):
    """Objects are pull requests, and what changes is their newest comment: nothing of the pull request itself is another one."""

    kind = "pulls"

    def write(self, name: str, text: str) -> str:
        if name not in self.numbers:
            self.numbers[name] = self.repo.open(name, head="f" * 40)
        number = self.numbers[name]
        if comments := self.repo.threads[number].comments:
            self.repo.edit_comment(number, comments[0]["id"], text, dates_issue=False)
        else:
            self.repo.comment(number, text)
        return f"pulls/{number}"


class TestFiles(ConnectorSuite):
    @pytest.fixture
    def source(self, github: GithubServer, repo: SimulatedRepository) -> SourceUnderTest:
        return Files(github, repo)


class TestIssues(ConnectorSuite):
    @pytest.fixture
    def source(self, github: GithubServer, repo: SimulatedRepository) -> SourceUnderTest:
        return Issues(github, repo)


class TestPullRequests(ConnectorSuite):
    @pytest.fixture
    def source(self, github: GithubServer, repo: SimulatedRepository) -> SourceUnderTest:
        return Comments(github, repo)
