"""The connector `webdav` on WsgiDAV (ETags only) and Radicale (sync tokens), and on a server that says what a test wants."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.connectors.webdav_servers import EVENT, INSTALL, Calendar, Files, WebServer, radicale, wsgidav

from sourcebus.connectors.webdav import WebdavConnector
from sourcebus.connectors.webdav.multistatus import parse_multistatus
from sourcebus.connectors.webdav.paths import Paths
from sourcebus.errors import (
    ConnectorError,
    CursorExpired,
    InvalidInput,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
    Throttled,
    Unverified,
)
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, Delivery
from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.connector_suite import Pass

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


def walk(connector: WebdavConnector, cursor: str | None = None, scope: str = WHOLE_SOURCE) -> tuple[Pass, set[str]]:
    """One pass, and the scopes that it asks to have listed."""
    result, scopes = Pass(), set[str]()
    for item in connector.changes(cursor, scope):
        if isinstance(item, Cursor):
            result.cursor, result.complete = item.value, result.complete or item.complete
        elif item.change_kind is ChangeKind.SCAN:
            scopes.add(item.object_ref)
        elif item.change_kind is ChangeKind.DELETED:
            result.deleted.add(item.object_ref)
        else:
            result.found[item.object_ref] = item
    return result, scopes


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


# -- a server that says what the test wants


class Script:
    """Answers by method and path, as they are; notes what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[str, bytes, dict[str, str]]]] = {}
        self.asked: list[tuple[str, str, bytes]] = []

    def on(self, method: str, path: str, body: str = "", status: str = "207 Multi-Status", **headers: str) -> None:
        """The last one given is repeated for ever."""
        self.answers.setdefault((method, path), []).append((status, body.encode(), headers))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        self.asked.append((method, path, environ["wsgi.input"].read()))
        waiting = self.answers.get((method, path))
        if not waiting:
            start_response("404 Not Found", [])
            return [b""]
        status, body, headers = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        start_response(status, [(name.replace("_", "-"), value) for name, value in headers.items()])
        return [body]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def scripted(script: Script) -> Iterator[WebdavConnector]:
    server = WebServer(script)
    connector = WebdavConnector.create({"url": server.url + "dav/", "auth": "none"}, None)
    yield connector
    connector.close()
    server.stop()


_FOUND = "<D:propstat><D:prop>{}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
FOLDER = _FOUND.format("<D:resourcetype><D:collection/></D:resourcetype>{}")
FILE = _FOUND.format("<D:resourcetype/>{}")


def multistatus(*responses: tuple[str, str], token: str = "") -> str:
    lines = [f"<D:response><D:href>{href}</D:href>{rest}</D:response>" for href, rest in responses]
    end = f"<D:sync-token>{token}</D:sync-token>" if token else ""
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{"".join(lines)}{end}</D:multistatus>'


def status(code: str) -> str:
    return f"<D:status>HTTP/1.1 {code}</D:status>"


def with_tokens(script: Script) -> None:
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("<D:sync-token>t0</D:sync-token>"))))


def test_hrefs_in_every_form_mean_the_same_object(script: Script, scripted: WebdavConnector) -> None:
    hrefs = [
        "/dav/a%20b.txt",
        "http://inner.example:8080/dav/%c3%a9.txt",
        "/dav/%7Ehome.txt",
        "/%64av/x.txt",
        " /dav/plain.txt\n",
    ]
    script.on("PROPFIND", "/dav/", multistatus(("/dav", FOLDER.format("")), *((href, FILE.format("")) for href in hrefs)))
    result, _ = walk(scripted)
    assert set(result.found) == {"a b.txt", "é.txt", "~home.txt", "x.txt", "plain.txt"}


def test_hrefs_that_lead_elsewhere_are_left_out(script: Script, scripted: WebdavConnector) -> None:
    hrefs = [
        "/other/a.txt",
        "/dav/../etc/passwd",
        "/dav/%2e%2e/x",
        "/dav/a%2Fb.txt",
        "/dav//x.txt",
        "/dav/deep/er.txt",
        "http://[",
        "/dav/%00",
    ]
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("")), *((href, FILE.format("")) for href in hrefs)))
    result, _ = walk(scripted)
    assert not result.found


