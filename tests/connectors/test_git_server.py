"""The mirror that the connector git reads from, and what servers answer: damage, limits, refusals, secrets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.connectors.git_serving import Open, git_open, git_server, repository

from sourcebus.errors import InvalidInput, NeedsAuth, SourceUnavailable, Throttled
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.git_server import GitServer, Repository
from sourcebus.testing.providers.server import Answer, ProviderServer

fixtures = (git_open, git_server, repository)


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


def test_trees_that_hold_each_other_are_given_up(
    repository: Repository, git_open: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven small trees that list as ten million files."""
    monkeypatch.setattr("sourcebus.connectors.git.command.MOST_SAID_BYTES", 5_000_000)
    entry = f"100644 blob {repository.git('hash-object', '-w', '--stdin', data=b'x').strip()}"
    for _ in range(7):
        listed = "".join(f"{entry}\td{number}\n" for number in range(10)).encode()
        entry = f"040000 tree {repository.git('mktree', data=listed).strip()}"
    tree = entry.split()[-1]
    commit = repository.git("-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", tree, "-m", "bomb").strip()
    repository.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(SourceUnavailable, match="too many files"):
        listing(git_open())


def test_a_place_that_cannot_be_written_is_named(repository: Repository, git_open: Open, tmp_path: Path) -> None:
    repository.commit({"a": b"1"})
    (tmp_path / "file").touch()
    with pytest.raises(SourceUnavailable, match=r"config\.cache_dir"):
        listing(git_open(cache_dir=str(tmp_path / "file")))


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


# the server


def test_a_server_without_protocol_version_2(git_server: GitServer, repository: Repository, git_open: Open) -> None:
    repository.commit({"a": b"1"})
    connector = git_open(url=repository.url.replace("/git/", "/old/"))
    cursor = listing(connector).cursor
    repository.commit({"a": b"2"})
    assert set(listing(connector, cursor).found) == {"a"}
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
    assert set(listing(connector, cursor).found) == {"a"}
    assert connector.take_cost() > 0
