"""The bus by itself, as docs/bus.md shows it: read this first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sourcebus import Bus, SourceChanged
from sourcebus.testing import ManualClock, running_server

PAGE = Path(__file__).parents[2] / "docs" / "bus.md"


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    with running_server() as url:
        made = redis.Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
        yield made
        made.close()


def test_the_example_on_the_page_runs_as_it_stands(
    client: redis.Redis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    found = re.search(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
    assert found
    monkeypatch.setattr(redis, "Redis", lambda: client)
    exec(compile(found[1], str(PAGE), "exec"), {})  # noqa: S102  the page's own example
    assert capsys.readouterr().out == "go and look at wiki page/7\n"


def test_the_last_change_is_never_lost(client: redis.Redis):
    clock = ManualClock()
    bus = Bus(client, clock_ms=lambda: clock.now)
    bus.register("wiki", window_ms=30_000)

    bus.emit(SourceChanged("wiki", "page/7"))
    (lease,) = bus.claim().leases
    # ... the page is being read, and changes again:
    bus.emit(SourceChanged("wiki", "page/7"))
    bus.ack([lease])

    assert bus.claim().leases == []  # not at once, that would be a storm
    clock.advance(30_000)
    (again,) = bus.claim().leases  # but for certain
    assert again.object_ref == "page/7"
