"""CocoIndex as the peer: its process, and looking into the table that it keeps."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import installed
from benchmarks.processes import Running, running

NOT_INSTALLED = "CocoIndex is not installed: pip install 'sourcebus[bench]'"
_START_S = 60.0


def is_there() -> bool:
    return installed("cocoindex") is not None


@dataclass(frozen=True)
class Peer:
    """A running CocoIndex. `began_ns` is when it was told to begin, after its imports."""

    process: Running
    began_ns: int
    table: sqlite3.Connection

    def rows(self) -> int:
        try:
            return self.table.execute("SELECT count(*) FROM files").fetchone()[0]
        except sqlite3.OperationalError:  # it has not made its table yet
            return 0

    def has(self, path: str, word: str) -> bool:
        """Whether the file's row holds this word."""
        found = self.table.execute("SELECT instr(text, ?) FROM files WHERE path = ?", (word, path)).fetchone()
        return bool(found and found[0])

    def lacks(self, path: str) -> bool:
        return self.table.execute("SELECT 1 FROM files WHERE path = ?", (path,)).fetchone() is None

    def paths(self) -> set[str]:
        return {path for (path,) in self.table.execute("SELECT path FROM files")}


@contextmanager
def live(folder: Path, work: Path) -> Generator[Peer]:
    """Runs it on a folder; `work` takes its state and its table."""
    work.mkdir()
    database = work / "table.db"
    command = [sys.executable, "-m", "benchmarks.peers.cocoindex_folder", str(folder), str(database), str(work / "state")]
    # It would report its use to its makers over the network.
    quiet = {"COCOINDEX_DISABLE_USAGE_TRACKING": "1"}
    with running("CocoIndex", command, work / "cocoindex.log", environment=quiet) as process:
        began_ns = _began(process)
        table = _connect(process, database)
        try:
            yield Peer(process, began_ns, table)
        finally:
            table.close()


def _began(process: Running) -> int:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        process.check()
        for line in process.said().splitlines():
            if line.isdigit():
                return int(line)
        time.sleep(0.005)
    raise TimeoutError(f"CocoIndex did not start:\n{process.said()[-2000:]}")


def _connect(process: Running, database: Path) -> sqlite3.Connection:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        process.check()
        if database.exists():
            return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5, isolation_level=None)
        time.sleep(0.005)
    raise TimeoutError(f"CocoIndex made no database:\n{process.said()[-2000:]}")
