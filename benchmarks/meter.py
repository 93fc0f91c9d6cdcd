"""What a piece of work costs: time on the wall, the server's processor time, and this process's own."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from benchmarks.timing import median


@dataclass(frozen=True)
class Spent:
    """Seconds on the wall, on the server's processor and on this process's; they may be added up."""

    wall_s: float = 0.0
    server_s: float = 0.0
    client_s: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall_s + other.wall_s, self.server_s + other.server_s, self.client_s + other.client_s)

    def per(self, count: int) -> Spent:
        """The share of one of `count`, in microseconds instead of seconds."""
        return Spent(self.wall_s / count * 1e6, self.server_s / count * 1e6, self.client_s / count * 1e6)


class Meter:
    """Reads one server's INFO before and after. Measure milliseconds, not single calls: reading costs some 50 µs."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def measure(self, action: Callable[[], object]) -> Spent:
        server_s, client_s, wall_s = self._server_s(), time.process_time(), time.perf_counter()
        action()
        wall_s, client_s = time.perf_counter() - wall_s, time.process_time() - client_s
        return Spent(wall_s, self._server_s() - server_s, client_s)

    def used_bytes(self) -> int:
        """What the server's allocator has handed out."""
        return int(self._info("memory")["used_memory"])

    def allocator(self) -> str:
        """What hands it out: libc and jemalloc round sizes differently."""
        return str(self._info("memory")["mem_allocator"])

    def _server_s(self) -> float:
        info = self._info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def _info(self, section: str) -> dict[str, Any]:
        return self._client.info(section)


def medians(spent: Sequence[Spent]) -> Spent:
    """The middle of each of the three by itself."""
    return Spent(
        median([one.wall_s for one in spent]), median([one.server_s for one in spent]), median([one.client_s for one in spent])
    )
