"""A sink that posts outcomes to a URL: ``{"items": [...]}``, each item as `as_json` makes it.

The receiver answers 2xx when it has stored the whole batch. Time-outs, broken connections, 408, 425, 429 and 5xx are tried
again with growing, jittered waits (a ``Retry-After`` in seconds is kept to); another answer is a mistake that
waiting does not mend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import httpx
import stamina

from sourcebus.errors import SinkError
from sourcebus.model import Outcome
from sourcebus.sinks.base import as_json, concerns

_TRY_AGAIN = {408, 425, 429}
_LONGEST_WAIT_S = 60.0


class HttpSink:
    """Posts to `url` in batches of at most `batch` outcomes. SinkError after `attempts` tries or `patience_s` seconds.

    `headers` go with every request; put the receiver's credentials there. Safe to use from several threads.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        batch: int = 100,
        timeout_s: float = 30.0,
        attempts: int = 5,
        patience_s: float = 120.0,
        first_wait_s: float = 0.2,
    ) -> None:
        self._url, self._batch = url, batch
        self._client = httpx.Client(headers={"Content-Type": "application/json", **(headers or {})}, timeout=timeout_s)
        self._retrying = stamina.RetryingCaller(
            attempts=attempts, timeout=patience_s, wait_initial=first_wait_s, wait_jitter=first_wait_s
        ).on(_when_to_retry)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        items = [as_json(outcome) for outcome in outcomes if concerns(outcome)]
        for start in range(0, len(items), self._batch):
            # ASCII: a reference may hold lone surrogates, which JSON can escape and UTF-8 cannot write.
            body = json.dumps({"items": items[start : start + self._batch]}, default=str).encode("ascii")
            try:
                self._retrying(self._post, body)
            except httpx.HTTPError as error:
                raise SinkError(f"{self._url} did not take {len(items)} outcomes: {error}") from error

    def close(self) -> None:
        self._client.close()

    def _post(self, body: bytes) -> None:
        self._client.post(self._url, content=body).raise_for_status()


def _when_to_retry(error: Exception) -> bool | float:
    """For stamina: False is not at all, True after its own wait, a number after so many seconds."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status < 500 and status not in _TRY_AGAIN:
            return False
        asked = error.response.headers.get("Retry-After", "")
        return min(float(asked), _LONGEST_WAIT_S) if asked.isdecimal() else True
    return isinstance(error, httpx.TransportError)
