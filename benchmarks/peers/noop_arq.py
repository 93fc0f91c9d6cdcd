"""arq: 50 jobs at once in each process, no results. See `benchmarks.peers.noop`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

from benchmarks.peers import noop

_SERVER = RedisSettings(unix_socket_path=noop.SOCKET)


async def event(_context: object, source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


async def _send(events: noop.Events) -> None:
    pool = await create_pool(_SERVER)
    for pair in events:
        await pool.enqueue_job("event", *pair)
    await pool.aclose()


def work() -> None:
    functions = [func(event, keep_result=0)]
    asyncio.set_event_loop(asyncio.new_event_loop())
    Worker(functions, redis_settings=_SERVER, max_jobs=noop.CONCURRENCY, log_results=False, poll_delay=0.05).run()


if __name__ == "__main__":
    noop.main("arq", lambda events: asyncio.run(_send(events)), work)
