"""taskiq probed: it has no dedup, no rate limit and no cap per key. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from taskiq_redis import ListQueueBroker

from benchmarks.peers import probe

broker = ListQueueBroker(probe.URL)


@broker.task("event")
async def event(key: str, seconds: float) -> None:
    await probe.job_async(key, seconds)


async def send(key: str, seconds: float) -> None:
    await event.kiq(key, seconds)


def work() -> None:
    probe.run_module("taskiq", "worker", "benchmarks.peers.probe_taskiq:broker", "--workers", "1", "--log-level", "WARNING")


if __name__ == "__main__":
    probe.main_async(send, work)
