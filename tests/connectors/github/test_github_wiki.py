"""The wiki of the connector `github`, read from real git repositories over HTTP."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest

from sourcebus.connectors import Connector
from sourcebus.connectors.github import GithubConnector
from sourcebus.errors import NeedsAuth, SourceUnavailable
from sourcebus.model import ChangeKind
from sourcebus.testing import ConnectorSuite, Hook, SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.github import TOKEN, GithubServer
from sourcebus.testing.providers.github_wiki import WikiServer
from sourcebus.testing.providers.server import Answer


def _has_http_backend() -> bool:
    if shutil.which("git") is None:
        return False
    return subprocess.run(["git", "http-backend"], capture_output=True, check=False).stderr.find(b"not a git command") < 0


pytestmark = pytest.mark.skipif(not _has_http_backend(), reason="needs git with http-backend: apt-get install git")


class WikiPages(SourceUnderTest):
    def __init__(self, github: GithubServer, wiki: WikiServer, name: str) -> None:
        self.github, self.wiki, self.name = github, wiki, name
        github.repository(name)

    def connect(self) -> GithubConnector:
        owner, _, repo = self.name.partition("/")
        config = {"owner": owner, "repo": repo, "kinds": ["wiki"], "api": self.github.url, "web": self.wiki.url}
        return GithubConnector.create(config, TOKEN)

    def write(self, name: str, text: str) -> str:
        self.wiki.write(self.name, {f"{name}.md": text})
        return f"wiki/{name}"

    def delete(self, ref: str) -> None:
        self.wiki.write(self.name, {f"{ref.removeprefix('wiki/')}.md": None})

    def break_off(self) -> None:
        self.wiki.refuse(Answer(502, b"bad gateway"), times=1000)

    def rename(self, ref: str, name: str) -> str:
        (text,) = (document.text for document in self.connect().extract(ref).documents)
        self.wiki.write(self.name, {f"{ref.removeprefix('wiki/')}.md": None, f"{name}.md": text})
        return f"wiki/{name}"

    def break_half_way(self) -> None:
        not_applicable("a fetch brings everything or nothing")

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        limited = Answer(429, b"slow down", {"Retry-After": "7"})
        return {"429": lambda: self.wiki.refuse(limited, times=1000)}

    def forbid(self, ref: str) -> None:
        not_applicable("permissions are of a whole repository")

    def listen(self, hook: Hook) -> None:
        not_applicable("GitHub announces no delete of a page; other tests hear the rest")

    def mend(self) -> None:
        self.wiki.accept_again()


@pytest.fixture(scope="module")
def github() -> Generator[GithubServer]:
    with GithubServer() as server:
        yield server


@pytest.fixture(scope="module")
def wiki_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[WikiServer]:
    with WikiServer(tmp_path_factory.mktemp("wikis")) as server:
        yield server


@pytest.fixture
def wiki(wiki_server: WikiServer) -> Generator[WikiServer]:
    yield wiki_server
    wiki_server.accept_again()
    wiki_server.tokens = {TOKEN}


@pytest.fixture
def source(github: GithubServer, wiki: WikiServer, request: pytest.FixtureRequest) -> WikiPages:
    return WikiPages(github, wiki, f"octo/w{abs(hash(request.node.nodeid))}")


class TestWiki(ConnectorSuite):
    pass


@pytest.fixture
def connector(source: WikiPages) -> Generator[GithubConnector]:
    made = source.connect()
    yield made
    made.close()


def test_a_page_has_the_name_of_its_address(source: WikiPages, connector: Connector) -> None:
    source.wiki.write(
        source.name,
        {"Home.md": "# Welcome", "guides/Über uns.mediawiki": "== We ==", "logo.png": b"\x89PNG\0", "_Sidebar.md": "s"},
    )
    assert set(listing(connector).found) == {"wiki/Home", "wiki/Über uns", "wiki/_Sidebar"}
    assert connector.extract("wiki/Home").documents[0].title == "Welcome"


def test_a_delta_tells_what_the_gollum_event_does_not(source: WikiPages, connector: Connector) -> None:
    """GitHub sends no event for a deleted page."""
    source.write("Kept", "k")
    source.write("Gone", "g")
    cursor = listing(connector).cursor
    source.delete("wiki/Gone")
    source.write("New", "n")
    result = listing(connector, cursor)
    assert set(result.found) == {"wiki/New"}
    assert result.deleted == {"wiki/Gone"}
    assert not result.complete
    assert {change.change_kind for change in result.found.values()} == {ChangeKind.UPDATED}


def test_a_wiki_out_of_sight_deletes_nothing(source: WikiPages, connector: Connector) -> None:
    ref = source.write("Home", "h")
    cursor = listing(connector).cursor
    source.wiki.tokens = {"another"}
    for call in (
        lambda: connector.version(ref),
        lambda: list(connector.changes(cursor)),
        lambda: list(connector.changes(None)),
    ):
        with pytest.raises(NeedsAuth):
            call()
    source.wiki.tokens = {TOKEN}
    shutil.move(source.wiki.folder / f"{source.name}.wiki.git", source.wiki.folder / "away")
    for call in (lambda: connector.version(ref), lambda: list(connector.changes(cursor))):
        with pytest.raises(NeedsAuth):
            call()


def test_the_copy_goes_with_the_connector_and_never_holds_the_token(
    source: WikiPages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source.write("Home", "h")
    connector = source.connect()
    listing(connector)
    (copy,) = tmp_path.glob("sourcebus-wiki-*")
    assert all(TOKEN.encode() not in path.read_bytes() for path in copy.rglob("*") if path.is_file())
    connector.close()
    assert not copy.exists()


def test_without_git_it_says_so(source: WikiPages, connector: Connector, monkeypatch: pytest.MonkeyPatch) -> None:
    source.write("Home", "h")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceUnavailable, match="needs git"):
        connector.version("wiki/Home")
