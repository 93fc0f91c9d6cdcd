"""A provider's API over HTTP: where a call may lead, what an answer means, what it cost and what is left."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from sourcebus.connectors.http import Api, meaning, public_address, quota_of, retry_after_ms
from sourcebus.errors import NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable, Throttled

Answer = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    """Answers each path with what was laid out for it, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, body = self.server.answers.get(self.path, (200, {}, b"{}"))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value != "-":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def _served() -> Generator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with _served() as served:
        yield served


@pytest.fixture
def other() -> Iterator[Server]:
    """A server inside of our network that nobody configured."""
    with _served() as served:
        yield served


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    made = Api(f"{server.url}/base", headers={"Authorization": "Bearer of-ours"}, max_bytes=1_000, timeout_s=5)
    yield made
    made.close()


# --- where it may lead


def test_a_path_is_below_the_base_and_a_url_is_itself(api: Api, server: Server) -> None:
    assert str(api.url("/a/b?c=1")) == f"{server.url}/base/a/b?c=1"
    assert str(api.url("https://x.example/a")) == "https://x.example/a"
    api.call("GET", f"{server.url}/elsewhere")
    assert server.asked[-1][0] == "/elsewhere"


def test_a_url_of_a_payload_does_not_lead_into_our_network(api: Api, other: Server) -> None:
    port = other.server_address[1]
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433", "0x7f000001"):
        with pytest.raises(SourceUnavailable):
            api.call("GET", f"http://{host}:{port}/secret")
    assert other.asked == []


def test_nor_does_a_redirect(api: Api, server: Server, other: Server) -> None:
    server.answers["/base/away"] = (302, {"Location": f"{other.url}/secret"}, b"")
    with pytest.raises(SourceUnavailable, match="not a public address"):
        api.call("GET", "away")
    assert other.asked == []


def test_a_redirect_within_the_server_is_followed(api: Api, server: Server) -> None:
    server.answers["/base/a"] = (302, {"Location": "/base/b"}, b"")
    server.answers["/base/b"] = (200, {}, b"there")
    assert api.call("GET", "a").content == b"there"


def test_a_trusted_server_is_asked_with_our_headers_and_no_other(server: Server, other: Server) -> None:
    api = Api(server.url, headers={"Authorization": "Bearer of-ours"}, trusted=(other.url,))
    api.call("GET", f"{other.url}/x")
    assert other.asked[-1][1]["authorization"] == "Bearer of-ours"
    api.close()


def test_our_headers_do_not_follow_a_redirect_to_another_server(server: Server, other: Server) -> None:
    api = Api(server.url, headers={"Authorization": "Bearer of-ours", "X-Api-Key": "key-of-ours"}, trusted=())
    trusting = Api(server.url, headers={"X-Api-Key": "key-of-ours"}, trusted=(other.url,))
    server.answers["/go"] = (302, {"Location": f"{other.url}/x"}, b"")
    trusting.call("GET", "go")
    assert other.asked[-1][1]["x-api-key"] == "key-of-ours", "a trusted one is ours"
    with pytest.raises(SourceUnavailable):
        api.call("GET", "go")
    for made in (api, trusting):
        made.close()


@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher", "unix"])
def test_other_schemes_are_paths_below_the_base(api: Api, server: Server, scheme: str) -> None:
    assert str(api.url(f"{scheme}://x.example/a")).startswith(f"{server.url}/base/")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
        *("255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2001:db8::1", "2001:0:7f00:1::", "::127.0.0.1", "localhost", "no-such-name.invalid", "", "x" * 300, "a..b"),
    ],
)
def test_what_is_not_public(host: str) -> None:
    assert public_address(host, 80) is None


@pytest.mark.parametrize("host", ["93.184.215.14", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_what_is_public(host: str) -> None:
    assert public_address(host, 443) == host


def test_a_name_with_one_private_address_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_args: object, **_options: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert public_address("rebinding.example", 80) is None


# --- what an answer means


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (401, {}, NeedsAuth),
        (403, {}, ObjectUnreadable),
        (404, {}, ObjectGone),
        (410, {}, ObjectGone),
        (408, {}, SourceUnavailable),
        (418, {}, ObjectUnreadable),
        (429, {}, Throttled),
        (529, {}, Throttled),
        (500, {}, SourceUnavailable),
        (503, {}, SourceUnavailable),
        (503, {"Retry-After": "7"}, Throttled),
    ],
)
def test_a_status_means_what_http_says(
    api: Api, server: Server, status: int, headers: dict[str, str], kind: type[Exception]
) -> None:
    server.answers["/base/x?key=of-ours"] = (status, headers, b"")
    with pytest.raises(kind) as raised:
        api.call("GET", "x", params={"key": "of-ours"})
    assert type(raised.value) is kind
    assert "of-ours" not in str(raised.value)


