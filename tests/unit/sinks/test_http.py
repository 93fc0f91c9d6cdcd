"""The HTTP sink against a real server on the loopback address."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("stamina", reason="the HTTP sink needs httpx and stamina: pip install httpx stamina")

from sourcebus.errors import SinkError
from sourcebus.model import Document, Outcome
from sourcebus.sinks.http import HttpSink


class Receiver:
    """Answers with `answers` in turn (status, headers), then with 204; keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.batches: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.headers.append(dict(self.headers))
                status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
                if status < 300:
                    receiver.batches.append(body["items"])
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the test says what was wrong."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def outcomes(count: int) -> list[Outcome]:
    return [Outcome("s", f"{n}\udcff", n, "indexed", n, f"v{n}", documents=[Document("é")]) for n in range(count)]


def test_outcomes_arrive_in_batches(receiver: Receiver) -> None:
    with closing(HttpSink(receiver.url, batch=2, headers={"Authorization": "Bearer x"})) as sink:
        sink.write([*outcomes(5), Outcome("s", "n", 9, "note", 9)])
        sink.write([])
    assert [len(batch) for batch in receiver.batches] == [2, 2, 1]
    assert [item["object_ref"] for batch in receiver.batches for item in batch] == [f"{n}\udcff" for n in range(5)]
    assert receiver.headers[0]["Authorization"] == "Bearer x"
    assert receiver.headers[0]["Content-Type"] == "application/json"


def test_a_receiver_in_trouble_is_asked_again(receiver: Receiver) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "0"}), (500, {"Retry-After": "soon"})]
    with closing(HttpSink(receiver.url, first_wait_s=0.001)) as sink:
        sink.write(outcomes(1))
    assert len(receiver.batches) == 1 and receiver.answers == []


def test_after_the_last_attempt_it_is_an_error(receiver: Receiver) -> None:
    receiver.answers = [(503, {})] * 3
    with closing(HttpSink(receiver.url, attempts=3, first_wait_s=0.001)) as sink, pytest.raises(SinkError, match="503"):
        sink.write(outcomes(1))
    assert receiver.batches == [] and receiver.answers == []


def test_a_refusal_is_not_repeated(receiver: Receiver) -> None:
    receiver.answers = [(400, {}), (204, {})]
    with closing(HttpSink(receiver.url)) as sink, pytest.raises(SinkError, match="400"):
        sink.write(outcomes(1))
    assert len(receiver.headers) == 1


def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/in"
    with closing(HttpSink(url, attempts=2, first_wait_s=0.001)) as sink, pytest.raises(SinkError, match="did not take"):
        sink.write(outcomes(1))
