"""What the no-op peers share: ``python -m benchmarks.peers.noop_NAME send SINGLE BULK`` and ``… work``.

`send` enqueues so many jobs one by one, then so many in bulk, and prints one line of JSON: the version, and both rates per
second (null: it has no such call). `work` is one worker, until it is told to end; its jobs only count.
``BENCHMARK_REDIS`` is the server's unix:// URL, ``BENCHMARK_TALLY`` the folder in which to count, ``BENCHMARK_SOURCES``
the number of sources that the jobs are spread over.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from benchmarks.ledger import Tally

URL = os.environ.get("BENCHMARK_REDIS", "unix:///nowhere")
SOCKET = URL.removeprefix("unix://")
BULK = 100
"""Jobs per bulk call: the size of ours."""

CONCURRENCY = 50
"""Jobs at once in one process, for the peers that run coroutines."""

Events = Sequence[tuple[str, str]]
_one_at_a_time = threading.Lock()


@cache
def _tally() -> Tally:
    return Tally(Path(os.environ["BENCHMARK_TALLY"]))


def count() -> None:
    """One job was done; from any thread."""
    with _one_at_a_time:
        _tally().add(1, time.monotonic_ns())


def in_bulks(events: Events) -> list[Events]:
    return [events[start : start + BULK] for start in range(0, len(events), BULK)]


def run_module(*arguments: str) -> None:
    """Becomes ``python -m …``: the peer's own command, in this process's place."""
    os.execv(sys.executable, [sys.executable, "-m", *arguments])


def main(
    package: str, single: Callable[[Events], object], work: Callable[[], object], bulk: Callable[[Events], object] | None = None
) -> None:
    """Does what the command line asks. `single` and `bulk` enqueue (source, object) pairs."""
    match sys.argv[1:]:
        case ["work"]:
            work()
        case ["send", singles, bulks]:
            sources = int(os.environ["BENCHMARK_SOURCES"])
            events = [(f"source-{at % sources}", f"folder/object-{at}") for at in range(int(singles) + int(bulks))]
            rates = {
                "single": _rate(single, events[: int(singles)]),
                "bulk": _rate(bulk, events[int(singles) :]) if bulk else None,
            }
            print(json.dumps({"version": version(package)} | rates))
        case _:
            sys.exit(__doc__)


def _rate(send: Callable[[Events], object], events: Events) -> float | None:
    if not events:
        return None
    began = time.perf_counter()
    send(events)
    return len(events) / (time.perf_counter() - began)
