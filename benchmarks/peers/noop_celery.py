"""What a team without a bus does: one Celery task per event. See `benchmarks.peers.noop`.

Celery at its best for this: prefork, results off, 64 messages fetched ahead, acknowledged early.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportFunctionMemberAccess=false

from __future__ import annotations

from celery import Celery

from benchmarks.peers import noop

MODULE = "benchmarks.peers.noop_celery"

app = Celery("task_per_event", broker=f"redis+socket://{noop.SOCKET}")
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="task_per_event.event")
def event(source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


def single(events: noop.Events) -> None:
    for pair in events:
        event.apply_async(args=pair)


def work() -> None:
    two = ("--pool", "prefork", "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat")
    noop.run_module("celery", "--quiet", "-A", MODULE, "worker", *two, "--loglevel", "warning")


if __name__ == "__main__":
    noop.main("celery", single, work)
