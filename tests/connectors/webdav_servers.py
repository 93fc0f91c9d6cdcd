"""Radicale and WsgiDAV on loopback ports, in threads of the test, and sources below them."""

from __future__ import annotations

import io
import itertools
import json
import logging
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx

from sourcebus.connectors.webdav import WebdavConnector
from sourcebus.model import WHOLE_SOURCE, ChangeKind, Cursor
from sourcebus.testing import SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import Pass

INSTALL = "pip install radicale wsgidav"

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128  # a full queue makes the kernel wait a second


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class WebServer:
    """A WSGI application on a loopback port, which it keeps when it is stopped and started again."""

    def __init__(self, app: App) -> None:
        self._app, self.port, self.requests = app, 0, list[str]()
        self._refusal: tuple[str, list[tuple[str, str]]] | None = None
        self._running = False
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        def counted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            self.requests.append(environ["REQUEST_METHOD"])
            if self._refusal is not None:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(*self._refusal)
                return []
            length = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))  # WsgiDAV reads on past the end
            return self._app(environ, start_response)

        self._server: Any = make_server("127.0.0.1", self.port, counted, _Threaded, _Quiet)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self._running = True

    def refuse(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Answer everything with this instead."""
        self._refusal = (status, headers)

    def accept_again(self) -> None:
        """After `refuse` or `stop`."""
        self._refusal = None
        if not self._running:
            self.start()

    def stop(self) -> None:
        self._running = False
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


def radicale(folder: Path) -> WebServer:
    """Calendars and contacts, with sync tokens. Any name and password."""
    from radicale.app import Application
    from radicale.config import load

    configuration: Any = load([])
    configuration.update(
        {
            "auth": {"type": "none"},
            "rights": {"type": "authenticated"},
            "storage": {"filesystem_folder": str(folder)},
            "logging": {"level": "critical"},
        },
        "test",
        privileged=True,
    )
    logging.getLogger("radicale").setLevel(logging.CRITICAL)
    application: App = Application(configuration)

    def decoded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["PATH_INFO"] = environ["PATH_INFO"].encode("latin-1").decode()  # as Radicale's own server hands it over
        return application(environ, start_response)

    return WebServer(decoded)


def wsgidav(folder: Path, *, digest: bool = False) -> WebServer:
    """Files, with ETags of inode, second and size. User ada, password shallow-water."""
    from wsgidav.wsgidav_app import WsgiDAVApp

    app: Any = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": {"ada": {"password": "shallow-water"}}}},
            "http_authenticator": {"accept_basic": not digest, "accept_digest": digest, "default_to_digest": digest},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    return WebServer(app)


_numbers = itertools.count(1)


class Files(SourceUnderTest):
    """A folder on WsgiDAV, empty, changed through the server as a client would."""

    def __init__(self, server: WebServer, **settings: Any) -> None:
        self.server, self.settings = server, settings
        self.folder = f"files {next(_numbers)} ä/"
        self._client = httpx.Client(base_url=server.url + self.folder, auth=("ada", "shallow-water"))
        self._client.request("MKCOL", "").raise_for_status()

    def config(self, **settings: Any) -> dict[str, Any]:
        return {"url": self.server.url + self.folder, "user": "ada", **self.settings, **settings}

    def connect(self, **settings: Any) -> WebdavConnector:
        return WebdavConnector.create(self.config(**settings), "shallow-water")

    def request(self, method: str, path: str, **options: Any) -> None:
        """Below the source's folder; from the server's root where the path begins with a slash."""
        url = self.server.url + path[1:] if path.startswith("/") else path
        self._client.request(method, url, **options).raise_for_status()

    def put(self, path: str, data: bytes) -> str:
        self.request("PUT", path, content=data)
        return path

    def write(self, name: str, text: str) -> str:
        return self.put(f"{name}.txt", text.encode())

    def delete(self, ref: str) -> None:
        self.request("DELETE", ref)

    def rename(self, ref: str, name: str) -> str:
        new = name + ref[ref.rindex(".") :]
        self.request("MOVE", ref, headers={"Destination": str(self._client.base_url.join(new))})
        return new

    def break_half_way(self) -> None:
        not_applicable("a collection is told in one answer")

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        headers = [("Retry-After", "7"), ("Content-Length", "0")]
        forms = ("429 Too Many Requests", "503 Service Unavailable")
        return {form: lambda form=form: self.server.refuse(form, headers) for form in forms}

    def revoke(self) -> None:
        self.server.refuse("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="any"'), ("Content-Length", "0")])

    def forbid(self, ref: str) -> None:
        not_applicable("this server gives permissions for whole collections")

    def close(self) -> None:
        self._client.close()

    def break_off(self) -> None:
        self.server.stop()

    def mend(self) -> None:
        self.server.accept_again()


EVENT = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//sourcebus//tests//EN\r
BEGIN:VEVENT\r
UID:{name}\r
DTSTAMP:20261125T100000Z\r
DTSTART:20261201T090000Z\r
SUMMARY:{text}\r
END:VEVENT\r
END:VCALENDAR\r
"""


class Calendar(Files):
    """A calendar on Radicale, empty."""

    def __init__(self, server: WebServer, **settings: Any) -> None:
        self.server, self.settings = server, settings
        self.home = f"user{next(_numbers)}/"
        self.folder = self.home + "calendar/"
        self._client = httpx.Client(base_url=server.url + self.folder, auth=(self.home[:-1], "any"))
        self.request("MKCALENDAR", "")

    def config(self, **settings: Any) -> dict[str, Any]:
        return {"url": self.server.url + self.folder, "user": self.home[:-1], **self.settings, **settings}

    def write(self, name: str, text: str) -> str:
        return self.put(f"{name}.ics", EVENT.format(name=name, text=text).encode())

    def expire_cursor(self, cursor: str | None) -> str | None:
        """Sync tokens that the server does not know, as after 30 days."""
        said = json.loads(cursor or "{}")
        said["tokens"] = dict.fromkeys(said["tokens"], f"http://radicale.org/ns/sync/{'0' * 64}")
        return json.dumps(said)


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
