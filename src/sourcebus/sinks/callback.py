"""A plain function as a sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sourcebus.model import Outcome
from sourcebus.sinks.base import concerns


class CallbackSink:
    """Calls `callback` with each outcome that changes documents, in order. What it raises goes to the caller of `write`."""

    def __init__(self, callback: Callable[[Outcome], object]) -> None:
        self._callback = callback

    def write(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if concerns(outcome):
                self._callback(outcome)
