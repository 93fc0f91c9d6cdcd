"""Starts the processes of `sourcebus up`, starts again what dies, stops everything in order.

It knows command lines only. Its own thread does all starting and ending; threads beside it read logs (`child.py`)
and talk to people (`companion.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

from sourcebus.cli.up import guard as guard_module
from sourcebus.cli.up.child import Child, Command
from sourcebus.cli.up.screen import Screen
from sourcebus.errors import SourcebusError

_LOOK_EVERY_S = 0.05
_HOPELESS_DEATHS = 5
"""A process that dies so often in a row before everything was ready once will not come up: say why and stop."""

_ECHO_LINES, _ECHO_PER_S = 6, 10.0
"""So many severe log lines of one process are shown per so many seconds; its log has them all."""


class Broken(SourcebusError):
    """A process cannot be brought up."""


class Aside(Protocol):
    """What runs beside the supervision, in a thread of its own."""

    ready: threading.Event

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Supervisor:
    """`run` returns when it was told to stop and nothing is left; it raises what made it stop otherwise."""

    def __init__(
        self,
        *,
        screen: Screen,
        logs: Path,
        server: Command | None,
        server_ready: Callable[[], str] | None,
        commands: list[list[Command]],
        companion: Callable[[Callable[[BaseException], None]], Aside],
    ) -> None:
        self._screen = screen
        # Plain flags: a signal handler that sets a threading.Event waits for ever if it interrupts that event's own wait.
        self._stop = self._hurry = False
        self._failure: BaseException | None = None
        self._echo = _Echo(screen)
        self._server = Child(server, logs, self._echo) if server else None
        self._server_ready = server_ready
        self._rows = [[Child(command, logs, self._echo) for command in row] for row in commands]
        self._companion = companion(self._fail)
        self._guard: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            with self._screen:
                try:
                    self._bring_up()
                    while not self._stop:
                        self._tend()
                        time.sleep(_LOOK_EVERY_S)
                finally:
                    self._bring_down()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._failure is not None:
            raise self._failure
        return 0

    # -- up

    def _bring_up(self) -> None:
        self._start_guard()
        if self._server is not None and self._server_ready is not None:
            self._start(self._server)
            self._await_server(self._server, self._server_ready)
        if self._stop:
            return
        for row in self._rows:
            for child in row:
                self._start(child)
        self._companion.start()

    def _await_server(self, server: Child, ready: Callable[[], str]) -> None:
        while (says := ready()) and not self._stop:
            if ended := server.ended():
                self._forget(ended[0])
                raise Broken(f"the embedded Valkey {ended[1]}:\n{server.tail()}\nits log: {server.log}")
            if says == "loading":
                self._screen.progress("Valkey is reading its log")
            time.sleep(0.01)
        self._screen.progress(None)

    def _tend(self) -> None:
        if self._guard is not None and self._guard.poll() is not None:
            self._start_guard()
        for child in self._all():
            if ended := child.ended():
                self._forget(ended[0])
                self._screen.line(f"{child.name} {ended[1]}; starting it again", style="yellow")
                if child.deaths_in_a_row >= _HOPELESS_DEATHS and not self._companion.ready.is_set():
                    raise Broken(f"{child.name} does not come up. The end of {child.log}:\n{child.tail()}")
            if child.due():
                self._start(child)

    def _start(self, child: Child) -> None:
        assert self._guard is not None and self._guard.stdin is not None
        child.start(self._guard.stdin.fileno())

    def _all(self) -> list[Child]:
        server = [self._server] if self._server else []
        return server + [child for row in self._rows for child in row]

    # -- down

    def _bring_down(self) -> None:
        self._screen.progress(None)
        if any(child.running() for child in self._all()):
            self._screen.line("stopping (Ctrl-C again to stop at once)")
        self._companion.stop()
        for row in [*self._rows, *([[self._server]] if self._server else [])]:
            self._end(row)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()

    def _end(self, row: list[Child]) -> None:
        """Asks the children of a row to end, waits within their patience, then makes them."""
        for child in row:
            child.ask_to_end()
        begun = time.monotonic()
        while any(child.running() for child in row):
            waited_s = time.monotonic() - begun
            for child in row:
                if child.running() and (self._hurry or waited_s > child.command.patience_s):
                    if not self._hurry:
                        patience = f"{child.command.patience_s:.0f} s"
                        self._screen.line(f"{child.name} did not end in {patience}; killed", style="yellow")
                    child.make_end()
            time.sleep(0.02)
        for child in row:
            if ended := child.ended():
                self._forget(ended[0])

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._stop = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._hurry = self._stop
        self._stop = True

    # -- the guard

    def _start_guard(self) -> None:
        known = [child.pid for child in self._all() if child.pid is not None]
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard_module.__file__], stdin=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        for pid in known:
            self._tell(pid)

    def _forget(self, group: int) -> None:
        """The group is gone; its number may soon be somebody else's."""
        self._tell(-group)

    def _tell(self, number: int) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            try:
                os.write(self._guard.stdin.fileno(), b"%d\n" % number)
            except BrokenPipeError:
                pass  # the guard was killed: the next look starts another, and tells it everything


class _Echo:
    """Severe log lines on the screen, a few at a time. Called from the log threads."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._lock = threading.Lock()
        self._shown: dict[str, list[float]] = {}
        self._hidden: set[str] = set()

    def __call__(self, name: str, text: str) -> None:
        now = time.monotonic()
        with self._lock:
            recent = [at for at in self._shown.get(name, []) if now - at < _ECHO_PER_S]
            show = len(recent) < _ECHO_LINES
            first_hidden = not show and name not in self._hidden
            if show:
                self._shown[name] = [*recent, now]
                self._hidden.discard(name)
            else:
                self._hidden.add(name)
        if show:
            self._screen.line(f"{name:8} {text}", style="yellow")
        elif first_hidden:
            self._screen.line(f"{name:8} … more in logs/{name}.log", style="yellow")
