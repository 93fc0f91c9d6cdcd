"""The connector `fsspec` on a real FTP server, the local disk, memory and an archive."""

from __future__ import annotations

import os
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sourcebus.connectors.fsspec import FsspecConnector
from sourcebus.connectors.fsspec.tokens import fingerprint_of, seconds, version_of
from sourcebus.errors import ConnectorError, InvalidInput, NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import WHOLE_SOURCE, Change, Cursor
from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.connector_suite import listing

pytest.importorskip("pyftpdlib", reason="pip install pyftpdlib")

USER, PASSWORD = "ada", "shallow-water"


class FtpServer:
    """A real FTP server on a loopback port, which it keeps when it is stopped and started again."""

    def __init__(self, home: Path, permissions: str = "elr") -> None:
        self.home, self.permissions, self.port = home, permissions, 0
        self.start()

    def start(self) -> None:
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.ioloop import IOLoop
        from pyftpdlib.servers import FTPServer

        authorizer: Any = DummyAuthorizer()
        authorizer.add_user(USER, PASSWORD, str(self.home), perm=self.permissions)
        self.authorizer = authorizer
        handler: Any = type("Handler", (FTPHandler,), {"authorizer": authorizer, "auth_failed_timeout": 0.01})
        loop: Any = IOLoop()
        server: Any = FTPServer(("127.0.0.1", self.port), handler, ioloop=loop)
        self.port = server.address[1]
        self._ended = threading.Event()

        def serve() -> None:
            while not self._ended.is_set():
                server.serve_forever(timeout=0.02, blocking=False, handle_exit=False)
            server.close_all()

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(5)


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[FtpServer]:
    import logging

    logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
    (tmp_path / "home" / "docs").mkdir(parents=True)
    server = FtpServer(tmp_path / "home")
    yield server
    server.stop()


class Folder(SourceUnderTest):
    """A directory of this machine, read in some way by fsspec."""

    def __init__(self, folder: Path, config: dict[str, Any], secret: str | None = None) -> None:
        self.folder, self.config, self.secret = folder, config, secret

    def connect(self, **settings: Any) -> FsspecConnector:
        return FsspecConnector.create(self.config | settings, self.secret)

    def write(self, name: str, text: str) -> str:
        (self.folder / f"{name}.txt").write_text(text)
        return f"{name}.txt"

    def delete(self, ref: str) -> None:
        (self.folder / ref).unlink()

    def rename(self, ref: str, name: str) -> str:
        (self.folder / ref).rename(self.folder / f"{name}.txt")
        return f"{name}.txt"

    def break_off(self) -> None:
        self.folder.rename(self.folder.with_name("away"))

    def mend(self) -> None:
        self.folder.with_name("away").rename(self.folder)


class OverFtp(Folder):
    def __init__(self, server: FtpServer) -> None:
        self.server = server
        config = {"url": f"ftp://127.0.0.1:{server.port}/docs", "storage_options": {"username": USER, "timeout": 5}}
        super().__init__(server.home / "docs", config, PASSWORD)

    def break_off(self) -> None:
        self.server.stop()

    def mend(self) -> None:
        self.server.start()


class Memory(SourceUnderTest):
    def __init__(self, name: str) -> None:
        self.root = f"/{name}"
        core: Any = fsspec
        self.fs: Any = core.filesystem("memory")
        self.fs.mkdirs(self.root)

    def connect(self) -> FsspecConnector:
        return FsspecConnector.create({"url": f"memory:/{self.root}"}, None)

    def write(self, name: str, text: str) -> str:
        self.fs.pipe(f"{self.root}/{name}.txt", text.encode())
        return f"{name}.txt"

    def delete(self, ref: str) -> None:
        self.fs.rm(f"{self.root}/{ref}")

    def rename(self, ref: str, name: str) -> str:
        self.fs.mv(f"{self.root}/{ref}", f"{self.root}/{name}.txt")
        return f"{name}.txt"


