"""The connector git against git http-backend behind nginx: the suite, and what is git's own."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from tests.connectors.git_serving import Open, git_open, git_server, repository

from sourcebus.connectors import Connector
from sourcebus.connectors.git import GitConnector
from sourcebus.errors import (
    CursorExpired,
    InvalidInput,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
    Throttled,
)
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.git_server import GitServer, Repository, WorkingCopy
from sourcebus.testing.providers.server import Answer, ProviderServer

pytestmark = pytest.mark.usefixtures("git_server")
fixtures = (git_open, git_server, repository)

numbers = count()


class Project(SourceUnderTest):
    """A repository on the server. Its outage is the server gone."""

    def __init__(self, server: GitServer, place: Path, door: str = "git") -> None:
        self.server, self.place, self.door = server, place, door
        self.name = f"suite{next(numbers)}"
        self.repository = server.create(self.name)

    def connect(self) -> Connector:
        url = f"{self.server.url}/{self.door}/{self.name}.git"
        return GitConnector.create(
            {"url": url, "cache_dir": str(self.place)}, f'{{"user": "reader", "token": "{self.server.password}"}}'
        )

    def write(self, name: str, text: str) -> str:
        self.repository.commit({f"{name}.txt": text.encode()})
        return f"{name}.txt"

    def delete(self, ref: str) -> None:
        self.repository.commit({ref: None})

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
        found = [*pool.map(lambda one: set(listing(one).found), connectors)]
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


# the mirror


@pytest.mark.parametrize("damage", ["pack", "truncated", "head", "everything", "stale lock"])
def test_a_damaged_mirror_is_made_anew(repository: Repository, git_open: Open, tmp_path: Path, damage: str) -> None:
    repository.commit({"a": b"1", "b": b"1"})
    cursor = listing(git_open()).cursor
    (mirror,) = (tmp_path / "cache").glob("*/repo.git")
    packs = [*mirror.rglob("*.pack")]
    if damage == "pack":
        packs[0].unlink()
    elif damage == "truncated":
        packs[0].chmod(0o600)
        packs[0].write_bytes(packs[0].read_bytes()[:40])
    elif damage == "head":
        (mirror / "refs" / "sourcebus" / "head").write_text("garbage\n")
    elif damage == "everything":
        (mirror / "HEAD").unlink()
    else:
        (mirror / "shallow.lock").touch()
        repository.commit({"a": b"2"})
    again = git_open()
    assert again.extract("b").documents[0].text == "1"
    assert set(listing(again).found) == {"a", "b"}
    assert listing(again, cursor).cursor is not None


def test_a_mirror_damaged_under_a_running_connector_is_made_anew(
    repository: Repository, git_open: Open, tmp_path: Path
) -> None:
    repository.commit({"a": b"1", "b": b"2"})
    connector = git_open()
    version = connector.version("a")
    (pack,) = (tmp_path / "cache").rglob("*.pack")
    pack.unlink()
    assert connector.extract("a").version == version  # read from a copy that lacks it now
    assert connector.extract("b").documents[0].text == "2"


def test_a_mirror_of_many_fetches_is_made_anew(
    repository: Repository, git_open: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sourcebus.connectors.git.mirror.MOST_PACKS", 3)
    connector = git_open()
    most = 0
    for number in range(8):
        repository.commit({"a": b"%d" % number})
        assert connector.extract("a").documents[0].text == f"{number}"
        most = max(most, len([*(tmp_path / "cache").rglob("*.pack")]))
    assert most == 4


def test_a_mirror_has_a_largest_size(repository: Repository, git_open: Open) -> None:
    repository.commit({f"f{number}": b"%d" % number for number in range(300)})
    assert listing(git_open(max_mirror_bytes=100_000)).complete
    with pytest.raises(SourceUnavailable, match="max_mirror_bytes"):
        listing(git_open(max_mirror_bytes=100, max_bytes=1_000))  # another limit, so a mirror of its own


def test_a_place_that_cannot_be_written_is_named(repository: Repository, git_open: Open, tmp_path: Path) -> None:
    repository.commit({"a": b"1"})
    (tmp_path / "file").touch()
    with pytest.raises(SourceUnavailable, match=r"config\.cache_dir"):
        listing(git_open(cache_dir=str(tmp_path / "file")))


# the server


def test_a_server_without_protocol_version_2(git_server: GitServer, repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1"})
    connector = git_open(url=repository.url.replace("/git/", "/old/"))
    cursor = listing(connector).cursor
    repository.commit({"a": b"2"})
    assert set(changed(connector, cursor)[0]) == {"a"}
    repository.git("update-ref", "-d", "refs/heads/main")
    with pytest.raises(SourceUnavailable):
        listing(connector)


def test_credentials(git_server: GitServer, repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1"})
    url = repository.url.replace("/git/", "/private/")
    assert git_open(f'{{"user": "reader", "password": "{git_server.password}"}}', url=url).version("a")
    for secret in (None, "wrong-but-secret", '{"user": "reader", "password": "wrong-but-secret"}'):
        with pytest.raises(NeedsAuth) as refused:
            git_open(secret, url=url).version("a")
        assert "wrong-but-secret" not in f"{refused.value!r} {refused.value.__cause__!r}"


def test_credentials_refused_by_the_command_are_a_persons_matter_too(
    git_server: GitServer, repository: Repository, git_open: Open
) -> None:
    """The one path on which the server's status is known from git's words only: no version 2, so ls-remote asks."""
    with ProviderServer() as provider:
        provider.on("POST", ".*", lambda _asked: Answer(404))
        provider.on("GET", ".*", lambda _asked: Answer(401, headers={"WWW-Authenticate": 'Basic realm="git"'}))
        with pytest.raises(NeedsAuth) as refused:
            git_open("wrong-but-secret", url=f"{provider.url}/a.git").version("a")
        assert any("authorization" in asked.headers for asked in provider.asked if asked.method == "GET")
    assert "wrong-but-secret" not in f"{refused.value!r} {refused.value.__cause__!r}"


def test_no_secret_is_in_an_argument_or_a_file(
    git_server: GitServer, repository: Repository, git_open: Open, tmp_path: Path
) -> None:
    """Everybody on a machine can read the arguments of every process."""
    repository.commit({"a": b"1"})
    seen, done = set[str](), threading.Event()

    def look() -> None:
        while not done.is_set():
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(line.read_bytes().decode("utf-8", "replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        connector = git_open(
            f'{{"user": "reader", "password": "{git_server.password}"}}', url=repository.url.replace("/git/", "/private/")
        )
        for number in range(3):
            repository.commit({"a": b"%d" % number})
            assert connector.version("a")
    finally:
        done.set()
        watcher.join()
    assert any("remote-http" in line or "fetch" in line for line in seen), "it looked too seldom to have seen a fetch"
    assert not [line for line in seen if git_server.password in line]
    files = [file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert files
    assert not [data for data in files if git_server.password.encode() in data]


def test_a_redirect_is_not_followed(git_server: GitServer, repository: Repository, git_open: Open) -> None:
    """It may lead inside the network. The message says what to do."""
    repository.commit({"a": b"1"})
    with pytest.raises(SourceUnavailable, match="redirects"):
        listing(git_open(url=repository.url.replace("/git/", "/moved/")))


def test_no_repository_is_not_an_empty_source(git_server: GitServer, git_open: Open) -> None:
    connector = git_open(url=f"{git_server.url}/git/none.git")
    with pytest.raises(SourceUnavailable, match="not found"):
        listing(connector)
    with pytest.raises(SourceUnavailable):
        connector.version("a")


@pytest.mark.parametrize("status", [429, 503])
def test_a_throttle_waits_as_long_as_the_server_says(git_open: Open, status: int) -> None:
    with ProviderServer() as provider:
        provider.refuse(Answer(status, headers={"Retry-After": "7"}), times=9)
        with pytest.raises(Throttled) as throttled:
            git_open(url=f"{provider.url}/a.git").version("a")
    assert throttled.value.retry_after_ms == 7_000


def test_an_answer_that_is_cut_off_is_no_answer(git_open: Open) -> None:
    """A list of refs that ends early must not pass for a branch that is gone."""
    result = {"Content-Type": "application/x-git-upload-pack-result"}
    with ProviderServer() as provider:
        provider.on("POST", ".*", lambda _asked: Answer(200, b"0032" + b"a" * 40, result))
        with pytest.raises(SourceUnavailable, match="cut off"):
            git_open(url=f"{provider.url}/a.git").version("a")


def test_a_server_that_hangs_is_given_up(git_open: Open) -> None:
    stop = threading.Event()
    with ProviderServer() as provider:
        provider.on("POST", ".*", lambda _asked: Answer(404))
        provider.on("GET", ".*", lambda _asked: Answer(200 if stop.wait(10) else 500))
        connector = git_open(url=f"{provider.url}/a.git", timeout_s=1)
        with pytest.raises(SourceUnavailable, match="longer than 1 s"):
            connector.version("a")
        stop.set()


def test_a_repository_on_this_machine_only_if_allowed(repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1"})
    with pytest.raises(InvalidInput, match=r"config\.protocols"):
        git_open(url=f"file://{repository.place}")
    connector = git_open(url=f"file://{repository.place}", protocols=["file"])
    cursor = listing(connector).cursor
    repository.commit({"a": b"2"})
    assert set(changed(connector, cursor)[0]) == {"a"}
    assert connector.take_cost() > 0


# settings


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("url", {}),
        ("url", {"url": 7}),
        ("url", {"url": "git@host:group/project.git"}),
        ("url", {"url": "ssh://git@host/project.git"}),
        ("url", {"url": "ext::sh -c touch% /tmp/pwned"}),
        ("url", {"url": "--upload-pack=touch /tmp/pwned"}),
        ("url", {"url": "https://user:secret@host/a.git"}),
        ("url", {"url": "https://token@host/a.git"}),
        ("url", {"url": "https://host/a.git?x=1"}),
        ("url", {"url": "https://host/a b"}),
        ("url", {"url": "https://host:99999/a"}),
        ("url", {"url": "https:///a"}),
        ("url", {"url": "ssh://-oProxyCommand=touch/a", "protocols": ["ssh"]}),
        ("branch", {"branch": "--upload-pack=x"}),
        ("branch", {"branch": "a..b"}),
        ("branch", {"branch": "a b"}),
        ("branch", {"branch": "a:refs/heads/x"}),
        ("branch", {"branch": "a*"}),
        ("branch", {"branch": ""}),
        ("branch", {"branch": "refs/heads/"}),
        ("branch", {"branch": "x.lock"}),
        ("include", {"include": "*.md"}),
        ("exclude", {"exclude": ["[z-a]"]}),
        ("protocols", {"protocols": ["ext"]}),
        ("max_bytes", {"max_bytes": 0}),
        ("timeout_s", {"timeout_s": "soon"}),
        ("cache_dir", {"cache_dir": "relative"}),
        ("brunch", {"brunch": "main"}),
    ],
)
def test_a_setting_that_is_wrong_is_named(field: str, config: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        GitConnector.create({"url": "https://host/a.git"} | config if field != "url" or config else config, None)
    assert refused.value.field == f"config.{field}"
    assert "secret@" not in str(refused.value)
    assert "token@" not in str(refused.value)


@pytest.mark.parametrize(
    "secret", ['{"password": "hidden"}', '{"user": "a:b", "token": "hidden"}', '{"token": "hid\\nden"}', '{"tokn": "hidden"}']
)
def test_a_secret_that_is_wrong_is_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        GitConnector.create({"url": "https://host/a.git"}, secret)
    assert refused.value.field == "secret"
    assert "hid" not in str(refused.value)


def test_creating_one_talks_to_nobody(tmp_path: Path) -> None:
    connector = GitConnector.create({"url": "https://host.invalid/a.git", "cache_dir": str(tmp_path / "none")}, "token")
    connector.close()
    assert not (tmp_path / "none").exists()


def test_a_deleted_file_is_said_to_be_deleted(repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1", "b": b"1"})
    connector = git_open()
    cursor = listing(connector).cursor
    repository.commit({"a": None})
    said = [*connector.changes(cursor)]
    assert said[0] == Change("a", ChangeKind.DELETED)
    assert isinstance(said[1], Cursor)


def names(found: Iterator[Path]) -> set[str]:
    return {path.name for path in found}


def test_no_hook_of_the_mirror_runs(repository: Repository, git_open: Open, tmp_path: Path) -> None:
    """Somebody who can write into the cache, or a template on the machine, gets no command run by it."""
    repository.commit({"a": b"1"})
    listing(git_open())
    (mirror,) = (tmp_path / "cache").glob("*/repo.git")
    hook = mirror / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    repository.commit({"a": b"2"})
    assert listing(git_open()).complete
    assert "ran" not in names(tmp_path.iterdir())
