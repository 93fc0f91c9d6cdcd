"""One Celery task per event in one queue, first in, first out. The task takes ``BENCHMARK_CALL_MS`` and notes when it began.

``BENCHMARK_BROKER`` is the broker's URL, ``BENCHMARK_FOLDER`` where the times of the cold events go.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportFunctionMemberAccess=false

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from celery import Celery

from benchmarks.ledger import Stamps
from benchmarks.slots import begun

app = Celery("fifo", broker=os.environ.get("BENCHMARK_BROKER"))
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@cache
def _begun() -> Stamps:
    return begun(Path(os.environ["BENCHMARK_FOLDER"]))


@app.task(name="fifo.event")
def event(source_id: str, object_ref: str) -> None:
    if source_id.startswith("cold-"):
        _begun().set(int(object_ref))
    time.sleep(float(os.environ["BENCHMARK_CALL_MS"]) / 1000)
