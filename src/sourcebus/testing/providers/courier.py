"""Sends webhooks as providers do: later than the change, again when refused, sometimes twice, in another order, or never."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx

Headers = Callable[[int], Mapping[str, str]]
"""The headers of an attempt (0: the first): some providers stamp and sign each attempt anew."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, as shares of all deliveries from 0 to 1; the same `seed` makes the same faults.

    `delay_ms` is the least and most time before a delivery is sent; with more than one `lane` slower ones are overtaken.
    """

    seed: int = 0
    lose: float = 0.0
    duplicate: float = 0.0
    delay_ms: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Sent:
    """One delivery and what became of it: the status of each attempt, 0 where nobody answered. `lost`: never sent."""

    url: str
    body: bytes
    statuses: list[int] = field(default_factory=list[int])
    lost: bool = False
    took_ms: list[float] = field(default_factory=list[float])

    @property
    def accepted(self) -> bool:
        return any(200 <= status < 300 for status in self.statuses)


class Courier:
    """Delivers in the background. `retry_s` are the waits before each further attempt, `pace` divides them; `retry_on` are
    the statuses (0: nobody answered) that are tried again, None stands for all but 2xx.

    `timeout_s` is how long the provider waits for an answer. `sent` lists every delivery in the order of `post`.
    """

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        retry_s: Sequence[float] = (),
        retry_on: Container[int] | None = None,
        pace: float = 1.0,
        timeout_s: float = 10.0,
        lanes: int = 4,
    ) -> None:
        self.faults = faults or Faults()
        self.sent: list[Sent] = []
        self._retry_s, self._retry_on, self._pace = retry_s, retry_on, pace
        self._chance = random.Random(self.faults.seed)
        self._client = httpx.Client(timeout=timeout_s)
        self._due: list[tuple[float, int, int, Sent, Headers]] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._open = 0
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f"courier-{lane}", daemon=True) for lane in range(lanes)]
        for thread in self._threads:
            thread.start()

    def post(self, url: str, body: bytes, headers: Headers | Mapping[str, str], *, after_s: float = 0.0) -> Sent:
        """Send this, in its own time, but not before `after_s` seconds. Answers at once."""
        made: Headers = headers if callable(headers) else lambda _attempt, fixed=headers: fixed
        sent, faults = Sent(url, body), self.faults
        with self._changed:
            self.sent.append(sent)
            if self._chance.random() < faults.lose:
                sent.lost = True
                return sent
            for _ in range(2 if self._chance.random() < faults.duplicate else 1):
                self._add(after_s + self._chance.uniform(*faults.delay_ms) / 1000, 0, sent, made)
        return sent

    def now(self, url: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Send this without faults and wait for the answer: handshakes."""
        return self._client.post(url, content=body, headers=dict(headers))

    def settle(self, timeout_s: float = 30.0) -> None:
        """Wait until nothing is on its way. TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._open == 0, timeout_s):
                raise TimeoutError(f"{self._open} deliveries are still on their way")

    def close(self) -> None:
        """What is on its way is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _add(self, wait_s: float, attempt: int, sent: Sent, headers: Headers) -> None:
        heapq.heappush(self._due, (time.monotonic() + wait_s, next(self._numbers), attempt, sent, headers))
        self._open += 1
        self._changed.notify_all()

    def _run(self) -> None:
        while (found := self._next()) is not None:
            attempt, sent, headers = found
            began = time.monotonic()
            try:
                status = self._client.post(sent.url, content=sent.body, headers=dict(headers(attempt))).status_code
            except httpx.HTTPError:
                status = 0
            with self._changed:
                sent.statuses.append(status)
                sent.took_ms.append((time.monotonic() - began) * 1000)
                again = not 200 <= status < 300 if self._retry_on is None else status in self._retry_on
                if again and attempt < len(self._retry_s):
                    self._add(self._retry_s[attempt] / self._pace, attempt + 1, sent, headers)
                self._open -= 1
                self._changed.notify_all()

    def _next(self) -> tuple[int, Sent, Headers] | None:
        with self._changed:
            while not self._closed:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    _, _, attempt, sent, headers = heapq.heappop(self._due)
                    return attempt, sent, headers
                self._changed.wait(wait_s)
            return None
