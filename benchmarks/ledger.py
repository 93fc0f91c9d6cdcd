"""What worker processes write down for the benchmark: in mapped files, so that counting costs them next to nothing.

Times are `time.monotonic_ns`, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_ENTRY = struct.Struct("<qqq")
_STAMP = struct.Struct("<q")


def _mapped(path: Path, size: int) -> mmap.mmap:
    with path.open("r+b" if path.exists() else "w+b") as file:
        if path.stat().st_size < size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


class Tally:
    """One process's count of jobs done, with the time at which it began the first and ended the last."""

    def __init__(self, folder: Path) -> None:
        self._map = _mapped(folder / f"{os.getpid()}.tally", _ENTRY.size)
        self._count = self._began = 0

    def add(self, count: int, began_ns: int) -> None:
        self._count += count
        self._began = self._began or began_ns
        _ENTRY.pack_into(self._map, 0, self._count, self._began, time.monotonic_ns())


@dataclass(frozen=True)
class Tallied:
    """All processes together."""

    count: int
    processes: int
    seconds: float
    ended_ns: int = 0

    @property
    def rate(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0


def tallied(folder: Path) -> Tallied:
    """What all processes have written into the folder: from the first job's beginning to the last one's end."""
    entries = [_ENTRY.unpack(data) for path in folder.glob("*.tally") if len(data := path.read_bytes()) == _ENTRY.size]
    working = [entry for entry in entries if entry[0]]
    if not working:
        return Tallied(0, 0, 0.0)
    began, ended = min(entry[1] for entry in working), max(entry[2] for entry in working)
    return Tallied(sum(entry[0] for entry in working), len(working), (ended - began) / 1e9, ended)


class Stamps:
    """A time for each of a fixed number of events, shared between processes; 0 while it has not happened."""

    def __init__(self, path: Path, count: int) -> None:
        self._map = _mapped(path, count * _STAMP.size)

    def set(self, at: int) -> None:
        _STAMP.pack_into(self._map, at * _STAMP.size, time.monotonic_ns())

    def get(self, at: int) -> int:
        return _STAMP.unpack_from(self._map, at * _STAMP.size)[0]
