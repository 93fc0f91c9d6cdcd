"""A few connections shared by threads. One is opened when none is free, and closed when it has been of no use for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from sourcebus.connectors.imap.session import Session, lost
from sourcebus.errors import ConnectorError, SourceUnavailable

_WAIT_S = 60.0
_TRUSTED_S = 1.0
"""A connection that was used this long ago is alive; an older one is asked first."""


class Pool:
    """At most `size` connections, each used by one thread at a time and let go `keep_s` after its last use."""

    def __init__(self, open_session: Callable[[], Session], size: int, keep_s: float = 30.0) -> None:
        self._open, self._keep_s = open_session, keep_s
        self._places = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Session]] = []
        self._reaper: threading.Timer | None = None
        self._closed = False
        self._spent = threading.local()

    @contextmanager
    def session(self) -> Generator[Session]:
        """A connection that is open and logged in. Raises what opening one raises."""
        if not self._places.acquire(timeout=_WAIT_S):
            raise SourceUnavailable(f"all connections were in use for {_WAIT_S:.0f} s")
        try:
            session = self._take() or self._open()
            usable = False
            try:
                yield session
                usable = True
            except ConnectorError as error:
                usable = not lost(error)
                raise
            finally:
                self._spent.units = getattr(self._spent, "units", 0.0) + session.calls
                session.calls = 0
                self._give(session) if usable else session.cut()
        finally:
            self._places.release()

    def take_cost(self) -> float:
        """The commands that the calling thread has sent since it last asked."""
        spent = getattr(self._spent, "units", 0.0)
        self._spent.units = 0.0
        return spent

    def close(self) -> None:
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
            if self._reaper is not None:
                self._reaper.cancel()
                self._reaper = None
        for _, session in idle:
            session.cut()

    def _take(self) -> Session | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                used_s, session = self._idle.pop()
            if time.monotonic() - used_s < _TRUSTED_S:
                return session
            try:
                session.ping()
            except ConnectorError:
                session.cut()
            else:
                return session

    def _give(self, session: Session) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append((time.monotonic(), session))
                self._reap_later()
                return
        session.cut()

    def _reap_later(self) -> None:
        if self._reaper is None and self._idle:
            self._reaper = threading.Timer(self._keep_s, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        with self._lock:
            self._reaper = None
            old = [entry for entry in self._idle if time.monotonic() - entry[0] >= self._keep_s]
            self._idle = [entry for entry in self._idle if entry not in old]
            self._reap_later()
        for _, session in old:
            session.cut()
