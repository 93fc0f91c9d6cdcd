"""`sourcebus up` as a person starts it, run by a benchmark."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.processes import Running, running
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing.ports import free_ports

_READY_S = 90.0


@dataclass(frozen=True)
class Instance:
    """A running `sourcebus up`: its HTTP address, and its parts as this process opened them for looking."""

    port: int
    process: Running
    runtime: Runtime

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One HTTP request to its gateway: status and JSON."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            line.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = line.getresponse()
            text = answer.read()
        finally:
            line.close()
        return answer.status, json.loads(text) if text else None

    def finds(self, word: str) -> set[str]:
        """The objects that ``GET /v1/search`` finds for a word."""
        _status, answer = self.call("GET", f"/v1/search?q={quote(word)}&limit=5")
        return {hit["object_ref"] for hit in answer["hits"]}

    def searchable(self, source_id: str) -> int:
        """How many documents of a source can be found."""
        return self.runtime.catalog.counts([source_id]).get(source_id, {}).get("documents", 0)


@contextmanager
def up(data: Path, *watch: Path) -> Generator[Instance]:
    """Starts it on a data folder and waits until a worker and a beat are there; stops it at the end."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "sourcebus", "up", "--data", str(data), "--port", str(port)]
    for folder in watch:
        command += ["--watch", str(folder)]
    public = {"SOURCEBUS_PUBLIC_URL": f"http://127.0.0.1:{port}"}  # where hubs are told to post
    with running("sourcebus up", command, data.with_suffix(".log"), environment=public, patience_s=45) as process:
        found = _address(process, data / "instance.json")
        settings = Settings(redis_url=found["redis_url"], database_url=found["database_url"], data_dir=data)
        with build(settings) as runtime:
            instance = Instance(port, process, runtime)
            _await_ready(instance)
            yield instance


def _address(process: Running, path: Path) -> dict[str, str]:
    deadline = time.monotonic() + _READY_S
    while not path.exists() or not path.read_text("utf-8"):
        process.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{process.name} did not start:\n{process.said()[-2000:]}")
        time.sleep(0.02)
    return json.loads(path.read_text("utf-8"))


def _await_ready(instance: Instance) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        instance.process.check()
        try:
            if instance.call("GET", "/readyz")[0] == 200:
                return
        except (OSError, http.client.HTTPException, ValueError):
            pass  # not listening yet
        if time.monotonic() > deadline:
            raise TimeoutError(f"sourcebus up is not ready:\n{instance.process.said()[-2000:]}")
        time.sleep(0.05)