class TestFtp(ConnectorSuite):
    @pytest.fixture
    def source(self, ftp: FtpServer) -> SourceUnderTest:
        return OverFtp(ftp)


class TestLocal(ConnectorSuite):
    @pytest.fixture
    def source(self, root: Path) -> SourceUnderTest:
        return Folder(root, {"url": f"file://{root}"})


class TestMemory(ConnectorSuite):
    @pytest.fixture
    def source(self, request: pytest.FixtureRequest) -> Iterator[SourceUnderTest]:
        memory = Memory(f"m{abs(hash(request.node.name))}")
        yield memory
        memory.fs.rm(memory.root, recursive=True)


@pytest.fixture
def over_ftp(ftp: FtpServer) -> OverFtp:
    return OverFtp(ftp)


@pytest.fixture
def local(root: Path) -> Folder:
    return Folder(root, {"url": f"file://{root}"})


# -- FTP


def test_ftp_folders_with_any_name(over_ftp: OverFtp) -> None:
    for folder in ("Über uns", "a b", "100%"):
        (over_ftp.folder / folder / "deep").mkdir(parents=True)
        (over_ftp.folder / folder / "deep" / "x&y.txt").write_text(folder)
    connector = over_ftp.connect()
    found = listing(connector)
    assert set(found.found) == {"Über uns/deep/x&y.txt", "a b/deep/x&y.txt", "100%/deep/x&y.txt"} and found.complete
    for ref in found.found:
        assert connector.extract(ref).documents[0].text == ref.partition("/")[0]
    assert set(listing(connector, None, "a b").found) == {"a b/deep/x&y.txt"}
    connector.close()


def test_a_listing_that_ftp_refuses_is_no_empty_one(over_ftp: OverFtp) -> None:
    """fsspec's FTPFileSystem answers it with an empty list, which would delete everything below."""
    (over_ftp.folder / "open").mkdir()
    (over_ftp.folder / "secret").mkdir()
    for name in ("open/a.txt", "secret/b.txt"):
        (over_ftp.folder / name).write_text("text")
    over_ftp.server.authorizer.override_perm(USER, str(over_ftp.folder / "secret"), "e", recursive=True)
    connector = over_ftp.connect()
    found = listing(connector)
    assert set(found.found) == {"open/a.txt"} and not found.complete
    with pytest.raises(ConnectorError) as refused:
        connector.version("secret/b.txt")
    assert not isinstance(refused.value, ObjectGone)
    connector.close()


def test_a_root_that_ftp_refuses_is_no_empty_source(over_ftp: OverFtp) -> None:
    over_ftp.write("doc", "text")
    over_ftp.server.authorizer.override_perm(USER, str(over_ftp.folder), "e")
    connector = over_ftp.connect()
    with pytest.raises(NeedsAuth):
        listing(connector)
    connector.close()


def test_a_wrong_ftp_password_needs_a_person(over_ftp: OverFtp) -> None:
    connector = FsspecConnector.create(over_ftp.config, "not the password")
    with pytest.raises(NeedsAuth) as refused:
        listing(connector)
    assert "not the password" not in str(refused.value)
    with pytest.raises(NeedsAuth):
        connector.version("doc.txt")


def test_an_ftp_server_that_is_back_is_asked_again(over_ftp: OverFtp) -> None:
    ref = over_ftp.write("doc", "text")
    connector = over_ftp.connect()
    before = connector.version(ref)
    over_ftp.server.stop()
    with pytest.raises(SourceUnavailable):
        connector.version(ref)
    over_ftp.server.start()
    assert connector.version(ref) == before
    connector.close()


# -- the local disk


