"""Starting the processes that are measured, and never leaving one behind."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


class Died(Exception):
    """A measured process ended by itself; the message holds the end of what it said."""


class Running:
    """A process that was started, and what it said."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def check(self) -> None:
        """Died if it has ended."""
        if (code := self.process.poll()) is not None:
            raise Died(f"{self.name} ended with {code}:\n{self.said()[-2000:]}")


@contextmanager
def running(
    name: str, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, patience_s: float = 15
) -> Generator[Running]:
    """Runs a command until the block is left, by an error or Ctrl-C too: asked to end, then killed with all its group."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=clean_environment() | dict(environment or {}),
            start_new_session=True,  # Ctrl-C is ours: we end them in order
        )
        try:
            yield Running(name, process, log)
        finally:
            _end(process, patience_s)


def _end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    try:
        process.terminate()
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # pool processes too
        except ProcessLookupError:
            pass
        process.wait()


def clean_environment() -> dict[str, str]:
    """This process's environment, without settings of an installation that the person may have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SOURCEBUS_")}


@contextmanager
def scratch() -> Generator[Path]:
    """A folder for everything that a benchmark writes; removed at the end."""
    # A moment's patience with processes that are still closing their files.
    with tempfile.TemporaryDirectory(prefix="sourcebus-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()
