"""What the probes of semantics share: ``python -m benchmarks.peers.probe_NAME send`` and ``… work``.

`send` reads lines ``KEY SECONDS`` from standard input, enqueues a job for each, and answers each with a line: ``sent``, or
``refused`` where the system says at once that it will not run it. `work` is one worker, until it is told to end. A job notes
in a journal when it starts and ends, and in between does nothing for so long; one that is there to be killed ends at once
when it is run again. ``BENCHMARK_REDIS`` is the server's unix:// URL, ``BENCHMARK_JOURNAL`` the file,
``BENCHMARK_FEATURE`` what of the system is switched on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

URL = os.environ.get("BENCHMARK_REDIS", "unix:///nowhere")
SOCKET = URL.removeprefix("unix://")
FEATURE = os.environ.get("BENCHMARK_FEATURE", "plain")

WINDOW_S = 1
"""The window of every dedup feature, and of every rate limit: one start per key in it."""

CRASHES_S = 600.0
"""A job of this length is there to be killed."""


def _note(what: str, key: str) -> None:
    file = os.open(os.environ["BENCHMARK_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{what} {key} {time.monotonic_ns()}\n".encode())
    os.close(file)


def _begin(key: str, seconds: float) -> float:
    """Notes the start; how long the job is to take now."""
    journal = Path(os.environ["BENCHMARK_JOURNAL"])
    again = seconds >= CRASHES_S and journal.exists() and f"start {key} " in journal.read_text("ascii")
    _note("start", key)
    return 0.0 if again else seconds


def job(key: str, seconds: float) -> None:
    time.sleep(_begin(key, seconds))
    _note("end", key)


async def job_async(key: str, seconds: float) -> None:
    await asyncio.sleep(_begin(key, seconds))
    _note("end", key)


def run_module(*arguments: str) -> None:
    """Becomes ``python -m …``: the peer's own command, in this process's place."""
    os.execv(sys.executable, [sys.executable, "-m", *arguments])


def main(send: Callable[[str, float], object], work: Callable[[], object]) -> None:
    """Does what the command line asks. `send` answers False where the job was refused."""
    match sys.argv[1:]:
        case ["work"]:
            work()
        case ["send"]:
            print("ready", flush=True)
            for line in sys.stdin:
                key, seconds = line.split()
                print("refused" if send(key, float(seconds)) is False else "sent", flush=True)
        case _:
            sys.exit(__doc__)


def main_async(send: Callable[[str, float], Coroutine[Any, Any, object]], work: Callable[[], object]) -> None:
    """`main` for a `send` that is a coroutine; all of them run in one loop."""
    with asyncio.Runner() as runner:
        main(lambda key, seconds: runner.run(send(key, seconds)), work)
