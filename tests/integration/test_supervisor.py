"""The supervisor on small real processes: restarts, order of stopping, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = textwrap.dedent(
    """
    import sys, threading
    from pathlib import Path
    from sourcebus.cli.up.child import Command
    from sourcebus.cli.up.screen import Screen
    from sourcebus.cli.up.supervisor import Supervisor

    class Nobody:
        def __init__(self): self.ready = threading.Event()
        def start(self): print("up", flush=True)
        def stop(self): pass

    folder = Path(sys.argv[1])
    def shell(name, script, patience=5): return Command(name, ["/bin/sh", "-c", script, name, str(folder)], patience)

    note = 'echo "$0 $$" >> "$1/started"; trap \\'echo "$0" >> "$1/ended"; exit 0\\' TERM; '
    sys.exit(Supervisor(
        screen=Screen(), logs=folder, server=None, server_ready=None,
        commands=[
            [shell("first", note + "while :; do sleep 0.05; done")],
            [shell("pool", note + "sleep 1000 & echo $! >> $1/workers; while :; do sleep 0.05; done")],
            [shell("stubborn", 'echo "$0 $$" >> "$1/started"; trap "" TERM; while :; do sleep 0.05; done', 0.5)],
        ],
        companion=lambda report: Nobody(),
    ).run())
    """
)


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def started(self, name: str) -> list[int]:
        return [int(line.split()[1]) for line in self.lines("started") if line.startswith(name + " ")]

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def everyone(self) -> list[int]:
        return [int(line.split()[-1]) for line in [*self.lines("started"), *self.lines("workers")]]


def alive(pid: int) -> bool:
    """Running, and not merely waiting to be reaped."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def until(condition: Callable[[], object], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    until(lambda: len(run.lines("started")) == 3 and run.lines("workers"))
    yield run
    if run.process.poll() is None:
        run.process.send_signal(signal.SIGTERM)
    run.process.communicate(timeout=20)


def test_stops_in_order_and_leaves_nobody(run: Run) -> None:
    run.process.send_signal(signal.SIGINT)
    out, _ = run.process.communicate(timeout=20)
    assert run.process.returncode == 0
    assert run.lines("ended") == ["first", "pool"]
    assert "stubborn did not end in 0 s; killed" in out or "stubborn did not end in 1 s; killed" in out
    until(lambda: not any(map(alive, run.everyone())))


def test_what_dies_is_started_again_with_all_it_had_started(run: Run) -> None:
    (worker,) = (int(line) for line in run.lines("workers"))
    os.kill(run.started("pool")[0], signal.SIGKILL)
    until(lambda: len(run.started("pool")) == 2)
    until(lambda: not alive(worker))
    run.process.send_signal(signal.SIGTERM)
    out, _ = run.process.communicate(timeout=20)
    assert "pool was killed by SIGKILL" in out
    until(lambda: not any(map(alive, run.everyone())))


def test_a_killed_supervisor_leaves_nobody(run: Run) -> None:
    run.process.kill()
    until(lambda: not any(map(alive, run.everyone())))


def test_a_killed_guard_is_replaced_and_knows_everyone(run: Run) -> None:
    def guards() -> list[int]:
        ps = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(run.process.pid)]
        done = subprocess.run(ps, capture_output=True, text=True, check=True)
        return [int(line.split()[0]) for line in done.stdout.splitlines() if "guard.py" in line]

    (guard,) = guards()
    os.kill(guard, signal.SIGKILL)
    until(lambda: guards() and guards() != [guard])
    run.process.kill()
    until(lambda: not any(map(alive, run.everyone())))


def test_a_second_signal_does_not_wait(run: Run) -> None:
    run.process.send_signal(signal.SIGINT)
    until(lambda: "pool" in run.lines("ended"))
    begun = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    run.process.communicate(timeout=20)
    assert time.monotonic() - begun < 0.5
