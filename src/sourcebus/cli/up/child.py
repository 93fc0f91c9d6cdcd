"""One process under the supervisor: how it is started, what it says, how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.2, 10.0
SETTLED_S = 30.0
"""A process that lived this long is taken to be well: its next restart begins with the shortest delay again."""

_LOG_BYTES = 5_000_000
_TAIL = 12
_SEVERE = re.compile(rb'\b(?:WARNING|ERROR|CRITICAL)\b|\[(?:warning|error|critical) *\]|"level": ?"(?:warning|error|critical)"')

# Standard input is the guard's pipe until the shell has told it its own number, which exec keeps: there is no moment
# in which a killed supervisor leaves a child that the guard does not know (see guard.py).
_REGISTERED = 'echo $$ >&0; exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. It gets SIGTERM to end and SIGKILL `patience_s` seconds later; `keep_open` are files that it inherits.

    Log lines with a word of `harmless` in them are not severe, whatever they say of themselves.
    """

    name: str
    argv: list[str]
    patience_s: float
    keep_open: tuple[int, ...] = ()
    harmless: tuple[str, ...] = ()


class Child:
    """A command that is meant to run until it is stopped. All methods belong to the supervisor's thread."""

    def __init__(self, command: Command, logs: Path, on_severe: Callable[[str, str], None]) -> None:
        self.command = command
        self.log = logs / f"{command.name}.log"
        self.deaths_in_a_row = 0
        self._on_severe = on_severe
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._started_at = 0.0
        self._start_at = 0.0

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def due(self) -> bool:
        """It does not run, and its delay is over."""
        return self._process is None and time.monotonic() >= self._start_at

    def start(self, guard_fd: int) -> None:
        """Starts it in a session of its own, so that a Ctrl-C in the terminal reaches it only through the supervisor."""
        self._started_at = time.monotonic()
        self._process = process = subprocess.Popen(
            ["/bin/sh", "-c", _REGISTERED, f"sourcebus-{self.name}", *self.command.argv],
            stdin=guard_fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self.command.keep_open,
            start_new_session=True,
            # What lies in the folder it was started from must not shadow a module of ours.
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"},
        )
        assert process.stdout is not None
        self._pump = threading.Thread(target=self._read, args=(process.stdout,), name=f"{self.name} log", daemon=True)
        self._pump.start()

    def ended(self) -> tuple[int, str] | None:
        """Its process group and how it ended, once, if it did. What is left of its group (a worker's pool) is killed."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        group, lived_s = self._process.pid, time.monotonic() - self._started_at
        self._signal(signal.SIGKILL)
        if self._pump:
            self._pump.join(1)
        self._process = None
        self.deaths_in_a_row = 1 if lived_s >= SETTLED_S else self.deaths_in_a_row + 1
        delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** (self.deaths_in_a_row - 1))
        self._start_at = time.monotonic() + delay_s
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return group, f"{how} after {lived_s:.0f} s"

    def ask_to_end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                # Only the process itself: a worker ends its pool in its own order.
                os.kill(self._process.pid, signal.SIGTERM)

    def make_end(self) -> None:
        self._signal(signal.SIGKILL)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def tail(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self._tail)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _read(self, output: IO[bytes]) -> None:
        """Copies what it says to its log, and what is severe to the screen. Never stops reading: a full pipe would stop it."""
        with output, _Rotated(self.log) as log:
            while line := output.readline(16_384):
                log.write(line)
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._tail.append(text)
                if _SEVERE.search(line, 0, 200) and not any(word in text for word in self.command.harmless):
                    self._on_severe(self.name, text)


class _Rotated:
    """A log file with one predecessor (``.1``). A full disk loses log lines, nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Rotated:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: bytes) -> None:
        with suppress(OSError):
            if self._file is not None and self._file.tell() >= _LOG_BYTES:
                self._file.close()
                self._file = None
                self._path.replace(self._path.with_suffix(".log.1"))
            if self._file is None:
                self._file = self._path.open("ab", buffering=0)
            self._file.write(line)