def test_nothing_outside_of_the_root_is_reached(local: Folder, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (local.folder / "link").symlink_to(tmp_path / "outside")
    (local.folder / "file.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (local.folder / "loop").symlink_to(local.folder)
    local.write("doc", "text")
    connector = local.connect()
    assert set(listing(connector).found) == {"doc.txt"}
    absolute = str(tmp_path / "outside" / "secret.txt")
    for ref in ("link/secret.txt", "file.txt", "../outside/secret.txt", "loop/doc.txt", absolute):
        assert connector.version(ref) is None
        with pytest.raises(ObjectGone):
            connector.extract(ref)
    for scope in ("link/", "../outside/", "loop/"):
        assert not listing(connector, None, scope).found
    connector.close()


def test_an_old_file_is_known_by_its_fingerprint(local: Folder) -> None:
    ref = local.write("doc", "text")
    os.utime(local.folder / ref, (1_700_000_000, 1_700_000_000))
    connector = local.connect()
    listed = listing(connector).found[ref]
    assert listed.fingerprint is not None
    assert listed.fingerprint == connector.fingerprint(ref) == connector.extract(ref).fingerprint
    connector.close()


def test_a_folder_that_may_not_be_read_makes_the_pass_incomplete(local: Folder) -> None:
    if os.getuid() == 0:
        pytest.skip("root may read everything: run the tests as somebody else")
    (local.folder / "secret").mkdir(mode=0)
    local.write("doc", "text")
    connector = local.connect()
    found = listing(connector)
    assert set(found.found) == {"doc.txt"} and not found.complete


def test_patterns_choose_what_is_an_object(local: Folder) -> None:
    for ref in ("a.md", "b.txt", "drafts/c.md", "docs/d.md"):
        (local.folder / ref).parent.mkdir(exist_ok=True)
        (local.folder / ref).write_text("text")
    connector = local.connect(include=["*.md"], exclude=["drafts"])
    assert set(listing(connector).found) == {"a.md", "docs/d.md"}
    assert connector.version("b.txt") is None and connector.version("drafts/c.md") is None
    assert not listing(connector, None, "drafts/").found
    connector.close()


def test_a_file_that_is_too_long_is_not_read(local: Folder) -> None:
    ref = local.write("doc", "x" * 2_000)
    connector = local.connect(max_bytes=1_000)
    with pytest.raises(ObjectUnreadable) as unreadable:
        connector.extract(ref)
    assert unreadable.value.reason == "too_large"
    assert unreadable.value.version == connector.version(ref)
    connector.close()


def test_what_cannot_be_shown_is_said(local: Folder) -> None:
    (local.folder / "x.bin").write_bytes(b"\0\1\2" * 50)
    connector = local.connect()
    with pytest.raises(ObjectUnreadable) as unreadable:
        connector.extract("x.bin")
    assert unreadable.value.version == connector.version("x.bin")
    connector.close()


def test_each_call_has_its_cost(local: Folder) -> None:
    ref = local.write("doc", "text")
    connector = local.connect()
    connector.take_cost()
    listing(connector)
    assert connector.take_cost() == 1
    connector.extract(ref)
    assert connector.take_cost() == 3
    connector.close()


# -- an archive


def test_an_archive_is_a_folder_and_a_new_one_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "docs.zip"

    def pack(**files: str) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(f"guides/{name}.txt", text)

    pack(one="1", two="2")
    connector = FsspecConnector.create({"url": f"zip://::file://{path}"}, None)
    assert set(listing(connector).found) == {"guides/one.txt", "guides/two.txt"}
    before = connector.version("guides/one.txt")
    pack(one="other", three="3")
    assert set(listing(connector).found) == {"guides/one.txt", "guides/three.txt"}
    assert connector.version("guides/one.txt") != before
    assert connector.version("guides/two.txt") is None
    assert connector.extract("guides/three.txt").documents[0].text == "3"
    path.unlink()
    with pytest.raises(ConnectorError):
        listing(connector)
    with pytest.raises(ConnectorError) as gone:
        connector.version("guides/one.txt")
    assert not isinstance(gone.value, ObjectGone)
    connector.close()


# -- what listings are worth


@pytest.mark.parametrize(
    ("protocol", "info", "version"),
    [
        ("s3", {"ETag": '"abc"', "size": 3}, "ETag abc"),
        ("gs", {"etag": "x", "generation": "17"}, "generation 17"),
        ("abfs", {"etag": "0x8D"}, "etag 0x8D"),
        ("abfs", {"etag": 'W/"x"'}, None),
        ("github", {"sha": "f00"}, "sha f00"),
        ("http", {"ETag": '"made-of-the-date"'}, None),
        ("ftp", {"modify": "20260101000000"}, None),
        ("file", {"mtime": 1.0}, None),
    ],
)
def test_only_tokens_of_the_content_are_versions(protocol: str, info: dict[str, Any], version: str | None) -> None:
    assert version_of(protocol, info) == version


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12.5, 12.5),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), 60.0),
        (datetime(1970, 1, 1, 0, 1), 60.0),  # noqa: DTZ001  as some filesystems give it
        ("1970-01-01T00:01:00Z", 60.0),
        ("19700101000100", 60.0),
        ("19700101000100.123", 60.0),
        ((1980, 1, 1, 0, 0, 0), 315_532_800.0),
        ((0, 0, 0), None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
    ],
)
def test_dates_in_every_form(value: Any, expected: float | None) -> None:
    assert seconds(value) == expected


