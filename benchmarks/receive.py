"""Receiving webhooks: one gateway process, GitHub's own payloads, signed; beside the receiver that most teams write.

One processor is the receiver's alone. The other is shared by who sends and by Redis, in the same way for every system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from cryptography.fernet import Fernet
from pydantic import SecretStr

from benchmarks.github_deliveries import SECRET, SOURCES, GitHubDeliveries, missing
from benchmarks.processes import REPOSITORY, clean_environment, running, scratch
from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table, number
from benchmarks.timing import median
from sourcebus.connectors import register
from sourcebus.model import Source
from sourcebus.runtime import build
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.testing.ports import free_ports

OURS, PAYLOAD, NAMES = "sourcebus gateway", "FastAPI + task.delay(payload)", "FastAPI + task.delay(names only)"
SYSTEMS = (OURS, PAYLOAD, NAMES)
TIMES, P99_MS, MOST_MS = 2.0, 50.0, 1_000.0
RATE, STORM = 1_000, 50_000

_CONNECTIONS, _STORM_CONNECTIONS = 64, 512
_COMMANDS = {
    OURS: ("-m", "benchmarks.peers.receiver_gateway", "{port}"),
    PAYLOAD: ("-m", "benchmarks.peers.receiver_celery", "{port}", "payload"),
    NAMES: ("-m", "benchmarks.peers.receiver_celery", "{port}", "names"),
}

_TITLE: Final = "Receiving signed webhooks, one process"
_COLUMNS: Final = ["system", "/s", "lowest – highest", "ours ×", "p50 ms", "p99 ms", "sender busy"]
_SHARES: Final = ("p50_ms", "p95_ms", "p99_ms", "p99.9_ms", "max_ms")
_TIMES_SHOWN: Final = ("p50", "p95", "p99", "p99.9", "slowest")
_CPUS: Final = sorted(os.sched_getaffinity(0))
_KEY: Final = Fernet.generate_key().decode()

Found = dict[str, Any]


def run(quick: bool) -> Result:
    rounds, count, steady_s, storm = (1, 4_000, 5, 10_000) if quick else (5, 20_000, 30, STORM)
    if (why := missing()) is not None:
        return Result("receive", _TITLE, _goals({}, None, None, why))
    found: dict[str, list[Found]] = {name: [] for name in SYSTEMS}
    with step("receive, in turns", rounds * len(SYSTEMS)) as shown:
        for at in range(rounds):
            for name in SYSTEMS if at % 2 == 0 else reversed(SYSTEMS):
                with receiver(name) as port:
                    hammer(port, count // 10, _CONNECTIONS)  # imports, connections and caches are not what is measured
                    found[name].append(hammer(port, count, _CONNECTIONS))
                shown.advance()
    with step("receive, steady and in a storm", 2) as shown:
        with receiver(OURS) as port:
            steady = hammer(port, RATE * steady_s, _CONNECTIONS, RATE)
        shown.advance()
        with receiver(OURS) as port:
            stormed = hammer(port, storm, _STORM_CONNECTIONS)
        shown.advance()
    return _result(found, steady, stormed)


@contextmanager
def receiver(name: str) -> Generator[int]:
    """One system on a Redis of its own, its port once it answers."""
    with _beside(), running_server() as url, scratch() as folder:
        settings = Settings(
            redis_url=url, database_url=f"sqlite:///{folder}/catalog.db", data_dir=folder, secret_key=SecretStr(_KEY)
        )
        if name == OURS:
            _add_sources(settings)
        (port,) = free_ports(1)
        command = [sys.executable, *(part.format(port=port) for part in _COMMANDS[name])]
        environment = {
            "SOURCEBUS_REDIS_URL": url,
            "SOURCEBUS_DATABASE_URL": settings.database_url,
            "SOURCEBUS_DATA_DIR": str(folder),
            "SOURCEBUS_SECRET_KEY": _KEY,
            "SOURCEBUS_LOG_LEVEL": "warning",
        }
        with running(name, _pinned(_CPUS[:1], command), folder / "receiver.log", environment=environment) as process:
            _await(port, process.check)
            yield port


def hammer(port: int, count: int, connections: int, rate: int = 0) -> Found:
    """What `benchmarks.hammer` finds, from a process of its own, on the other processor."""
    command = [sys.executable, "-m", "benchmarks.hammer", *map(str, (port, count, connections, rate))]
    done = subprocess.run(
        _pinned(_CPUS[1:] or _CPUS, command),
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"the sender failed:\n{done.stderr[-2000:]}")
    found: Found = json.loads(done.stdout)
    if set(found["statuses"]) != {"202"}:
        raise RuntimeError(f"not everything was accepted: {found['statuses']}")
    return found


def _pinned(cpus: list[int], command: list[str]) -> list[str]:
    return ["taskset", "--cpu-list", ",".join(map(str, cpus)), *command] if shutil.which("taskset") else command


@contextmanager
def _beside() -> Generator[None]:
    """What is started in here shares a processor with the sender, not with the receiver."""
    os.sched_setaffinity(0, _CPUS[1:] or _CPUS)
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CPUS)


def _add_sources(settings: Settings) -> None:
    register(GitHubDeliveries.name, GitHubDeliveries)
    with build(settings) as runtime:
        for source_id in SOURCES:
            runtime.sources.add(Source(source_id, GitHubDeliveries.name, secret=SECRET))


def _await(port: int, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        check()
        try:
            httpx.get(f"http://127.0.0.1:{port}/hooks/{SOURCES[0]}", timeout=5)
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing answers on port {port}")


def _result(found: dict[str, list[Found]], steady: Found, stormed: Found) -> Result:
    rates = {name: [one["per_s"] for one in runs] for name, runs in found.items()}
    middle = {name: median(values) for name, values in rates.items()}
    rows: list[list[Cell]] = [_row(name, found[name], middle[OURS]) for name in SYSTEMS]
    calm: list[list[Cell]] = [
        [what, round(one["per_s"]), *(one[share] for share in _SHARES), f"{one['busy']:.0%}"]
        for what, one in ((f"{RATE:,} a second", steady), (f"a storm of {sum(stormed['statuses'].values()):,}", stormed))
    ]
    return Result(
        "receive",
        _TITLE,
        _goals(middle, steady, stormed),
        [
            Table(
                f"Deliveries a second, medians of {len(found[OURS])} interleaved rounds, {_CONNECTIONS} connections",
                _COLUMNS,
                rows,
            ),
            Table("Times of the answers of sourcebus gateway, ms", ["load", "/s", *_TIMES_SHOWN, "sender busy"], calm),
        ],
        [
            "The payloads are GitHub's own (@octokit/webhooks-examples 7.6.1, 329 of 58 events, half of them above 7.7 kB), "
            "made 4,000 different ones by numbering issues and files, signed with X-Hub-Signature-256, for 50 sources.",
            "All systems: one process, uvicorn with uvloop and httptools, a processor of its own; the sender and a Redis "
            "without persistence share the other one. The same connector proves the signature, and for ours and *names only* "
            "finds what changed.",
            "Ours answers when the events are in the bus: deduplicated, in fair order, the delivery remembered against being "
            "sent again and noted in the deliveries log. The receivers answer when Celery's message is in its list.",
            "At a steady rate a request's time begins when it was due. The storm comes as fast as it is answered, over "
            f"{_STORM_CONNECTIONS} connections.",
            "*Sender busy*: the share of its time for which the sender used its processor; at 100 % it would be what is "
            "measured.",
        ],
        {"per_s": rates},
    )


def _row(name: str, runs: list[Found], ours: float) -> list[Cell]:
    rates = [one["per_s"] for one in runs]
    middle = median(rates)
    spread = f"{number(round(min(rates)))} – {number(round(max(rates)))}"
    times = [median([one[share] for one in runs]) for share in ("p50_ms", "p99_ms")]
    return [
        name,
        round(middle),
        spread,
        None if name == OURS else ours / middle,
        *times,
        f"{max(one['busy'] for one in runs):.0%}",
    ]


def _goals(rates: dict[str, float], steady: Found | None, stormed: Found | None, why: str = "") -> list[Goal]:
    peers = [rates[name] for name in (PAYLOAD, NAMES) if name in rates]
    times = rates[OURS] / max(peers) if peers else None
    return [
        Goal("deliveries per second, as a multiple of the faster usual receiver", "at least", TIMES, times, "×", why),
        Goal(
            f"p99 of the answers at {RATE:,} a second",
            "at most",
            P99_MS,
            None if steady is None else steady["p99_ms"],
            "ms",
            why,
        ),
        Goal(
            f"slowest answer in a storm of {STORM:,}",
            "at most",
            MOST_MS,
            None if stormed is None else stormed["max_ms"],
            "ms",
            why,
        ),
    ]