def test_the_providers_own_words_come_first(server: Server) -> None:
    server.answers["/x"] = (400, {}, b"rate")
    api = Api(server.url, judge=lambda answer: Throttled("its own", 5) if answer.content == b"rate" else None)
    with pytest.raises(Throttled, match="its own"):
        api.call("GET", "x")
    assert api.call("GET", "y", accept=(304,)).status_code == 200
    api.close()


def test_nobody_there_is_unavailable(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        api = Api(f"http://user:of-ours@127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(SourceUnavailable) as raised:
            api.call("GET", "x")
    assert "of-ours" not in str(raised.value)
    api.close()


def test_what_is_no_json_is_unavailable(api: Api, server: Server) -> None:
    for body in (b"<html>", b"", b"\xff", b"[" * 500):
        server.answers["/base/x"] = (200, {}, body)
        with pytest.raises(SourceUnavailable, match="no JSON"):
            api.json("GET", "x")


# --- size


def test_what_is_too_large_is_not_read_whether_it_says_so_or_not(api: Api, server: Server) -> None:
    server.answers["/base/said"] = (200, {}, b"x" * 1_001)
    server.answers["/base/unsaid"] = (200, {"Content-Length": "-", "Connection": "close"}, b"x" * 1_000_000)
    server.answers["/base/absurd"] = (200, {"Content-Length": "9" * 30, "Connection": "close"}, b"x")
    for path in ("said", "unsaid", "absurd"):
        with pytest.raises((ObjectUnreadable, SourceUnavailable)) as raised:
            api.call("GET", path)
        assert path == "absurd" or isinstance(raised.value, ObjectUnreadable)
    server.answers["/base/fits"] = (200, {}, b"x" * 1_000)
    assert len(api.call("GET", "fits").content) == 1_000


def test_a_compressed_bomb_is_not_unpacked(api: Api, server: Server) -> None:
    import gzip

    server.answers["/base/bomb"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"0" * 500_000))
    with pytest.raises(ObjectUnreadable, match="longer than 1000"):
        api.call("GET", "bomb")


# --- cost and quota


def test_costs_add_up_for_each_thread_and_are_taken_once(api: Api) -> None:
    api.call("GET", "a")
    api.call("GET", "b", cost=4.5)
    assert (api.take_cost(), api.take_cost()) == (5.5, 0.0)
    elsewhere: list[float] = []
    thread = threading.Thread(target=lambda: elsewhere.append(api.take_cost()))
    api.call("GET", "c")
    thread.start()
    thread.join()
    assert (elsewhere, api.take_cost()) == ([0.0], 1.0)


def test_what_is_left_is_told_once(api: Api, server: Server) -> None:
    server.answers["/base/a"] = (200, {"RateLimit-Remaining": "7", "RateLimit-Reset": "3"}, b"")
    api.call("GET", "a")
    left = api.quota_left()
    assert left is not None and (left.units, left.left_ms) == (7, 3_000)
    assert api.quota_left() is None


@pytest.mark.parametrize(
    ("value", "wait_ms"),
    [
        *(("3", 3_000), ("0", 0), ("1.5", 1_500), (" 2 ", 2_000), ("-5", 0), ("1e9", 86_400_000), ("inf", 86_400_000)),
        *(("", None), ("soon", None), ("nan", None), ("Wed, 99 Oct 2015", None), ("9" * 5_000, 86_400_000)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_retry_after_in_each_of_its_forms(value: str, wait_ms: int | None) -> None:
    assert retry_after_ms({"retry-after": value}) == wait_ms


def test_retry_after_as_a_date_of_the_future() -> None:
    wait_ms = retry_after_ms({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert wait_ms is not None and 57_000 < wait_ms <= 60_000
    assert retry_after_ms({}) is None


def test_quota_headers_in_each_of_their_forms() -> None:
    soon = quota_of({"x-ratelimit-remaining": "10", "x-ratelimit-reset": str(int(time.time()) + 60)})
    assert soon is not None and soon.units == 10 and 57_000 < soon.left_ms <= 60_000
    for headers in (
        {},
        {"ratelimit-remaining": "1"},
        {"ratelimit-remaining": "x", "ratelimit-reset": "1"},
        {"ratelimit-remaining": "-1", "ratelimit-reset": "1"},
        {"ratelimit-remaining": "1", "ratelimit-reset": "0"},
        {"ratelimit-remaining": "nan", "ratelimit-reset": "nan"},
        {"ratelimit-remaining": "inf", "ratelimit-reset": "1"},
        {"x-ratelimit-remaining": "1", "x-ratelimit-reset": "1000000001"},
    ):
        assert quota_of(headers) is None, headers


def test_meaning_needs_no_body() -> None:
    request = httpx.Request("GET", "https://user:pass@x.example/a?token=of-ours#f")
    assert str(meaning(httpx.Response(404, request=request))) == "GET https://x.example/a: HTTP 404"
