"""The peers of the bus benchmarks: where each is installed, how it is started, how it is set up, and how much it gets to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.processes import REPOSITORY

_MAKE = "run make bench-bus, which installs it"
_BULLMQ = REPOSITORY / "benchmarks" / "peers" / "bullmq"
_PEERS = REPOSITORY / ".venv-peers" / "bin" / "python"
_ARQ = REPOSITORY / ".venv-arq" / "bin" / "python"  # with the older redis-py that arq and SAQ ask for


@dataclass(frozen=True)
class Peer:
    """One system. `module` names its files, `package` what must be importable in the environment of `python` (None: Node).
    `workers` are the processes to start: 1 where its own command starts two. `jobs` and `quick_jobs` make a run of seconds."""

    name: str
    module: str
    package: str
    python: Path | None
    note: str
    jobs: int
    quick_jobs: int
    bulk: bool = False
    workers: int = 1

    def command(self, kind: str, *arguments: str) -> list[str]:
        """Runs its file of that kind: ``noop`` or ``probe``."""
        if self.python is None:
            return ["node", str(_BULLMQ / f"{kind}.mjs"), *arguments]
        return [str(self.python), "-m", f"benchmarks.peers.{kind}_{self.module}", *arguments]

    def missing(self) -> str | None:
        """Why it cannot run here, in one line; None: it can."""
        return _missing(self.python, self.package)


@cache
def _missing(python: Path | None, package: str) -> str | None:
    if python is None:
        if shutil.which("node") is None:
            return f"Node.js 20 or newer is not installed (Debian and Ubuntu: apt-get install nodejs npm); then {_MAKE}"
        return None if (_BULLMQ / "node_modules" / package).is_dir() else _MAKE
    if not os.access(python, os.X_OK):
        return _MAKE
    tried = subprocess.run([str(python), "-c", f"import {package}"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"{tried.stderr.strip().splitlines()[-1]}; {_MAKE}"


CELERY, BULLMQ = "Celery task per event", "BullMQ"

PEERS = (
    Peer(
        BULLMQ, "bullmq", "bullmq", None, "two Node processes, concurrency 50, finished jobs not kept", 50_000, 10_000, True, 2
    ),
    Peer("Huey", "huey", "huey", _PEERS, "its consumer with two processes, blocking reads, no results", 20_000, 4_000),
    Peer("Dramatiq", "dramatiq", "dramatiq", _PEERS, "two processes of 8 threads, its defaults, no results", 15_000, 3_000),
    Peer(
        "taskiq", "taskiq", "taskiq_redis", _PEERS, "list broker, two processes, no results, acknowledged early", 15_000, 3_000
    ),
    Peer("SAQ", "saq", "saq", _ARQ, "two processes, concurrency 50, finished jobs not kept", 8_000, 2_000, False, 2),
    Peer("arq", "arq", "arq", _ARQ, "two processes, 50 jobs at once, looks every 50 ms, no results", 6_000, 1_500, False, 2),
    Peer("RQ", "rq", "rq", _PEERS, "two SimpleWorkers (no fork per job), no results", 3_000, 1_000, True, 2),
    Peer("pydocket", "docket", "docket", _PEERS, "two processes, concurrency 50, executions not kept", 4_000, 1_000, True, 2),
    Peer(CELERY, "celery", "celery", _PEERS, "prefork with two processes, no results, 64 messages ahead", 6_000, 1_500),
)

OURSELVES = Peer("sourcebus", "sourcebus", "sourcebus", Path(sys.executable), "four worker threads", 0, 0)
"""For what is asked of us in the same way."""

QUEUES = ("Huey", "Dramatiq", "taskiq", "SAQ", "arq", "RQ", "pydocket")
"""Those of which the fastest counts."""