def test_an_answer_about_other_paths_is_no_empty_source(script: Script, scripted: WebdavConnector) -> None:
    script.on("PROPFIND", "/dav/", multistatus(("/inner/", FOLDER.format("")), ("/inner/a.txt", FILE.format(""))))
    with pytest.raises(SourceUnavailable, match="proxy"):
        walk(scripted)


def test_a_folder_that_names_itself_below_itself_ends(script: Script, scripted: WebdavConnector) -> None:
    loop = ("/dav/loop/", FOLDER.format(""))
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("")), loop, loop))
    script.on("PROPFIND", "/dav/loop/", multistatus(loop, ("/dav/", FOLDER.format("")), ("/dav/loop/a.txt", FILE.format(""))))
    result, _ = walk(scripted)
    assert set(result.found) == {"loop/a.txt"} and result.complete


def test_without_etags_and_dates_the_content_decides(script: Script, scripted: WebdavConnector) -> None:
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("")), ("/dav/a.txt", FILE.format(""))))
    script.on("PROPFIND", "/dav/a.txt", multistatus(("/dav/a.txt", FILE.format(""))))
    script.on("GET", "/dav/a.txt", "one", "200 OK")
    script.on("GET", "/dav/a.txt", "two", "200 OK")
    listed = walk(scripted)[0].found["a.txt"]
    assert listed.version is None and listed.fingerprint is None
    assert scripted.version("a.txt") != scripted.version("a.txt")


@pytest.mark.parametrize(("etag", "trusted"), [('"x"', True), ("x", True), ('W/"x"', False)])
def test_a_weak_etag_is_no_version_even_where_etags_are_trusted(script: Script, etag: str, trusted: bool) -> None:
    server = WebServer(script)
    connector = WebdavConnector.create({"url": server.url + "dav/", "auth": "none", "version": "etag"}, None)
    file = ("/dav/a.txt", FILE.format(f"<D:getetag>{etag.replace(chr(34), '&quot;')}</D:getetag>"))
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("")), file))
    script.on("PROPFIND", "/dav/a.txt", multistatus(file))
    script.on("GET", "/dav/a.txt", "text", "200 OK", ETag=etag)
    listed = walk(connector)[0].found["a.txt"]
    assert (listed.version == '"x"') is trusted
    assert connector.version("a.txt") == connector.extract("a.txt").version
    assert (connector.version("a.txt") == '"x"') is trusted
    connector.close()
    server.stop()


def test_507_goes_on_with_the_next_page(script: Script, scripted: WebdavConnector) -> None:
    with_tokens(script)
    cut = ("/dav/", status("507 Insufficient Storage"))
    script.on("REPORT", "/dav/", multistatus(("/dav/1.txt", FILE.format("")), cut, token="t1"))
    script.on("REPORT", "/dav/", multistatus(("/dav/2.txt", FILE.format("")), cut, token="t2&amp;"))
    script.on("REPORT", "/dav/", multistatus(("/dav/3.txt", FILE.format("")), token="t3"))
    items = list(scripted.changes(None))
    assert [item.object_ref for item in items if isinstance(item, Change)] == ["1.txt", "2.txt", "3.txt"]
    sent = [re.findall(rb"<D:sync-token>(.*?)</D:sync-token>", body) for method, _, body in script.asked if method == "REPORT"]
    assert sent == [[b""], [b"t1"], [b"t2&amp;"]]
    first = next(item for item in items if isinstance(item, Cursor))
    assert "t1" in str(first.value) and not first.complete


def test_507_that_does_not_go_on_is_no_end(script: Script, scripted: WebdavConnector) -> None:
    with_tokens(script)
    script.on("REPORT", "/dav/", multistatus(("/dav/", status("507 Insufficient Storage")), token="same"))
    with pytest.raises(SourceUnavailable, match="cuts its answer short"):
        walk(scripted)


@pytest.mark.parametrize("code", ["403 Forbidden", "409 Conflict", "400 Bad Request"])
def test_a_void_token_in_every_form(script: Script, scripted: WebdavConnector, code: str) -> None:
    with_tokens(script)
    script.on("REPORT", "/dav/", multistatus(("/dav/1.txt", FILE.format("")), token="t1"))
    script.on("REPORT", "/dav/", '<?xml version="1.0"?><D:error xmlns:D="DAV:"><D:valid-sync-token/></D:error>', code)
    cursor = walk(scripted)[0].cursor
    with pytest.raises(CursorExpired):
        next(scripted.changes(cursor))


