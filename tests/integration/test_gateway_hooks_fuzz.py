"""Whatever comes to a hook: no 5xx, no 2xx for what was not stored, and no memory that stays.

Deliveries are made from a seed: true ones, and ones that are bent in their headers, their bodies, their paths. A failure names
its seed. ``make soak`` sends a million.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from tests.hearing import SECRET, register_all, signature

from sourcebus.gateway import create_app
from sourcebus.model import ChangeKind
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings

register_all()
_SOURCES = {"signed": "signed", "open": "unsigned", "strict": "onlyjson", "quiet": "deaf"}
_NAMES = [
    "content-type",
    "content-length",
    "x-hub-signature-256",
    "x-sent",
    "x-delivery",
    "host",
    "origin",
    "transfer-encoding",
]
_VALUES = [
    *("", "0", "-1", "9" * 5_000, "application/json", "application/json; charset=utf-16", "sha256=", "sha256=é", "ÿþ", "NaN"),
    *("1e999", "localhost", "a" * 20_000, "\t", "%00"),
]
_PATHS = [
    *("/hooks/", "/hooks//", "/hooks/signed/", "/hooks/%ff", "/hooks/%00", "/hooks/%2e%2e/x", "/hooks/a/b/c/d"),
    "/hooks/" + "x" * 4_000,
]
_BODIES = [
    *(b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 5_000, b'{"a":' * 300, b'{"n": ' + b"9" * 5_000 + b"}"),
    *(b'{"objects": [""]}', b'{"objects": 7}', b'{"objects": [[]]}', b'{"objects": ["' + b"x" * 5_000 + b'"]}'),
    *(b'{"objects": ["\\ud800"]}', b'{"objects": ["a\\u0000b"]}', b'{"scan": ""}', b'{"lost": [1]}', b'{"n": 1e999}'),
    *(b"\xef\xbb\xbf{}", b'{"keep": ""}', b'{"keep": []}'),
]


class Sent:
    """One request as an ASGI server hands it on, and which objects it claims if it is true."""

    def __init__(self, random: random.Random, number: int, token: str) -> None:
        self.objects = [f"o{number}-{at}" for at in range(random.choice((0, 1, 1, 1, 3)))]
        self.method = random.choice(("POST",) * 12 + ("GET", "OPTIONS", "PUT", "HEAD"))
        source = random.choice(("signed", "signed", "signed", "open", "strict", "quiet", "nowhere"))
        self.source, self.query = source, random.choice((b"",) * 8 + (b"challenge=x", b"%ff=%00&&=", b"a=" * 200))
        self.path = f"/hooks/{source}" + (f"/{token}" if source == "open" and random.random() < 0.8 else "")
        self.body = json.dumps({"objects": self.objects}).encode()
        if random.random() < 0.4:
            self.body, self.objects = random.choice(_BODIES), []
        elif random.random() < 0.2:
            bent = bytearray(self.body)
            bent[random.randrange(len(bent))] = random.randrange(256)
            self.body, self.objects = bytes(bent), []
        proof = signature(self.body, SECRET if random.random() < 0.8 else "forged")
        headers = {"host": "localhost", "content-type": "application/json", "x-delivery": str(number), **proof}
        for _ in range(random.choice((0, 0, 1, 3))):
            headers[random.choice(_NAMES)] = random.choice(_VALUES)
        if random.random() < 0.1:
            headers["x-delivery"] = "the same again"
        if headers["x-delivery"] != str(number):
            self.objects = []  # several have this id, and all but the first are the same delivery again
        if random.random() < 0.05:
            self.path = random.choice(_PATHS)
        self.headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.cut = random.randrange(len(self.body) + 1) if random.random() < 0.3 else None
        self.leaves = random.random() < 0.02

    async def through(self, app: FastAPI) -> int:
        """The status of the answer, 0 where none came because the client had left."""
        scope: dict[str, object] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode("latin-1"),
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        parts = [self.body] if self.cut is None else [self.body[: self.cut], self.body[self.cut :]]
        messages = iter(
            [dict[str, object](type="http.request", body=part, more_body=at + 1 < len(parts)) for at, part in enumerate(parts)]
        )
        status = 0

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"} if self.leaves else next(messages, {"type": "http.disconnect"})

        async def send(message: dict[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))

        await app(scope, receive, send)  # pyright: ignore[reportArgumentType]  # a dict is what every server passes
        return status


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    with build(settings.model_copy(update={"hook_rate": 1e9, "hook_log": 5, "hook_seen": 1_000})) as built:
        for source_id, connector in _SOURCES.items():
            secret = SECRET if connector in ("signed", "onlyjson") else None
            obj = {"id": source_id, "connector": connector, "secret": secret, "paused": True}
            built.sources.add(built.sources.parse(obj))
        yield built


def resident_kb() -> int:
    return int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1]) * resource.getpagesize() // 1024


async def storm(runtime: Runtime, app: FastAPI, seed: int, count: int, at_once: int = 64) -> Counter[int]:
    """Sends `count` deliveries; every answer is judged. How often each status was seen."""
    chance, statuses = random.Random(seed), Counter[int]()
    token = quote(runtime.catalog.source("open").hook_token or "")
    for start in range(0, count, at_once):
        batch = [Sent(chance, seed * 10_000_000 + start + at, token) for at in range(min(at_once, count - start))]
        answers = await asyncio.gather(*(one.through(app) for one in batch))
        for one, status in zip(batch, answers, strict=True):
            statuses[status] += 1
            said = f"seed {seed}: {one.method} {one.path[:80]} {one.headers} {one.body[:80]!r} was answered {status}"
            assert status < 500 or status == 503, said
            assert status != 503, said
            if one.method == "POST" and 200 <= status < 300 and one.objects and start % 1_024 == 0:
                stored = {runtime.bus.peek(one.source, ref, ChangeKind.UPDATED).state for ref in one.objects}
                assert stored == {"ready"}, f"{said}, and was not stored"
    return statuses


@pytest.mark.parametrize("seed", [1, 2])
def test_a_few_thousand_bent_deliveries(runtime: Runtime, seed: int) -> None:
    statuses = asyncio.run(storm(runtime, create_app(runtime), seed, 2_000))
    assert {202, 401, 404, 405, 415, 422} <= set(statuses), statuses
    assert 0 < statuses[0] < 200, "clients that left"


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_a_million_bent_deliveries_leave_no_memory_behind(runtime: Runtime) -> None:
    app = create_app(runtime)

    async def rounds() -> list[int]:
        sizes = list[int]()
        for seed in range(100, 120):
            await storm(runtime, app, seed, 50_000)
            gc.collect()
            sizes.append(resident_kb())
        return sizes

    sizes = asyncio.run(rounds())
    assert sizes[-1] - sizes[3] < 20_000, f"kB after each 50,000: {sizes}"
