"""Watches under test: their batches while a block runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import pytest

from sourcebus.connectors import Connector, Watches
from sourcebus.model import Change, ChangeKind

PATIENCE_S = 10.0
"""How long a watch may take before a test calls it silent. A working one needs milliseconds."""


def announced(connector: Connector, batches: queue.Queue[Sequence[Change]], ref: str) -> None:
    """Wait until a batch covers the object; fails after `PATIENCE_S` without one."""
    while True:
        try:
            batch = batches.get(timeout=PATIENCE_S)
        except queue.Empty:
            pytest.fail(f"the watch says nothing of {ref!r}")
        for change in batch:
            scan = change.change_kind is ChangeKind.SCAN
            if change.object_ref == ref or (scan and ref.startswith(connector.scope_prefix(change.object_ref))):
                return


@contextmanager
def watching(connector: Connector, *, step_ms: int = 5) -> Generator[queue.Queue[Sequence[Change]]]:
    """The batches of the connector's watch, while the block runs."""
    assert isinstance(connector, Watches)
    batches: queue.Queue[Sequence[Change]] = queue.Queue()
    stop = threading.Event()

    def run() -> None:
        for batch in connector.watch(stop, step_ms=step_ms):
            batches.put(batch)

    thread = threading.Thread(target=run, name="watch", daemon=True)
    thread.start()
    try:
        yield batches
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive(), "a watch ends when it is told to"
