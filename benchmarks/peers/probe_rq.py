"""RQ probed: plain, a unique job id, and its rate limit, which is a cap per key. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from redis import Redis
from rq import Queue, RateLimit, SimpleWorker
from rq.exceptions import DuplicateJobError
from rq.worker_pool import WorkerPool

from benchmarks.peers import probe

connection = Redis.from_url(probe.URL)
queue = Queue(connection=connection)


def event(key: str, seconds: float) -> None:
    probe.job(key, seconds)


def send(key: str, seconds: float) -> object:
    options = {
        "plain": {},
        "unique": {"job_id": key, "unique": True},
        "cap": {"rate_limit": RateLimit(key, concurrency=1)},
    }[probe.FEATURE]
    try:
        queue.enqueue("benchmarks.peers.probe_rq.event", key, seconds, **options)
    except DuplicateJobError:
        return False
    return True


def work() -> None:
    WorkerPool([queue], connection=connection, num_workers=4, worker_class=SimpleWorker).start(logging_level="WARNING")


if __name__ == "__main__":
    probe.main(send, work)
