"""Huey: its process workers, two of them, blocking reads, no results. See `benchmarks.peers.noop`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from huey import RedisHuey
from huey.consumer import Consumer

from benchmarks.peers import noop

huey = RedisHuey("benchmark", url=noop.URL, results=False)


@huey.task()
def event(source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


def single(events: noop.Events) -> None:
    for pair in events:
        event(*pair)


def work() -> None:
    Consumer(huey, workers=2, worker_type="process", periodic=False).run()


if __name__ == "__main__":
    noop.main("huey", single, work)
