"""What every simulated provider is made of: a small HTTP server that answers by routes, and can be told to refuse."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Header names are in lower case; `path` is percent-encoded, `args` what the route's groups matched is not."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    args: tuple[str, ...] = ()

    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `body` is bytes as they are, or anything else as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Route = Callable[[Asked], Answer]


class ProviderServer:
    """A provider on ``127.0.0.1``. Subclasses add routes with `on`; every route holds `lock`, which guards their objects.

    A context manager. `asked` lists what was asked, oldest first, for tests to look at.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.asked: list[Asked] = []
        self._routes: list[tuple[str, re.Pattern[str], Route]] = []
        self._refusals: list[tuple[re.Pattern[str], Answer | None]] = []
        self._server = _Listener(self._answer)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, method: str, path: str, route: Route) -> None:
        """Answer `method` on paths that match `path` whole: a regular expression, whose groups become `Asked.args`."""
        self._routes.append((method, re.compile(path), route))

    def refuse(self, answer: Answer, *, times: int = 1, path: str = ".*", after: int = 0) -> None:
        """Answer the next `times` requests whose path matches with this instead: a throttle, an outage, a lost permission.
        `after` are answered as ever before."""
        with self.lock:
            pattern = re.compile(path)
            self._refusals += [*[(pattern, None)] * after, *[(pattern, answer)] * times]

    def accept_again(self) -> None:
        """Forget the refusals that are left."""
        with self.lock:
            self._refusals.clear()

    def _answer(self, asked: Asked) -> Answer:
        with self.lock:
            self.asked.append(asked)
            for at, (pattern, refusal) in enumerate(self._refusals):
                if pattern.fullmatch(asked.path):
                    del self._refusals[at]
                    if refusal is not None:
                        return refusal
                    break
            for method, pattern, route in self._routes:
                if method == asked.method and (found := pattern.fullmatch(asked.path)):
                    args = tuple(unquote(group or "") for group in found.groups())
                    return route(Asked(asked.method, asked.path, asked.query, asked.headers, asked.body, args))
        return Answer(404, {"error": f"{asked.method} {asked.path} is not simulated"})

    def close(self) -> None:
        self._server.stop()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="provider", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
            self._thread = None
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        answer = cast("_Listener", self.server).answer(Asked(self.command, parts.path, query, headers, body))
        is_bytes = isinstance(answer.body, bytes)
        sent = answer.body if is_bytes else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {
            "Content-Type": "application/octet-stream" if is_bytes else "application/json",
            **answer.headers,
        }.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Silent: `ProviderServer.asked` has it."""


def pages(items: Sequence[Any], start: int, size: int) -> tuple[Sequence[Any], int | None]:
    """One page of `items`, and where the next begins (None: that was the last)."""
    return items[start : start + size], start + size if start + size < len(items) else None
