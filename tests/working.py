"""A worker slot in the test's own thread, or beside it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from sourcebus.runtime import Runtime


def work(runtime: Runtime) -> None:
    """Works until nothing is ready."""
    shift = runtime.shift()
    try:
        while shift.run():
            pass
    finally:
        shift.close()


def found(runtime: Runtime, word: str) -> list[str]:
    """What a search for `word` shows."""
    return [hit.object_ref for hit in runtime.catalog.search(word)]


@contextmanager
def at_work(runtime: Runtime, tick_s: float = 0.25) -> Generator[None]:
    """A worker slot and a beat, in threads, until the end."""
    stop = threading.Event()

    def run() -> None:
        shift = runtime.shift(stop.is_set)
        while not stop.is_set():
            shift.run()
        shift.close()

    def beat() -> None:
        while not stop.wait(tick_s):
            runtime.housekeeping()

    threads = [threading.Thread(target=run), threading.Thread(target=beat)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
