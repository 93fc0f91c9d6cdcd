"""SAQ: 50 jobs at once in each process, finished jobs not kept. See `benchmarks.peers.noop`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from saq import Job, Worker
from saq.queue.redis import RedisQueue

from benchmarks.peers import noop


def _queue() -> RedisQueue:
    return RedisQueue(Redis.from_url(noop.URL))


async def event(_context: object, *, source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


async def _send(events: noop.Events) -> None:
    queue = _queue()
    for source_id, object_ref in events:
        await queue.enqueue(Job("event", {"source_id": source_id, "object_ref": object_ref}, ttl=-1))
    await queue.disconnect()


async def _work() -> None:
    await Worker(_queue(), functions=[event], concurrency=noop.CONCURRENCY).start()


if __name__ == "__main__":
    noop.main("saq", lambda events: asyncio.run(_send(events)), lambda: asyncio.run(_work()))