def test_a_report_that_is_refused_falls_back_to_a_listing(script: Script, scripted: WebdavConnector) -> None:
    page = multistatus(("/dav/", FOLDER.format("<D:sync-token>t0</D:sync-token>")), ("/dav/a.txt", FILE.format("")))
    script.on("PROPFIND", "/dav/", page)
    script.on("REPORT", "/dav/", "", "501 Not Implemented")
    result, _ = walk(scripted)
    assert set(result.found) == {"a.txt"} and result.complete


def test_a_folder_that_may_not_be_read_makes_the_pass_incomplete(script: Script, scripted: WebdavConnector) -> None:
    folders = [("/dav/", FOLDER.format("")), ("/dav/secret/", FOLDER.format("")), ("/dav/open/", FOLDER.format(""))]
    script.on("PROPFIND", "/dav/", multistatus(*folders))
    script.on("PROPFIND", "/dav/secret/", "", "403 Forbidden")
    script.on("PROPFIND", "/dav/open/", multistatus(folders[2], ("/dav/open/a.txt", FILE.format(""))))
    result, _ = walk(scripted)
    assert set(result.found) == {"open/a.txt"} and not result.complete


def test_a_listing_that_fails_half_way_never_says_complete(script: Script, scripted: WebdavConnector) -> None:
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("")), ("/dav/sub/", FOLDER.format(""))))
    script.on("PROPFIND", "/dav/sub/", "", "502 Bad Gateway")
    seen: list[Change | Cursor] = []
    with pytest.raises(SourceUnavailable):
        for item in scripted.changes(None):
            seen.append(item)
    assert not any(isinstance(item, Cursor) and item.complete for item in seen)


_MULTISTATUS = '<D:multistatus xmlns:D="DAV:"><D:response><D:href>{}</D:href></D:response></D:multistatus>'
BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + _MULTISTATUS.format("&b;")
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + _MULTISTATUS.format("&f;")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "{}",
        BOMB,
        OUTSIDE,
        "<D:multistatus",
        '<multistatus xmlns="urn:x"/>',
        "\0",
        '<?xml version="1.0" encoding="no-such"?><a/>',
    ],
)
def test_what_is_no_multistatus_is_refused(body: str) -> None:
    with pytest.raises(SourceUnavailable):
        parse_multistatus(body.encode())


@pytest.mark.parametrize(
    ("code", "headers", "kind"),
    [
        ("200 OK", {}, SourceUnavailable),
        ("401 Unauthorized", {}, NeedsAuth),
        ("403 Forbidden", {}, SourceUnavailable),
        ("429 Too Many Requests", {"Retry_After": "7"}, Throttled),
        ("503 Service Unavailable", {"Retry_After": "7"}, Throttled),
        ("503 Service Unavailable", {}, SourceUnavailable),
        ("404 Not Found", {}, SourceUnavailable),
    ],
)
def test_what_a_refusal_means(
    script: Script, scripted: WebdavConnector, code: str, headers: dict[str, str], kind: type[ConnectorError]
) -> None:
    script.on("PROPFIND", "/dav/", "", code, **headers)
    with pytest.raises(kind) as refused:
        walk(scripted)
    if isinstance(refused.value, Throttled):
        assert refused.value.retry_after_ms == 7_000


def test_a_redirect_to_another_host_gets_no_password(script: Script) -> None:
    """Nor is an address inside the network asked at all."""
    inner, outer = Script(), WebServer(script)
    inside = WebServer(inner)
    connector = WebdavConnector.create({"url": outer.url + "dav/", "user": "ada"}, "shallow-water")
    script.on("PROPFIND", "/dav/", "", "301 Moved", Location=inside.url + "dav/")
    with pytest.raises(SourceUnavailable):
        walk(connector)
    assert not inner.asked
    connector.close()
    outer.stop()
    inside.stop()


@pytest.mark.parametrize("cursor", ["", "x", "[]", '{"v":2}', '{"v":1,"tokens":[],"names":{}}'])
def test_a_cursor_that_makes_no_sense_has_expired(scripted: WebdavConnector, cursor: str) -> None:
    with pytest.raises(CursorExpired):
        next(scripted.changes(cursor))