def test_a_young_date_proves_nothing() -> None:
    assert fingerprint_of({"size": 3, "mtime": 100.0}, now_s=101.0) is None
    assert fingerprint_of({"size": 3, "mtime": 100.0}, now_s=200.0) is not None
    assert fingerprint_of({"size": 3, "mtime": time.time() + 3_600}) is None, "a clock that is ahead"
    assert fingerprint_of({"size": 3, "created": 1.0}) is None


# -- settings


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "url"),
        ({"url": 3}, "url"),
        ({"url": "/srv/docs"}, "url"),
        ({"url": "gopher://example.org/"}, "url"),
        ({"url": "file://srv"}, "url"),
        ({"url": "file:///srv/../etc"}, "url"),
        ({"url": "ftp://example.org/a/../b"}, "url"),
        ({"url": "simplecache::s3://bucket"}, "url"),
        ({"url": "simplecache://::file:///srv"}, "url"),
        ({"url": "zip://::tar://::file:///srv"}, "url"),
        ({"url": "reference://"}, "url"),
        ({"url": "file:///srv/*.txt"}, "url"),
        ({"url": "ftp://ada:pw@example.org/"}, "url"),
        ({"url": "memory://x", "storage_options": []}, "storage_options"),
        ({"url": "memory://x", "storage_options": {"password": "pw"}}, "storage_options.password"),
        (
            {"url": "memory://x", "storage_options": {"client_kwargs": {"aws_secret": "pw"}}},
            "storage_options.client_kwargs.aws_secret",
        ),
        ({"url": "memory://x", "storage_options": {"fo": "x"}}, "storage_options.fo"),
        ({"url": "memory://x", "include": "*.md"}, "include"),
        ({"url": "memory://x", "exclude": ["[z-a]"]}, "exclude"),
        ({"url": "memory://x", "max_bytes": 0}, "max_bytes"),
        ({"url": "memory://x", "version": "mtime"}, "version"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        FsspecConnector.create(config, None)
    assert refused.value.field == f"config.{field}"
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize("secret", ["{", '{"fo": "x"}'])
def test_a_secret_that_makes_no_sense_is_named_and_not_shown(secret: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        FsspecConnector.create({"url": "memory://x"}, secret)
    assert refused.value.field == "secret"


def test_what_is_not_installed_is_named() -> None:
    pytest.importorskip("fsspec")
    if _has("paramiko"):
        pytest.skip("paramiko is installed here, so nothing is missing")
    with pytest.raises(InvalidInput, match="paramiko"):
        FsspecConnector.create({"url": "sftp://example.org/srv"}, None)


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def test_a_listing_ends_with_one_cursor(local: Folder) -> None:
    local.write("doc", "text")
    connector = local.connect()
    items = list(connector.changes(None, WHOLE_SOURCE))
    assert [type(item) for item in items] == [Change, Cursor]
    connector.close()
