"""What a team without a bus does: one Celery task per event. The task only counts.

Celery at its best for this: prefork, results off, 64 messages fetched ahead, acknowledged early.
``BENCHMARK_BROKER`` is the broker's URL, ``BENCHMARK_TALLY`` the folder in which to count.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from celery import Celery

from benchmarks.ledger import Tally

app = Celery("task_per_event", broker=os.environ.get("BENCHMARK_BROKER"))
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@cache
def _tally() -> Tally:
    return Tally(Path(os.environ["BENCHMARK_TALLY"]))


@app.task(name="task_per_event.event")
def event(source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    _tally().add(1, time.monotonic_ns())
