"""pydocket: 50 jobs at once in each process, finished executions not kept. See `benchmarks.peers.noop`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from datetime import timedelta

from docket import Docket, Worker

from benchmarks.peers import noop


def _docket() -> Docket:
    made = Docket("benchmark", url=noop.URL, execution_ttl=timedelta(0))
    made.register(event)
    return made


async def event(source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


async def _single(events: noop.Events) -> None:
    async with _docket() as docket:
        for pair in events:
            await docket.add(event)(*pair)


async def _bulk(events: noop.Events) -> None:
    async with _docket() as docket:
        for part in noop.in_bulks(events):
            await docket.add_many([docket.call(event)(*pair) for pair in part])


async def _work() -> None:
    async with _docket() as docket, Worker(docket, concurrency=noop.CONCURRENCY) as worker:
        await worker.run_forever()


if __name__ == "__main__":
    noop.main(
        "pydocket",
        lambda events: asyncio.run(_single(events)),
        lambda: asyncio.run(_work()),
        lambda events: asyncio.run(_bulk(events)),
    )
