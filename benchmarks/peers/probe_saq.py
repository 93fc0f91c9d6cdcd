"""SAQ probed: plain, and a job key. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

from benchmarks.peers import probe

queue = RedisQueue(Redis.from_url(probe.URL))


async def event(_context: object, *, name: str, seconds: float) -> None:
    await probe.job_async(name, seconds)


async def send(key: str, seconds: float) -> object:
    options = {"key": key} if probe.FEATURE == "key" else {}
    return await queue.enqueue("event", name=key, seconds=seconds, **options) is not None


async def _work() -> None:
    await Worker(queue, functions=[event], concurrency=10).start()


if __name__ == "__main__":
    probe.main_async(send, lambda: asyncio.run(_work()))
