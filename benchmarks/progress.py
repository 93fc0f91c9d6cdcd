"""What is going on now, with how far it has come and the time left: a live line on a terminal, else one every few seconds."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console()

_SAY_EVERY_S = 10.0


class Step:
    """One counted piece of work."""

    def __init__(self, what: str, total: int, live: Progress | None) -> None:
        self._what, self._total, self._live = what, total, live
        self._done, self._began, self._said = 0, time.monotonic(), time.monotonic()
        self._task = live.add_task(what, total=total) if live else None

    def to(self, done: int) -> None:
        """So much of the total is done."""
        self._done = done
        if self._live and self._task is not None:
            self._live.update(self._task, completed=done)
        elif time.monotonic() - self._said >= _SAY_EVERY_S:
            self._said = time.monotonic()
            passed = self._said - self._began
            left = f", {passed / done * (self._total - done):.0f} s left" if done else ""
            console.print(f"  {self._what}: {done:,}/{self._total:,}, {passed:.0f} s{left}", highlight=False)

    def advance(self, more: int = 1) -> None:
        self.to(self._done + more)


@contextmanager
def step(what: str, total: int) -> Generator[Step]:
    """Shows a piece of work while the block runs, and in one line how long it took."""
    began = time.monotonic()
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(TextColumn("  {task.description}"), *columns, console=console, transient=True) as live:
            yield Step(what, total, live)
    else:
        console.print(f"  {what} …", highlight=False)
        yield Step(what, total, None)
    console.print(f"  {what}: {time.monotonic() - began:.1f} s", style="dim", highlight=False)
