"""Four scenes that any job system can play: each starts it with one feature on, lets its jobs happen, and tells what was seen.

The jobs note when they start and end (`benchmarks.peers.probe`); nothing is taken from documentation.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.probe import CRASHES_S, WINDOW_S
from benchmarks.processes import REPOSITORY, Died, Running, clean_environment, running, scratch
from benchmarks.roster import Peer
from sourcebus.testing import running_server

RUNS_S, CHANGED_AFTER_S, LOST_AFTER_S = 0.8, 0.3, 6.0
"""The first job's length, when the second change arrives, and how long it is waited for."""

JOBS, CAP_JOB_S, HOLDS_S = 4, 0.5, 15.0
"""Jobs of the limited key, the length of one under a cap, and how long all of them are waited for."""

BLOCKED_S = 0.8
"""A key that waits longer than this was held up: by more than any system's polling."""

_START_S = 60.0


@dataclass(frozen=True)
class Seen:
    """What was observed, as a person reads it; `good`: nothing was lost and nobody else was held up."""

    text: str
    good: bool


class Stage:
    """A system that runs with one feature on."""

    def __init__(self, peer: Peer, folder: Path, environment: dict[str, str], sender: subprocess.Popen[str]) -> None:
        self._peer, self._folder, self._environment, self._sender = peer, folder, environment, sender
        self._workers = 0

    def worker(self) -> AbstractContextManager[Running]:
        self._workers += 1
        log = self._folder / f"worker-{self._workers}.log"
        return running(self._peer.name, self._peer.command("probe", "work"), log, environment=self._environment, patience_s=3)

    def send(self, key: str, seconds: float) -> tuple[int, bool]:
        """When it was handed over (monotonic nanoseconds), and whether the system took it."""
        assert self._sender.stdin and self._sender.stdout
        at_ns = time.monotonic_ns()
        self._sender.stdin.write(f"{key} {seconds:g}\n")
        self._sender.stdin.flush()
        return at_ns, self.answer() == "sent"

    def answer(self) -> str:
        assert self._sender.stdout
        said = self._sender.stdout.readline().strip()
        if not said:
            raise Died(f"{self._peer.name} cannot send:\n{(self._folder / 'sender.log').read_text('utf-8', 'replace')[-2000:]}")
        return said

    def times(self, what: str, key: str) -> list[int]:
        """When its jobs did that, in monotonic nanoseconds."""
        journal = self._folder / "journal"
        lines = journal.read_text("ascii").splitlines() if journal.exists() else []
        return [int(at) for did, whose, at in map(str.split, lines) if (did, whose) == (what, key)]

    def warm_up(self, worker: Running) -> None:
        """The worker has done a job, and no limit remembers it."""
        self.send("warm", 0)
        if not self.until(lambda: bool(self.times("end", "warm")), _START_S):
            raise Died(f"{self._peer.name} does no job:\n{worker.said()[-2000:]}")
        time.sleep(1.5 * WINDOW_S)  # what is waited for is that time passes

    @staticmethod
    def until(seen: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not seen():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


@contextmanager
def _stage(peer: Peer, feature: str) -> Generator[Stage]:
    with running_server() as url, scratch() as folder:
        journal = str(folder / "journal")
        environment = {"BENCHMARK_REDIS": url, "BENCHMARK_JOURNAL": journal, "BENCHMARK_FEATURE": feature}
        with (folder / "sender.log").open("wb") as log:
            sender = subprocess.Popen(
                peer.command("probe", "send"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=REPOSITORY,
                env=clean_environment() | environment,
                start_new_session=True,
            )
            try:
                stage = Stage(peer, folder, environment, sender)
                stage.answer()
                yield stage
            finally:
                sender.kill()
                sender.communicate()


def change(peer: Peer, feature: str) -> Seen:
    """A change arrives while the job of its predecessor runs: is there a job that starts after it?"""
    with _stage(peer, feature) as stage, stage.worker() as worker:
        stage.warm_up(worker)
        stage.send("a", RUNS_S)
        if not stage.until(lambda: bool(stage.times("start", "a")), _START_S):
            raise Died(f"{peer.name} does not begin:\n{worker.said()[-2000:]}")
        time.sleep(CHANGED_AFTER_S)
        changed_ns, taken = stage.send("a", RUNS_S)
        if not stage.until(lambda: stage.times("start", "a")[-1] > changed_ns, LOST_AFTER_S):
            return Seen("**lost**" if taken else "**lost** (refused when sent)", False)
        again_ns = stage.times("start", "a")[-1]
        stage.until(lambda: bool(stage.times("end", "a")), LOST_AFTER_S)
        after = f"run {_seconds(changed_ns, again_ns)} later"
        if again_ns < stage.times("end", "a")[0]:
            return Seen(f"{after}, beside its predecessor", False)
        return Seen(after, True)


def rate(peer: Peer, feature: str) -> Seen:
    """One start per second is allowed to a key that has several jobs; another key's job comes behind them."""
    with _stage(peer, feature) as stage, stage.worker() as worker:
        stage.warm_up(worker)
        sent_ns = [stage.send("a", 0)[0] for _ in range(JOBS)]
        other_ns, _ = stage.send("b", 0)
        stage.until(lambda: len(stage.times("end", "a")) >= JOBS and bool(stage.times("end", "b")), HOLDS_S)
        starts = stage.times("start", "a")
        limited = _run(sent_ns[0], starts)
        other, held = _other(stage, other_ns)
        return Seen(f"{limited}; {other}", len(starts) == JOBS and not held)


def cap(peer: Peer, feature: str) -> Seen:
    """One job at once is allowed to a key that has several; another key's job comes behind them."""
    with _stage(peer, feature) as stage, stage.worker() as worker:
        stage.warm_up(worker)
        sent_ns = [stage.send("a", CAP_JOB_S)[0] for _ in range(JOBS)]
        other_ns, _ = stage.send("b", CAP_JOB_S)
        stage.until(lambda: len(stage.times("end", "a")) >= JOBS and bool(stage.times("end", "b")), HOLDS_S)
        starts, ends = stage.times("start", "a"), stage.times("end", "a")
        most = max((sum(start <= at for start in starts) - sum(end <= at for end in ends) for at in starts), default=0)
        other, held = _other(stage, other_ns)
        return Seen(f"{_run(sent_ns[0], ends)}, {most} at once; {other}", len(ends) == JOBS and most == 1 and not held)


def crash(peer: Peer, feature: str, patience_s: float) -> Seen:
    """The worker and all its processes are killed in the middle of a job, and a new worker is started at once."""
    with _stage(peer, feature) as stage:
        with stage.worker() as worker:
            stage.warm_up(worker)
            stage.send("a", CRASHES_S)
            if not stage.until(lambda: bool(stage.times("start", "a")), _START_S):
                raise Died(f"{peer.name} does not begin:\n{worker.said()[-2000:]}")
            os.killpg(worker.process.pid, signal.SIGKILL)
            killed_ns = time.monotonic_ns()
        with stage.worker():
            if not stage.until(lambda: len(stage.times("start", "a")) > 1, patience_s):
                return Seen(f"not run again within {patience_s:g} s", False)
            return Seen(f"run again after {_seconds(killed_ns, stage.times('start', 'a')[-1])}", True)


def _run(sent_ns: int, at_ns: Sequence[int]) -> str:
    if len(at_ns) < JOBS:
        return f"**only {len(at_ns)}** of {JOBS} within {HOLDS_S:g} s"
    return f"{JOBS} in {_seconds(sent_ns, max(at_ns))}"


def _other(stage: Stage, sent_ns: int) -> tuple[str, bool]:
    starts: Sequence[int] = stage.times("start", "b")
    if not starts:
        return f"another key not within {HOLDS_S:g} s", True
    held = starts[0] - sent_ns > BLOCKED_S * 1e9
    return f"another key {'**held up** ' if held else 'after '}{_seconds(sent_ns, starts[0])}", held


def _seconds(since_ns: int, until_ns: int) -> str:
    return f"{(until_ns - since_ns) / 1e9:.2f} s"
