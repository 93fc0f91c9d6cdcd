"""The connector `webdav` on WsgiDAV (ETags only) and Radicale (sync tokens)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.connectors.webdav_servers import EVENT, INSTALL, Calendar, Files, WebServer, radicale, walk, wsgidav

from sourcebus.connectors.webdav import WebdavConnector
from sourcebus.errors import (
    CursorExpired,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
)
from sourcebus.model import Cursor
from sourcebus.testing import ConnectorSuite, SourceUnderTest

pytest.importorskip("radicale", reason=INSTALL)
pytest.importorskip("wsgidav", reason=INSTALL)


@pytest.fixture(scope="module")
def files_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def files_server(files_folder: Path) -> Iterator[WebServer]:
    server = wsgidav(files_folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def calendar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calendars")


@pytest.fixture(scope="module")
def calendar_server(calendar_folder: Path) -> Iterator[WebServer]:
    server = radicale(calendar_folder)
    yield server
    server.stop()


@pytest.fixture
def files(files_server: WebServer) -> Iterator[Files]:
    files = Files(files_server)
    yield files
    files.close()


@pytest.fixture
def calendar(calendar_server: WebServer) -> Iterator[Calendar]:
    calendar = Calendar(calendar_server, version="etag")
    yield calendar
    calendar.close()


class TestWsgiDav(ConnectorSuite):
    @pytest.fixture
    def source(self, files: Files) -> SourceUnderTest:
        return files


class TestRadicale(ConnectorSuite):
    @pytest.fixture
    def source(self, calendar: Calendar) -> SourceUnderTest:
        return calendar


# -- files, listed by ETags


NAMES = ["Grüße 100% & mehr.txt", "a#b?c;d+e=f.txt", "100%25.txt", "[x]{y}~.txt", "\N{SNOWMAN}.txt", "quote'\"<>&.txt"]


def test_any_name_comes_back_as_it_was(files: Files, files_folder: Path) -> None:
    folder = files_folder / files.folder
    (folder / "Über uns" / "%C3").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name)
        (folder / "Über uns" / "%C3" / name).write_text(name)
    connector = files.connect()
    found = set(walk(connector)[0].found)
    assert found == {*NAMES, *(f"Über uns/%C3/{name}" for name in NAMES)}
    for ref in found:
        assert connector.extract(ref).documents[0].text == ref.rpartition("/")[2]
        assert connector.version(ref) == connector.extract(ref).version
    connector.close()


def test_a_change_within_one_second_is_not_hidden_by_the_etag(files: Files, files_folder: Path) -> None:
    """WsgiDAV's ETag is inode, second and size, and looks strong."""
    path = files_folder / files.folder / "doc.txt"
    path.write_text("one")
    connector = files.connect()
    listed = walk(connector)[0].found["doc.txt"]
    first = connector.version("doc.txt")
    path.write_text("two")
    assert connector.version("doc.txt") != first
    assert listed.version is None and listed.fingerprint is None, "too young for its date to prove anything"
    connector.close()


def test_an_old_object_is_known_by_its_fingerprint(files: Files, files_folder: Path) -> None:
    import os

    path = files_folder / files.folder / "doc.txt"
    path.write_text("one")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    connector = files.connect()
    listed = walk(connector)[0].found["doc.txt"]
    assert listed.fingerprint is not None
    assert listed.fingerprint == connector.fingerprint("doc.txt") == connector.extract("doc.txt").fingerprint
    connector.close()


def test_every_collection_of_a_listing_can_be_its_last(files: Files, files_folder: Path) -> None:
    refs = {f"d{number}/{'x/' * depth}doc.txt" for number in range(3) for depth in range(3)}
    for ref in refs:
        path = files_folder / files.folder / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ref)
    connector = files.connect()
    found: set[str] = set()
    cursor, complete, passes = None, False, 0
    while not complete:
        passes += 1
        for item in connector.changes(cursor):
            if isinstance(item, Cursor):
                cursor, complete = item.value, item.complete
                break
            found.add(item.object_ref)
    assert found == refs
    assert passes >= 10
    connector.close()


def test_a_tree_without_tokens_costs_one_request_a_folder(files: Files, files_folder: Path) -> None:
    for number in range(5):
        (files_folder / files.folder / f"d{number}").mkdir()
    connector = files.connect()
    connector.take_cost()
    cursor = walk(connector)[0].cursor
    assert connector.take_cost() == 7, "six folders, and whether the base has a token"
    walk(connector, cursor)
    assert connector.take_cost() == 7
    connector.close()


