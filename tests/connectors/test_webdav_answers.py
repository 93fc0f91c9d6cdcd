"""The connector `webdav` on a server that answers what a test wants; its deliveries and settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.connectors.webdav_servers import WebServer, walk

from sourcebus.connectors.webdav import WebdavConnector
from sourcebus.connectors.webdav.multistatus import parse_multistatus
from sourcebus.connectors.webdav.paths import Paths
from sourcebus.errors import (
    ConnectorError,
    CursorExpired,
    InvalidInput,
    NeedsAuth,
    SourceUnavailable,
    Throttled,
    Unverified,
)
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, Delivery

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


def test_a_calendar_that_may_not_be_read_any_more_stops_no_other(script: Script, scripted: WebdavConnector) -> None:
    one, two = (f"/dav/{name}/" for name in ("one", "two"))
    token = FOLDER.format("<D:sync-token>t</D:sync-token>")
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("")), (one, token), (two, token)))
    for folder in (one, two):
        script.on("PROPFIND", folder, multistatus((folder, token)))
        script.on("REPORT", folder, multistatus((f"{folder}a.ics", FILE.format("")), token="t1"))
    cursor = walk(scripted)[0].cursor
    script.answers[("REPORT", one)] = [("500 Broken", b"", {})]
    with pytest.raises(SourceUnavailable):
        walk(scripted, cursor)
    script.answers[("REPORT", one)] = []
    script.answers[("PROPFIND", "/dav/")] = [("403 Forbidden", b"", {})]
    with pytest.raises(SourceUnavailable):
        walk(scripted, cursor)
    script.answers[("PROPFIND", "/dav/")] = []
    script.on("PROPFIND", "/dav/", multistatus(("/dav/", FOLDER.format("")), (one, token), (two, token)))
    script.answers[("REPORT", two)] = [
        ("207 Multi-Status", multistatus((f"{two}b.ics", FILE.format("")), token="t2").encode(), {})
    ]
    result, scopes = walk(scripted, cursor)
    assert set(result.found) == {"two/b.ics"} and scopes == {"one/"}, "404 for one, news of the other"


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
    assert hearing.parse_webhook(delivery(b"", **headers), ()).changes == [Change(WHOLE_SOURCE, ChangeKind.SCAN)]
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
