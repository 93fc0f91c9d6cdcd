"""Dramatiq: its own command with two processes of eight threads, its default, no results. See `benchmarks.peers.noop`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import noop

dramatiq.set_broker(RedisBroker(url=noop.URL))


@dramatiq.actor
def event(source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


def single(events: noop.Events) -> None:
    for pair in events:
        event.send(*pair)


def work() -> None:
    noop.run_module("dramatiq", "benchmarks.peers.noop_dramatiq", "--processes", "2", "--threads", "8")


if __name__ == "__main__":
    noop.main("dramatiq", single, work)
