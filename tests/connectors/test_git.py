"""The connector git against git http-backend behind nginx: the suite, and what is git's own."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from tests.connectors.git_serving import Open, git_open, git_server, repository

from sourcebus.connectors import Connector
from sourcebus.connectors.git import GitConnector
from sourcebus.errors import (
    CursorExpired,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
)
from sourcebus.model import Change, ChangeKind, Cursor, Delivery
from sourcebus.testing import ConnectorSuite, Hook, SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.git_server import ENVIRONMENT, GitServer, Repository, WorkingCopy

pytestmark = pytest.mark.usefixtures("git_server")
fixtures = (git_open, git_server, repository)

SCRIPT = Path(__file__).parents[2] / "examples" / "git-post-receive" / "post-receive"
NOTHING = "0" * 40

numbers = count()


class Project(SourceUnderTest):
    """A repository on the server. Its outage is the server gone."""

    def __init__(self, server: GitServer, place: Path, door: str = "git") -> None:
        self.server, self.place, self.door = server, place, door
        self.name = f"suite{next(numbers)}"
        self.repository = server.create(self.name)
        self.heads: dict[str, str] = {}
        self.listening = False

    def connect(self) -> Connector:
        url = f"{self.server.url}/{self.door}/{self.name}.git"
        return GitConnector.create(
            {"url": url, "cache_dir": str(self.place)},
            f'{{"user": "reader", "token": "{self.server.password}", "webhook": "{self.server.password}"}}',
        )

    def commit(self, files: dict[str, bytes | None], *, branch: str = "main", orphan: bool = False) -> None:
        """As a push would: the hook of the repository is told."""
        before = self.heads.get(branch, NOTHING)
        after = self.heads[branch] = self.repository.commit(files, branch=branch, orphan=orphan)
        if self.listening:
            told = f"{before} {after} refs/heads/{branch}\n".encode()
            hook = self.repository.place / "hooks" / "post-receive"
            subprocess.run([hook], input=told, cwd=self.repository.place, env=ENVIRONMENT, check=True, capture_output=True)

    def write(self, name: str, text: str) -> str:
        self.commit({f"{name}.txt": text.encode()})
        return f"{name}.txt"

    def delete(self, ref: str) -> None:
        self.commit({ref: None})

    def rename(self, ref: str, name: str) -> str:
        self.commit({ref: None, f"{name}.txt": self.repository.git("show", f"main:{ref}").encode()})
        return f"{name}.txt"

    def break_half_way(self) -> None:
        not_applicable("a fetch brings everything or nothing")

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        not_applicable("this git server throttles nobody; tested with answers of its own")

    def forbid(self, ref: str) -> None:
        not_applicable("permissions are of a whole repository")

    def expire_cursor(self, cursor: str | None) -> str | None:
        """The branch is rewritten, its old commits collected, and the mirror of this machine lost."""
        files = {name: self.repository.git("show", f"main:{name}").encode() for name in self.names()}
        self.commit({**files}, orphan=True)
        self.repository.git("reflog", "expire", "--expire=now", "--all")
        self.repository.git("gc", "--quiet", "--prune=now")
        return f"{'a' * 40}{(cursor or '')[40:]}"

    def names(self) -> list[str]:
        return self.repository.git("ls-tree", "-r", "--name-only", "main").split()

    def listen(self, hook: Hook) -> None:
        self.repository.install_hook(SCRIPT, hook.address, self.server.password)
        self.listening = True

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        """A push to another branch."""
        self.commit({"doc.txt": b"text"}, branch="topic")
        return hook.ignored

    def break_off(self) -> None:
        self.server.stop()

    def mend(self) -> None:
        self.server.start()


class TestGit(ConnectorSuite):
    @pytest.fixture
    def source(self, git_server: GitServer, tmp_path: Path) -> SourceUnderTest:
        return Project(git_server, tmp_path)


def changed(connector: Connector, cursor: str | None) -> tuple[dict[str, str | None], str | None]:
    """What a delta says (None: deleted), and its cursor."""
    found = listing(connector, cursor)
    assert not found.complete, "a delta is no complete listing"
    return {ref: change.version for ref, change in found.found.items()} | dict.fromkeys(found.deleted), found.cursor


# what changed


def test_a_rename_is_one_path_gone_and_one_there(repository: Repository, git_open: Open) -> None:
    repository.commit({"old name.md": b"same text\n", "kept.md": b"k"})
    connector = git_open()
    first = listing(connector)
    repository.commit({"old name.md": None, "docs/new.md": b"same text\n"})
    difference, _ = changed(connector, first.cursor)
    assert difference == {"old name.md": None, "docs/new.md": first.found["old name.md"].version}
    assert connector.version("old name.md") is None


def test_an_executable_bit_is_no_new_version(repository: Repository, git_open: Open) -> None:
    repository.commit({"run": b"echo"})
    connector = git_open()
    cursor, before = listing(connector).cursor, connector.version("run")
    repository.commit({"run": b"echo"}, modes={"run": "100755"})
    assert changed(connector, cursor)[0] == {"run": before}


def test_a_force_push_yields_exactly_what_differs(repository: Repository, git_open: Open) -> None:
    repository.commit({"both": b"1", "changed": b"1"})
    repository.commit({"dropped": b"1"})
    connector = git_open()
    cursor = listing(connector).cursor
    repository.commit({"both": b"1", "changed": b"2", "new": b"1"}, orphan=True)
    difference, _ = changed(connector, cursor)
    assert set(difference) == {"changed", "dropped", "new"}
    assert difference["dropped"] is None


def test_the_delta_is_right_on_a_machine_that_never_saw_the_old_commit(
    repository: Repository, git_open: Open, tmp_path: Path
) -> None:
    repository.commit({"a": b"1", "b": b"1"})
    cursor = listing(git_open()).cursor
    repository.commit({"a": b"2"})
    elsewhere = git_open(cache_dir=str(tmp_path / "another machine"))
    assert set(changed(elsewhere, cursor)[0]) == {"a"}


def test_a_commit_that_the_server_has_no_more_expires_the_cursor(
    repository: Repository, git_open: Open, tmp_path: Path
) -> None:
    repository.commit({"a": b"1"})
    cursor = listing(git_open()).cursor
    repository.commit({"a": b"2"}, orphan=True)
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    elsewhere = git_open(cache_dir=str(tmp_path / "another machine"))
    with pytest.raises(CursorExpired):
        next(iter(elsewhere.changes(cursor)))
    assert listing(elsewhere).complete


@pytest.mark.parametrize("cursor", ["", "nonsense", "--upload-pack=touch pwned", "0" * 40, f"{'a' * 40}.{'b' * 8}"])
def test_a_cursor_of_somebody_else_expires(repository: Repository, git_open: Open, cursor: str) -> None:
    repository.commit({"a": b"1"})
    with pytest.raises(CursorExpired):
        next(iter(git_open().changes(cursor)))


def test_other_patterns_expire_the_cursor(repository: Repository, git_open: Open) -> None:
    """A delta would never list what the new patterns let in."""
    repository.commit({"a.md": b"1", "b.txt": b"1"})
    cursor = listing(git_open(include=["*.md"])).cursor
    wider = git_open(include=["*.md", "*.txt"])
    with pytest.raises(CursorExpired):
        next(iter(wider.changes(cursor)))
    assert set(listing(wider).found) == {"a.md", "b.txt"}


def test_patterns_choose_the_objects(repository: Repository, git_open: Open) -> None:
    repository.commit({"a.md": b"1", "docs/b.md": b"1", "docs/c.txt": b"1", "drafts/d.md": b"1"})
    connector = git_open(include=["*.md"], exclude=["drafts/"])
    found = listing(connector)
    assert set(found.found) == {"a.md", "docs/b.md"}
    assert connector.version("docs/c.txt") is None
    assert set(listing(connector, scope="docs").found) == {"docs/b.md"}
    repository.commit({"drafts/d.md": b"2", "docs/b.md": b"2", "docs/c.txt": b"2"})
    assert set(changed(connector, found.cursor)[0]) == {"docs/b.md"}


def test_odd_paths_come_back_as_they_are(repository: Repository, git_open: Open) -> None:
    odd = [
        "ünïcode/\N{SNOWMAN}.md",
        "not utf-8 \udcff\udcfe.txt",
        "new\nline",
        'quo"te\\',
        "-rf",
        "--help",
        " lead",
        "tab\t",
        ":(glob)*",
        "e\u0301",
        "\u00e9",
    ]
    repository.commit({path: path.encode("utf-8", "surrogateescape") for path in odd})
    connector = git_open()
    assert set(listing(connector).found) == set(odd)
    for path in odd:
        assert connector.extract(path).version == connector.version(path) is not None


def test_a_deleted_file_is_said_to_be_deleted(repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1", "b": b"1"})
    connector = git_open()
    cursor = listing(connector).cursor
    repository.commit({"a": None})
    said = [*connector.changes(cursor)]
    assert said[0] == Change("a", ChangeKind.DELETED)
    assert isinstance(said[1], Cursor)


# what is no object


def test_links_and_submodules_are_no_objects(repository: Repository, git_open: Open) -> None:
    commit = repository.commit({"file": b"text"})
    repository.commit({"link": b"/etc/passwd", "module": commit.encode()}, modes={"link": "120000", "module": "160000"})
    connector = git_open()
    found = listing(connector)
    assert set(found.found) == {"file"}
    assert connector.version("link") is connector.version("module") is connector.version("module/x") is None
    with pytest.raises(ObjectGone):
        connector.extract("link")
    repository.commit({"file": b"link now"}, modes={"file": "120000"})
    assert changed(connector, found.cursor)[0] == {"file": None}


def test_what_cannot_be_read_says_why_and_keeps_its_version(repository: Repository, git_open: Open) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    repository.commit({"big.bin": b"x" * 2_001, "lfs.bin": pointer, "image": b"\x89PNG\r\n\x1a\n\0\0\0", "small": b"x" * 2_000})
    connector = git_open(max_bytes=2_000)
    for path, reason in {"big.bin": "too_large", "lfs.bin": "lfs_pointer", "image": "binary"}.items():
        with pytest.raises(ObjectUnreadable) as unreadable:
            connector.extract(path)
        assert (unreadable.value.reason, unreadable.value.version) == (reason, connector.version(path))
    assert connector.extract("small").documents[0].text == "x" * 2_000


def test_blobs_over_the_limit_are_not_even_fetched(repository: Repository, git_open: Open, tmp_path: Path) -> None:
    repository.commit({"big.bin": bytes(range(256)) * 4_000, "small": b"x"})
    repository.git("config", "core.compression", "0")
    connector = git_open(max_bytes=10_000)
    listing(connector)
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.pack")) < 10_000


def test_a_server_that_cannot_leave_out_blobs_is_read_all_the_same(repository: Repository, git_open: Open) -> None:
    repository.git("config", "uploadpack.allowFilter", "false")
    repository.commit({"big.bin": b"x" * 2_001})
    connector = git_open(max_bytes=2_000)
    with pytest.raises(ObjectUnreadable, match="2001 bytes"):
        connector.extract("big.bin")


# branches


def test_one_branch_is_followed_and_no_other(repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1"})
    repository.git("branch", "release", "main")
    repository.git("branch", "release-2", "main")
    repository.git("tag", "v1", "main")
    default, release = git_open(), git_open(branch="release")
    repository.commit({"a": b"2"})
    repository.commit({"a": b"3"}, branch="release-2")
    assert default.extract("a").documents[0].text == "2"
    assert release.extract("a").documents[0].text == "1"


def test_a_deleted_branch_is_not_an_empty_source(repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1"})
    repository.git("branch", "topic", "main")
    connector = git_open(branch="topic")
    cursor = listing(connector).cursor
    repository.git("update-ref", "-d", "refs/heads/topic")
    for again in (connector, git_open(branch="topic")):
        for since in (cursor, None):
            with pytest.raises(SourceUnavailable, match="branch was deleted"):
                listing(again, since)
        with pytest.raises(SourceUnavailable, match="branch was deleted"):
            again.version("a")
        with pytest.raises(SourceUnavailable, match="branch was deleted"):
            again.extract("a")
    repository.commit({"a": b"2", "b": b"1"}, branch="topic")
    assert set(changed(connector, cursor)[0]) == {"a", "b"}


def test_a_default_branch_that_is_gone_is_not_an_empty_source(repository: Repository, git_open: Open, tmp_path: Path) -> None:
    repository.commit({"a": b"1"})
    connector = git_open()
    listing(connector)
    repository.git("update-ref", "-d", "refs/heads/main")  # the only one: as if the repository had been made anew, empty
    with pytest.raises(SourceUnavailable):
        listing(git_open())
    repository.commit({"a": b"1"}, branch="other")
    with pytest.raises(SourceUnavailable):  # also for who never saw it: there are branches, and HEAD names none of them
        listing(git_open(cache_dir=str(tmp_path / "another machine")))
    repository.git("symbolic-ref", "HEAD", "refs/heads/other")
    assert set(listing(connector).found) == {"a"}


# who asks, and how often


def test_one_request_answers_many_threads(repository: Repository, git_open: Open) -> None:
    repository.commit({f"f{number}": b"%d" % number for number in range(40)})
    connector = git_open()
    listing(connector)
    connector.take_cost()
    together = threading.Barrier(20)

    def ask(number: int) -> float:
        together.wait()
        assert connector.version(f"f{number}") is not None
        return connector.take_cost()

    with ThreadPoolExecutor(20) as pool:
        assert 1 <= sum(pool.map(ask, range(20))) <= 10


def test_reading_what_was_just_asked_for_costs_nothing_more(repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1"})
    connector = git_open()
    version = connector.version("a")
    assert connector.take_cost() == 2  # the question and the fetch
    assert connector.extract("a").version == version
    assert connector.take_cost() == 0
    repository.commit({"a": b"2"})
    assert connector.extract("a").documents[0].text == "2"  # not told beforehand: asked anew
    assert connector.take_cost() == 2


def test_a_batch_is_answered_by_one_question(repository: Repository, git_open: Open) -> None:
    """And the next batch, claimed later, by another: it may have been claimed for a change that came between."""
    repository.commit({f"f{number}": b"1" for number in range(20)})
    connector = git_open()
    listing(connector)
    connector.take_cost()
    connector.begin_batch()
    assert all(connector.version(f"f{number}") == connector.extract(f"f{number}").version for number in range(20))
    assert connector.take_cost() == 1
    repository.commit({"f7": b"2"})
    connector.begin_batch()
    assert connector.extract("f7").documents[0].text == "2"
    assert connector.take_cost() == 2


def test_a_thousand_files(repository: Repository, git_open: Open) -> None:
    repository.commit({f"dir{number % 30}/file {number}.md": b"text %d" % number for number in range(1_000)})
    connector = git_open()
    found = listing(connector)
    assert len(found.found) == 1_000
    repository.commit({"dir7/file 7.md": b"changed"})
    connector.take_cost()
    assert set(changed(connector, found.cursor)[0]) == {"dir7/file 7.md"}
    assert connector.take_cost() == 2


def test_processes_share_one_mirror(repository: Repository, git_open: Open) -> None:
    """Two connectors that know nothing of each other, at the same time: one fetch, both right."""
    repository.commit({f"f{number}": b"1" for number in range(50)})
    connectors = [git_open() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = [set(one.found) for one in pool.map(listing, connectors)]
    assert found == [{f"f{number}" for number in range(50)}] * 6


def test_pushes_while_it_reads(repository: Repository, git_open: Open, tmp_path: Path) -> None:
    """However pushes and readings meet, a version and its text belong together, and the last push is seen."""
    repository.commit({"counter": b"0"})
    copies = [WorkingCopy(repository, tmp_path / f"copy{number}") for number in range(2)]
    connector, done = git_open(), threading.Event()

    def push(number: int) -> None:
        copy = copies[number]
        for turn in range(4):
            (copy.folder / f"file{number}").write_text(f"{turn}")
            copy.commit()
            while True:
                try:
                    copy.git("pull", "--quiet", "--rebase", "origin", "main")
                    copy.push("HEAD:main")
                    break
                except subprocess.CalledProcessError:  # the other was first
                    continue

    def read() -> int:
        turns = 0
        while not done.is_set() or turns == 0:
            extraction = connector.extract("counter")
            assert extraction.documents[0].text == "0"
            for number in range(2):
                if (version := connector.version(f"file{number}")) is not None:
                    assert connector.extract(f"file{number}").version == version
            turns += 1
        return turns

    with ThreadPoolExecutor(4) as pool:
        readers, writers = [pool.submit(read) for _ in range(2)], [pool.submit(push, number) for number in range(2)]
        try:
            for writer in writers:
                writer.result(60)
        finally:
            done.set()
        assert all(reader.result(60) for reader in readers)
    assert [connector.extract(f"file{number}").documents[0].text for number in range(2)] == ["3", "3"]