def test_a_scope_is_a_folder_with_all_below_it(files: Files) -> None:
    for folder in ("a/", "a/b/", "ab/"):
        files.request("MKCOL", folder)
    refs = {files.put(path, b"text") for path in ("a/1.txt", "a/b/2.txt")}
    files.put("ab/3.txt", b"text")
    connector = files.connect()
    for scope in ("a", "a/"):
        result, _ = walk(connector, None, scope)
        assert set(result.found) == refs and result.complete
        assert connector.scope_prefix(scope) == "a/"
    files.request("DELETE", "a/")
    result, _ = walk(connector, None, "a/")
    assert result.complete and not result.found
    for scope in ("../", "a/../ab/", "x\0/"):
        result, _ = walk(connector, None, scope)
        assert not result.found
    connector.close()


def test_patterns_choose_what_is_an_object(files: Files) -> None:
    for folder in ("drafts/", "docs/"):
        files.request("MKCOL", folder)
    for path in ("a.md", "b.txt", "drafts/c.md", "docs/d.md"):
        files.put(path, b"text")
    connector = files.connect(include=["*.md"], exclude=["drafts"])
    assert set(walk(connector)[0].found) == {"a.md", "docs/d.md"}
    assert connector.version("b.txt") is None and connector.version("drafts/c.md") is None
    assert not walk(connector, None, "drafts/")[0].found
    connector.close()


def test_a_file_that_is_too_long_is_not_fetched(files: Files, files_server: WebServer) -> None:
    files.put("long.txt", b"x" * 2_000)
    connector = files.connect(max_bytes=1_000)
    del files_server.requests[:]
    with pytest.raises(ObjectUnreadable) as unreadable:
        connector.extract("long.txt")
    assert unreadable.value.reason == "too_large"
    assert unreadable.value.version == connector.version("long.txt")
    assert "GET" not in files_server.requests
    connector.close()


def test_a_binary_file_is_said_to_be_one(files: Files) -> None:
    files.put("x.bin", b"\0\1\2" * 50)
    connector = files.connect()
    with pytest.raises(ObjectUnreadable) as unreadable:
        connector.extract("x.bin")
    assert unreadable.value.reason == "binary"
    assert unreadable.value.version == connector.version("x.bin")
    connector.close()


def test_a_wrong_password_needs_a_person(files: Files) -> None:
    for secret in ("wrong", None):
        connector = WebdavConnector.create(files.config(), secret)
        with pytest.raises(NeedsAuth):
            walk(connector)
        with pytest.raises(NeedsAuth):
            connector.version("doc.txt")
        connector.close()


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "doc.txt").write_text("text")
    server = wsgidav(tmp_path, digest=True)
    try:
        connector = WebdavConnector.create({"url": server.url, "user": "ada", "auth": "digest"}, "shallow-water")
        assert connector.extract("doc.txt").documents[0].text == "text"
        connector.close()
        with pytest.raises(NeedsAuth):
            WebdavConnector.create({"url": server.url, "user": "ada", "auth": "digest"}, "wrong").version("doc.txt")
    finally:
        server.stop()


def test_the_base_is_never_gone(files: Files) -> None:
    """A collection that is missing looks like an empty one, and would delete everything."""
    connector = files.connect(url=files.server.url + "no-such-folder/")
    with pytest.raises(SourceUnavailable):
        walk(connector)
    files.put("doc.txt", b"text")
    connector = files.connect(url=files.config()["url"] + "doc.txt")
    with pytest.raises(SourceUnavailable):
        walk(connector)
    connector.close()


# -- calendars, listed by sync tokens


def test_a_delta_names_what_changed_and_what_is_gone(calendar: Calendar, calendar_server: WebServer) -> None:
    kept, changed, lost = (calendar.write(name, "first") for name in ("kept", "changed", "lost"))
    connector = calendar.connect()
    cursor = walk(connector)[0].cursor
    del calendar_server.requests[:]
    assert not walk(connector, cursor)[0].found
    assert calendar_server.requests.count("REPORT") == 1 and "PROPFIND" not in calendar_server.requests
    calendar.write("changed", "second")
    calendar.delete(lost)
    new = calendar.write("new", "third")
    result, scopes = walk(connector, cursor)
    assert set(result.found) == {changed, new} and result.deleted == {lost} and not scopes
    assert not result.complete and kept not in result.found
    assert connector.version(changed) == result.found[changed].version
    connector.close()


