"""arq probed: plain, and a job id. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func

from benchmarks.peers import probe

_SERVER = RedisSettings(unix_socket_path=probe.SOCKET)
_pools: list[ArqRedis] = []


async def event(_context: object, key: str, seconds: float) -> None:
    await probe.job_async(key, seconds)


async def send(key: str, seconds: float) -> object:
    if not _pools:
        _pools.append(await create_pool(_SERVER))
    job_id = None if probe.FEATURE == "plain" else key
    return await _pools[0].enqueue_job("event", key, seconds, _job_id=job_id) is not None


def work() -> None:
    """`keep_result` of 0 is what the documentation advises where a job id shall be free again after the job."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    functions = [func(event, keep_result=0)] if probe.FEATURE == "job_id_no_result" else [event]
    Worker(functions, redis_settings=_SERVER, log_results=False).run()


if __name__ == "__main__":
    probe.main_async(send, work)