@pytest.mark.parametrize("ref", ["a/b c/é.txt", "%2F", "100%25", "a\udcffb", "a\nb", "+", "\N{SNOWMAN}/x"])
def test_a_reference_survives_its_url(ref: str) -> None:
    paths = Paths("https://example.org/dav/gr%C3%BC%C3%9Fe/")
    if ref != "%2F":
        assert paths.ref(paths.url(ref)) == ref
    assert paths.url(ref).startswith(paths.base_url)


# -- deliveries


def delivery(body: bytes = b"", **headers: str) -> Delivery:
    return Delivery("POST", {name.lower(): value for name, value in headers.items()}, body, 0)


@pytest.fixture
def hearing() -> Iterator[WebdavConnector]:
    secret = json.dumps({"webhook": ["new-token", "old-token"]})
    connector = WebdavConnector.create({"url": "https://example.org/dav/", "auth": "none"}, secret)
    yield connector
    connector.close()


@pytest.mark.parametrize("token", ["new-token", "old-token"])
def test_a_delivery_names_paths_or_asks_for_a_scan(hearing: WebdavConnector, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    assert hearing.parse_webhook(delivery(**headers), ()).changes == [Change(WHOLE_SOURCE, ChangeKind.SCAN)]
    body = json.dumps({"paths": ["/a/b.ics", "a/", "é.txt"]}).encode()
    heard = hearing.parse_webhook(delivery(body, **headers), ())
    assert heard.changes == [Change("a/b.ics"), Change("a/", ChangeKind.SCAN), Change("é.txt")]
    by_query = Delivery("POST", {}, b'{"path": "x.txt"}', 0, {"token": token})
    assert hearing.parse_webhook(by_query, ()).changes == [Change("x.txt")]


@pytest.mark.parametrize("given", [None, "Bearer ", "Bearer wrong", "Basic new-token", "new-token"])
def test_a_delivery_that_proves_nothing_is_refused(hearing: WebdavConnector, given: str | None) -> None:
    with pytest.raises(Unverified):
        hearing.parse_webhook(Delivery("POST", {"authorization": given} if given else {}, b"not even JSON", 0), ())


def test_without_a_webhook_secret_every_delivery_is_refused() -> None:
    connector = WebdavConnector.create({"url": "https://example.org/", "auth": "none"}, None)
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery(Authorization="Bearer "), ())
    connector.close()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b'{"path": 3}',
        b'{"paths": "a"}',
        b'{"path": "../x"}',
        b'{"path": "a//b"}',
        json.dumps({"paths": ["x"] * 10_001}).encode(),
    ],
)
def test_a_proven_delivery_that_makes_no_sense_is_named(hearing: WebdavConnector, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        hearing.parse_webhook(delivery(body, Authorization="Bearer new-token"), ())


# -- settings


GOOD = {"url": "https://example.org/dav/", "user": "ada"}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"user": "ada"}, "url"),
        (GOOD | {"url": "ftp://example.org/"}, "url"),
        (GOOD | {"url": "https://"}, "url"),
        (GOOD | {"url": "https://ada:pw@example.org/"}, "url"),
        (GOOD | {"url": "https://example.org/?x=1"}, "url"),
        (GOOD | {"url": "http://example.org/"}, "url"),
        (GOOD | {"allow_plaintext": 1}, "allow_plaintext"),
        (GOOD | {"auth": "ntlm"}, "auth"),
        ({"url": "https://example.org/"}, "user"),
        (GOOD | {"include": "*.md"}, "include"),
        (GOOD | {"exclude": ["[z-a]"]}, "exclude"),
        (GOOD | {"max_bytes": 0}, "max_bytes"),
        (GOOD | {"version": "mtime"}, "version"),
        (GOOD | {"sync": True}, "sync"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        WebdavConnector.create(config, "secret-word")
    assert refused.value.field == f"config.{field}"
    assert "secret-word" not in str(refused.value) and "pw" not in str(refused.value)


def test_a_collection_is_no_object(files: Files) -> None:
    files.request("MKCOL", "sub/")
    connector = files.connect()
    assert connector.version("sub") is None
    with pytest.raises(ObjectGone):
        connector.extract("sub")
    connector.close()