def test_an_event_is_read_as_text(calendar: Calendar) -> None:
    ref = calendar.write("heron", "Counting herons")
    connector = calendar.connect()
    (document,) = connector.extract(ref).documents
    assert document.title == "Counting herons" and document.media_type == "text/calendar"
    assert "Summary: Counting herons" in document.text
    connector.close()


def test_contacts_are_read_as_text(calendar: Calendar) -> None:
    book = calendar.home + "book/"
    body = (
        '<?xml version="1.0"?><D:mkcol xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:carddav"><D:set><D:prop><D:resourcetype>'
    )
    body += "<D:collection/><C:addressbook/></D:resourcetype></D:prop></D:set></D:mkcol>"
    calendar.request("MKCOL", f"/{book}", content=body.encode())
    card = "BEGIN:VCARD\r\nVERSION:4.0\r\nUID:1\r\nFN:Ada Müller\r\nEMAIL;TYPE=work:ada@example.org\r\nEND:VCARD\r\n"
    calendar.request("PUT", f"/{book}ada.vcf", content=card.encode())
    connector = calendar.connect(url=calendar.server.url + book)
    (document,) = connector.extract("ada.vcf").documents
    assert document.title == "Ada Müller" and "Email: ada@example.org" in document.text
    connector.close()


def test_a_token_that_is_void_has_expired(calendar: Calendar) -> None:
    calendar.write("doc", "text")
    connector = calendar.connect()
    cursor = walk(connector)[0].cursor
    assert cursor is not None
    said = json.loads(cursor)
    said["tokens"][""] = "http://radicale.org/ns/sync/" + hashlib.sha256(b"forgotten").hexdigest()
    with pytest.raises(CursorExpired):
        next(connector.changes(json.dumps(said)))
    connector.close()


def test_a_home_of_several_calendars_is_one_source(calendar: Calendar) -> None:
    """The home has no token, its calendars have."""
    one = calendar.write("one", "text")
    connector = calendar.connect(url=calendar.server.url + calendar.home)
    cursor = walk(connector)[0].cursor
    two = calendar.write("two", "text")
    result, scopes = walk(connector, cursor)
    assert set(result.found) == {f"calendar/{two}"} and not scopes
    calendar.request("MKCALENDAR", f"/{calendar.home}other/")
    calendar.request("PUT", f"/{calendar.home}other/three.ics", content=EVENT.format(name="three", text="x").encode())
    result, scopes = walk(connector, result.cursor)
    assert set(result.found) == {"other/three.ics"} and not scopes
    calendar.request("DELETE", f"/{calendar.folder}")
    result, scopes = walk(connector, result.cursor)
    assert scopes == {"calendar/"}
    listed, _ = walk(connector, None, "calendar/")
    assert listed.complete and not listed.found
    assert connector.version(f"calendar/{one}") is None
    assert walk(connector, result.cursor)[1] == set()
    connector.close()


def test_a_calendar_made_anew_under_its_old_name_is_scanned(calendar: Calendar, calendar_folder: Path) -> None:
    calendar.write("one", "text")
    connector = calendar.connect(url=calendar.server.url + calendar.home)
    cursor = walk(connector)[0].cursor
    calendar.request("DELETE", f"/{calendar.folder}")
    calendar.request("MKCALENDAR", f"/{calendar.folder}")
    new = calendar.write("two", "text")
    result, scopes = walk(connector, cursor)
    assert scopes == {"calendar/"} or result.deleted == {"calendar/one.ics"}
    assert set(result.found) == {f"calendar/{new}"}
    connector.close()


def test_without_sync_everything_is_listed_each_time(calendar: Calendar, calendar_server: WebServer) -> None:
    refs = {calendar.write(name, "text") for name in ("one", "two")}
    connector = calendar.connect(sync="never")
    del calendar_server.requests[:]
    result, _ = walk(connector)
    again, _ = walk(connector, result.cursor)
    assert set(result.found) == set(again.found) == refs and again.complete
    assert "REPORT" not in calendar_server.requests
    connector.close()


def test_a_collection_is_no_object(files: Files) -> None:
    files.request("MKCOL", "sub/")
    connector = files.connect()
    assert connector.version("sub") is None
    with pytest.raises(ObjectGone):
        connector.extract("sub")
    connector.close()
