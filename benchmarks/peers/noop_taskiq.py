"""taskiq: the list broker, its fastest on Redis, its own command with two processes. See `benchmarks.peers.noop`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio

from taskiq_redis import ListQueueBroker

from benchmarks.peers import noop

broker = ListQueueBroker(noop.URL)


@broker.task("event")
async def event(source_id: str, object_ref: str) -> None:
    del source_id, object_ref
    noop.count()


async def _send(events: noop.Events) -> None:
    await broker.startup()
    for pair in events:
        await event.kiq(*pair)
    await broker.shutdown()


def single(events: noop.Events) -> None:
    asyncio.run(_send(events))


def work() -> None:
    noop.run_module(
        "taskiq", "worker", "benchmarks.peers.noop_taskiq:broker", "--workers", "2", "--log-level", "WARNING",
        "--ack-type", "when_received",
    )  # fmt: skip


if __name__ == "__main__":
    noop.main("taskiq", single, work)
