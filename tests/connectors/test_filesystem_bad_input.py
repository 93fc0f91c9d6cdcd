"""Every bad file of issue 2: each gives a clear reason, none stops the others, none is read outside of the root."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sourcebus.connectors.filesystem import FilesystemConnector
from sourcebus.errors import ConnectorError, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Change, Cursor

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to become another user, to make a device")


def unreadable(connector: FilesystemConnector, ref: str) -> ObjectUnreadable:
    """The reason why `ref` cannot be extracted; its version is the one that `version` gives."""
    with pytest.raises(ObjectUnreadable) as refused:
        connector.extract(ref)
    assert refused.value.version == connector.version(ref)
    assert refused.value.detail
    return refused.value


def listed(connector: FilesystemConnector, scope: str = "") -> tuple[dict[str, Change], bool]:
    items = [*connector.changes(None, scope)]
    end = items[-1]
    assert isinstance(end, Cursor)
    return {item.object_ref: item for item in items if isinstance(item, Change)}, end.complete


def age(*files: Path) -> None:
    """Put the files behind the kernel's tick, so that their fingerprints count."""
    import time

    newest = max(file.lstat().st_ctime_ns for file in files)
    while time.time_ns() - newest < 150_000_000:
        os.sched_yield()


# names


NAMES = {
    "newline": b"a\nb.txt",
    "control": b"\x01\x02\x1b.txt",
    "separator": b"a\x1fb.txt",
    "emoji": "\N{PILE OF POO}.txt".encode(),
    "255 bytes": b"n" * 251 + b".txt",
    "not UTF-8": b"\xff\xfe\xe9.txt",
    "backslash": b"a\\b.txt",
    "percent": b"%2e%2e.txt",
    "blank": b" ",
    "dash": b"-rf",
    "dots": b"...",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_any_name_is_listed_and_read(root: Path, connector: FilesystemConnector, name: bytes) -> None:
    with open(os.fsencode(root) + b"/" + name, "wb") as file:
        file.write(b"text")
    found, complete = listed(connector)
    (ref,) = found
    assert os.fsencode(ref) == name
    assert complete
    assert connector.version(ref) == connector.extract(ref).version
    title = connector.extract(ref).documents[0].title
    title.encode()  # a title can be stored anywhere


def test_a_tree_deeper_than_a_path_may_be_long(root: Path, connector: FilesystemConnector) -> None:
    (root / "a.txt").write_text("a")
    here = os.open(root, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep.txt", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found, complete = listed(connector)
    assert set(found) == {"a.txt"}
    assert not complete  # what could not be listed is not absent


# contents


def test_binary(root: Path, connector: FilesystemConnector) -> None:
    (root / "a.bin").write_bytes(bytes(range(256)) * 50)
    assert unreadable(connector, "a.bin").reason == "binary"


def test_oversized(root: Path, connect: Callable[..., FilesystemConnector]) -> None:
    (root / "big.txt").write_bytes(b"x" * 1001)
    (root / "fits.txt").write_bytes(b"x" * 1000)
    age(root / "big.txt")
    small = connect(max_bytes=1000)
    refused = unreadable(small, "big.txt")
    assert refused.reason == "too_large"
    assert refused.fingerprint == listed(small)[0]["big.txt"].fingerprint is not None
    assert small.extract("fits.txt").documents
    # A raised limit must be noticed by the next listing.
    assert connect(max_bytes=2000).fingerprint("big.txt") != refused.fingerprint
    assert connect(max_bytes=2000).version("big.txt") != refused.version


def test_an_oversized_file_is_not_read(root: Path, connector: FilesystemConnector) -> None:
    with (root / "sparse.txt").open("wb") as file:
        file.truncate(1 << 40)
    assert unreadable(connector, "sparse.txt").reason == "too_large"


def test_a_file_that_says_nothing_of_its_size_is_bounded() -> None:
    """Files of /proc have size 0 and any content."""
    connector = FilesystemConnector.create({"root": "/proc/self", "max_bytes": 10, "include": ["status"]})
    assert unreadable(connector, "status").reason == "too_large"


def test_not_utf8(root: Path, connector: FilesystemConnector) -> None:
    (root / "latin.txt").write_bytes("Größe und Qualität, für Käufer in München".encode("latin-1"))
    assert "Größe und Qualität" in connector.extract("latin.txt").documents[0].text


def as_a_user(root: Path, check: Callable[[], None]) -> None:
    """Run `check` as somebody who may not read everything: in a child process where the tests run as root."""
    if os.geteuid() != 0:
        check()
        return
    for directory in root.parents:
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setuid(65534)
            check()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as a second pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_that_may_not_be_read(root: Path, connector: FilesystemConnector) -> None:
    (root / "secret.txt").write_text("secret")
    (root / "secret.txt").chmod(0)

    def check() -> None:
        refused = unreadable(connector, "secret.txt")
        assert (refused.reason, refused.fingerprint) == ("permission", None)  # asked again at every listing
        found, complete = listed(connector)
        assert set(found) == {"secret.txt"}
        assert complete

    as_a_user(root, check)


def test_a_directory_that_cannot_be_listed_deletes_nothing(root: Path, connector: FilesystemConnector) -> None:
    closed = root / "closed"
    closed.mkdir()
    (closed / "inside.txt").touch()
    (root / "a.txt").touch()
    closed.chmod(0)

    def check() -> None:
        with capture_logs() as logs:
            found, complete = listed(connector)
        assert set(found) == {"a.txt"}
        assert not complete
        assert "closed" in str(logs)
        assert unreadable(connector, "closed/inside.txt").reason == "permission"
        assert listed(connector, "closed") == ({}, False)
        assert listed(connector, "closed/inside.txt") == ({}, False)

    as_a_user(root, check)
    closed.chmod(0o755)
    assert listed(connector)[1]


# what is no regular file


def test_a_fifo_is_never_opened(root: Path, connector: FilesystemConnector) -> None:
    os.mkfifo(root / "pipe")
    assert unreadable(connector, "pipe").reason == "not_a_file"
    assert "FIFO" in unreadable(connector, "pipe").detail
    assert "pipe" in listed(connector)[0]
    # A writer still waits for a reader: nobody has opened the other end.
    with pytest.raises(OSError, match="No such device or address"):
        os.open(root / "pipe", os.O_WRONLY | os.O_NONBLOCK)


def test_a_socket(root: Path, connector: FilesystemConnector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert unreadable(connector, "s").reason == "not_a_file"


@needs_root
def test_a_device(root: Path, connector: FilesystemConnector) -> None:
    try:
        os.mknod(root / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("needs the right to make devices (CAP_MKNOD)")
    assert unreadable(connector, "zero").reason == "not_a_file"


def test_a_fifo_that_becomes_a_file_is_read(root: Path, connector: FilesystemConnector) -> None:
    os.mkfifo(root / "a")
    before = connector.version("a")
    (root / "a").unlink()
    (root / "a").write_text("text")
    assert connector.version("a") != before
    assert connector.extract("a").documents[0].text == "text"


# links


def test_no_link_is_followed(root: Path, tmp_path: Path, connector: FilesystemConnector) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (root / "real.txt").write_text("real")
    (root / "file").symlink_to(outside / "secret.txt")
    (root / "directory").symlink_to(outside)
    (root / "inside").symlink_to("real.txt")
    (root / "loop").symlink_to(".")
    (root / "dangling").symlink_to("nowhere")
    found, complete = listed(connector)
    assert set(found) == {"real.txt"}
    assert complete
    for ref in ("file", "directory/secret.txt", "inside", "loop/real.txt", "dangling", "../outside/secret.txt"):
        assert connector.version(ref) is None
        with pytest.raises(ObjectGone):
            connector.extract(ref)
    for scope in ("directory", "loop", "../outside", "directory/", "/etc"):
        assert listed(connector, scope) == ({}, True)


def test_a_directory_swapped_for_a_link_while_it_is_read_leads_nowhere(
    root: Path, tmp_path: Path, connector: FilesystemConnector
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("outside")
    inside = root / "d"
    inside.mkdir()
    (inside / "a.txt").write_text("inside")
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(inside, root / "aside")
            os.rename(root / "link", inside)
            os.rename(inside, root / "link")
            os.rename(root / "aside", inside)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        texts: set[str] = set()
        for _ in range(2_000):
            try:
                texts.add(connector.extract("d/a.txt").documents[0].text)
            except ObjectGone:
                texts.add("gone")
    finally:
        stop.set()
        thread.join()
    assert "outside" not in texts


# what changes while one looks


def test_a_file_that_vanishes_while_it_is_looked_at_is_gone_or_whole(root: Path, connector: FilesystemConnector) -> None:
    file, stop = root / "a.txt", threading.Event()

    def flicker() -> None:
        while not stop.is_set():
            file.write_text("text")
            file.unlink()

    thread = threading.Thread(target=flicker)
    thread.start()
    try:
        for _ in range(1_000):
            try:
                assert connector.extract("a.txt").documents[0].text in ("text", "")
            except ObjectGone:
                pass
            assert connector.version("a.txt") != "denied"
            assert listed(connector)[1]
    finally:
        stop.set()
        thread.join()


def test_the_version_is_of_the_bytes_that_were_read(root: Path, connector: FilesystemConnector) -> None:
    """A writer at work all the time: whatever is read, version and text belong together."""
    import hashlib

    file, stop = root / "a.txt", threading.Event()
    file.write_text("0" * 5_000)

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            file.write_text(str(number % 10) * 5_000)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            extraction = connector.extract("a.txt")
            text = extraction.documents[0].text
            assert extraction.version == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            assert extraction.fingerprint is None
    finally:
        stop.set()
        thread.join()


def test_a_file_restored_with_an_old_date_is_noticed(root: Path, connector: FilesystemConnector) -> None:
    file = root / "a.txt"
    file.write_text("new text")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    age(file)
    before, fingerprint = connector.version("a.txt"), connector.fingerprint("a.txt")
    assert fingerprint is not None
    file.write_text("old text")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert connector.version("a.txt") != before
    assert connector.fingerprint("a.txt") != fingerprint
    age(file)
    assert connector.fingerprint("a.txt") not in (fingerprint, None)


def test_a_file_replaced_by_a_folder_and_back(root: Path, connector: FilesystemConnector) -> None:
    path = root / "a"
    path.write_text("file")
    version = connector.version("a")
    path.unlink()
    path.mkdir()
    (path / "b").write_text("below")
    assert connector.version("a") is None
    with pytest.raises(ObjectGone, match="directory"):
        connector.extract("a")
    assert set(listed(connector)[0]) == {"a/b"}
    assert set(listed(connector, "a/")[0]) == {"a/b"}
    (path / "b").unlink()
    path.rmdir()
    path.write_text("file")
    assert connector.version("a/b") is None
    assert connector.version("a") == version


# scopes and the root


def test_a_scope_lists_a_directory_a_file_or_nothing(root: Path, connector: FilesystemConnector) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "dd").mkdir()
    for name in ("d/a.txt", "d/e/b.txt", "dd/c.txt"):
        (root / name).touch()
    assert set(listed(connector, "d")[0]) == set(listed(connector, "d/")[0]) == {"d/a.txt", "d/e/b.txt"}
    assert listed(connector, "d/a.txt")[0].keys() == {"d/a.txt"}
    assert listed(connector, "missing") == ({}, True)
    assert listed(connector, "d/missing/") == ({}, True)
    assert connector.scope_prefix("d") == connector.scope_prefix("d/") == "d/"
    assert connector.scope_prefix("") == ""


def test_an_excluded_scope_holds_nothing(root: Path, connect: Callable[..., FilesystemConnector]) -> None:
    (root / ".git" / "x").mkdir(parents=True)
    (root / ".git" / "x" / "a").touch()
    assert listed(connect(), ".git") == ({}, True)
    assert listed(connect(), ".git/x") == ({}, True)


def test_a_missing_root_is_an_outage_until_it_is_back(root: Path, connector: FilesystemConnector) -> None:
    (root / "a.txt").write_text("a")
    version = connector.version("a.txt")
    root.rename(root.with_name("away"))
    for call in (lambda: listed(connector), lambda: connector.version("a.txt"), lambda: connector.extract("a.txt")):
        with pytest.raises(SourceUnavailable):
            call()
    root.with_name("away").rename(root)
    assert connector.version("a.txt") == version


def test_a_root_that_is_a_file_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceUnavailable, match="Not a directory"):
        FilesystemConnector.create({"root": str(tmp_path / "file")}).version("a")


def test_a_root_replaced_while_it_is_listed_is_not_complete(root: Path, connector: FilesystemConnector) -> None:
    for number in range(3):
        (root / f"{number}.txt").touch()
    changes = iter(connector.changes(None))
    next(changes)
    root.rename(root.with_name("away"))
    root.mkdir()
    with pytest.raises(SourceUnavailable):
        list(changes)


def test_a_root_that_shall_be_mounted_and_is_not(root: Path, connect: Callable[..., FilesystemConnector]) -> None:
    with pytest.raises(SourceUnavailable, match="mounted"):
        listed(connect(mounted=True))


@needs_root
def test_an_unmounted_root_is_an_outage(root: Path) -> None:
    """In a mount namespace of its own, so that the machine does not notice."""
    code = f"""
import subprocess
from sourcebus.connectors.filesystem import FilesystemConnector
from sourcebus.errors import SourceUnavailable
root = {str(root)!r}
subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
open(root + "/a.txt", "w").close()
connector = FilesystemConnector.create({{"root": root}})
assert connector.version("a.txt")
subprocess.run(["umount", root], check=True)
for call in (lambda: connector.version("a.txt"), lambda: list(connector.changes(None))):
    try:
        call()
    except SourceUnavailable:
        continue
    raise SystemExit("an unmounted root passed for an empty one")
subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
assert connector.version("a.txt") is None
print("good")
"""
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    if "unshare" in done.stderr or "mount: " in done.stderr:
        pytest.skip(f"needs the right to mount in a namespace: {done.stderr.strip()}")
    assert done.stdout.strip() == "good", done.stderr


def test_nothing_stays_open(root: Path, connector: FilesystemConnector) -> None:
    (root / "d").mkdir()
    (root / "d" / "a.txt").write_text("a")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        connector.extract("d/a.txt")
        connector.version("d/missing")
        changes: Any = iter(connector.changes(None))
        next(changes)
        changes.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_too_many_open_files_is_a_passing_fault(root: Path, connector: FilesystemConnector) -> None:
    import resource

    (root / "a.txt").write_text("a")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(ConnectorError) as fault:
            connector.version("a.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert fault.value.retry
    assert type(fault.value) is ConnectorError
    assert connector.version("a.txt")
