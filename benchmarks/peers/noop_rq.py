"""RQ: SimpleWorker, which does not fork for every job, no results. See `benchmarks.peers.noop`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from redis import Redis
from rq import Queue, SimpleWorker

from benchmarks.peers import noop

_TASK = "benchmarks.peers.noop_rq.event"


def event(source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


def single(events: noop.Events) -> None:
    queue = Queue(connection=Redis.from_url(noop.URL))
    for pair in events:
        queue.enqueue(_TASK, *pair, result_ttl=0)


def bulk(events: noop.Events) -> None:
    queue = Queue(connection=Redis.from_url(noop.URL))
    for part in noop.in_bulks(events):
        queue.enqueue_many([Queue.prepare_data(_TASK, args=pair, result_ttl=0) for pair in part])


def work() -> None:
    connection = Redis.from_url(noop.URL)
    SimpleWorker([Queue(connection=connection)], connection=connection).work(logging_level="WARNING")


if __name__ == "__main__":
    noop.main("rq", single, work, bulk)
