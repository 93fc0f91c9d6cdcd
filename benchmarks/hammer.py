"""Sends requests that are written already, as fast as they are answered or at a steady rate, and times every answer.

``python -m benchmarks.hammer PORT COUNT CONNECTIONS RATE``: so many deliveries over so many connections; at RATE a second, or,
where that is 0, each connection its next one as soon as the last is answered. At a steady rate a request's time begins when it
was due, so that a receiver that stands still is charged for all who wait (no coordinated omission). Writes JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass

from benchmarks.github_deliveries import requests

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass
class Work:
    """What is left to send, and what was answered. `due`: (the request's number, when it was due, s)."""

    requests: list[bytes]
    rate: float
    took_ms: array[float]
    statuses: Counter[int]
    due: deque[tuple[int, float]]
    idle: list[Line]
    done: asyncio.Event
    lost: int = 0

    def answered(self, began_s: float, status: int) -> None:
        self.took_ms.append((time.perf_counter() - began_s) * 1000)
        self.statuses[status] += 1
        if len(self.took_ms) == len(self.requests):
            self.done.set()


class Line(asyncio.Protocol):
    """One connection, with one request on its way at a time."""

    def __init__(self, work: Work) -> None:
        self._work, self._began_s, self._read = work, 0.0, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def next(self) -> None:
        """Sends what has been due longest; waits for more where nothing is."""
        if not self._work.due:
            self._work.idle.append(self)
            return
        number, due_s = self._work.due.popleft()
        self._began_s = due_s or time.perf_counter()
        assert self._transport is not None
        self._transport.write(self._work.requests[number])

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(_END)
        if end < 0:
            return
        at = self._read.lower().find(_LENGTH, 0, end + 2)
        length = int(self._read[at + len(_LENGTH) : self._read.index(b"\r", at)])
        if len(self._read) < end + 4 + length:
            return
        self._work.answered(self._began_s, int(self._read[9:12]))
        self._read = self._read[end + 4 + length :]
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._work.lost += not self._work.done.is_set()
        self._work.done.set()


async def hammer(port: int, written: list[bytes], connections: int, rate: float) -> dict[str, object]:
    work = Work(written, rate, array("d"), Counter(), deque(), [], asyncio.Event())
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Line(work), "127.0.0.1", port) for _ in range(connections)]
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    lines = [line for _, line in made]
    if rate:
        work.idle += lines
        await _steadily(work, began_s)
    else:
        work.due.extend((number, 0.0) for number in range(len(written)))
        for line in lines:
            line.next()
    await work.done.wait()
    if work.lost:
        raise ConnectionError(f"the receiver closed a connection after {sum(work.statuses.values())} answers: {work.statuses}")
    took_s = time.perf_counter() - began_s
    cpu_s = time.process_time() - began_cpu_s
    for transport, _ in made:
        transport.close()
    times = sorted(work.took_ms)
    return {
        "per_s": len(times) / took_s,
        "statuses": {str(status): count for status, count in work.statuses.items()},
        "busy": cpu_s / took_s,
        **{f"p{share}_ms": times[min(len(times) - 1, int(len(times) * share / 100))] for share in (50, 95, 99, 99.9)},
        "max_ms": times[-1],
    }


async def _steadily(work: Work, began_s: float) -> None:
    for number in range(len(work.requests)):
        due_s = began_s + number / work.rate
        while (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        work.due.append((number, due_s))
        if work.idle:  # the one that was idle longest: receivers close connections that are not used for seconds
            work.idle.pop(0).next()


def main() -> None:
    port, count, connections, rate = (int(argument) for argument in sys.argv[1:5])
    print(json.dumps(asyncio.run(hammer(port, requests(count), connections, rate))))


if __name__ == "__main__":
    main()
