"""`celery -A sourcebus.worker worker` and `… beat` by themselves, with every pool, against a Redis URL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sourcebus.model import Source
from sourcebus.runtime import Runtime
from sourcebus.settings import Settings

_PATIENCE_S = 60.0


def eventually(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not met():
        assert time.monotonic() < deadline, f"not within {_PATIENCE_S:.0f} s: {what}"
        time.sleep(0.02)


@contextmanager
def celery(settings: Settings, *words: str) -> Generator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "SOURCEBUS_REDIS_URL": settings.redis_url,
        "SOURCEBUS_DATABASE_URL": settings.database_url,
        "SOURCEBUS_BUS_NAME": settings.bus_name,
        "SOURCEBUS_LEASE_MS": "5000",
    }
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "sourcebus.worker", *words, "--loglevel", "warning"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def fill(folder: Path, number: int) -> None:
    folder.mkdir()
    for at in range(number):
        (folder / f"{at}.txt").write_text(f"page {at} about herons")


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_a_worker_of_any_pool_indexes_and_ends_warmly_without_loss(runtime: Runtime, tmp_path: Path, pool: str):
    if pool == "gevent":
        pytest.importorskip("gevent", reason="pip install 'sourcebus[gevent]'")
    fill(tmp_path / "pages", 1_500)
    worker = ("worker", "--pool", pool, "--concurrency", "2", "--without-gossip", "--without-mingle")

    def indexed() -> int:
        return runtime.catalog.counts(["pages"])["pages"]["indexed"]

    with celery(runtime.settings, *worker) as first, celery(runtime.settings, "beat", "--pidfile", ""):
        runtime.sources.add(Source("pages", "filesystem", {"root": str(tmp_path / "pages")}))
        eventually(lambda: indexed() > 0, "the first page is indexed")
        first.terminate()
        assert first.wait(_PATIENCE_S) == 0, "a warm shutdown ends by itself"
        stats = runtime.bus.stats(["pages"])[0]
        assert stats and stats.in_flight == 0, "a warm shutdown gives back what it has not begun"
        with celery(runtime.settings, *worker):
            eventually(lambda: indexed() == 1_500, "every page is indexed")
            eventually(lambda: runtime.bus.vitals().consumers > 0, "a consumer waits for the next signal")
    assert runtime.desk.verify("pages").ok


def test_beat_alone_brings_a_consumer_for_what_nobody_was_invited_to(runtime: Runtime, tmp_path: Path):
    fill(tmp_path / "pages", 3)
    runtime.sources.add(
        Source("pages", "filesystem", {"root": str(tmp_path / "pages")})
    )  # its invitation is published by nobody
    with celery(runtime.settings, "worker", "--concurrency", "1"), celery(runtime.settings, "beat", "--pidfile", ""):
        eventually(lambda: runtime.catalog.counts(["pages"])["pages"]["indexed"] == 3, "the pages are indexed")
