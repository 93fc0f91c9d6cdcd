"""Dramatiq probed: plain, and its rate limiters, one per key. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks.peers import probe

dramatiq.set_broker(RedisBroker(url=probe.URL))
_backend = RedisBackend(url=probe.URL)


@dramatiq.actor(min_backoff=500, max_backoff=1000)  # a limiter refuses by an error, and the default is to retry after 15 s
def event(key: str, seconds: float) -> None:
    match probe.FEATURE:
        case "rate":
            with WindowRateLimiter(_backend, key, limit=1, window=probe.WINDOW_S).acquire():
                probe.job(key, seconds)
        case "cap":
            with ConcurrentRateLimiter(_backend, key, limit=1).acquire():
                probe.job(key, seconds)
        case _:
            probe.job(key, seconds)


def send(key: str, seconds: float) -> None:
    event.send(key, seconds)


def work() -> None:
    probe.run_module("dramatiq", "benchmarks.peers.probe_dramatiq", "--processes", "1", "--threads", "8")


if __name__ == "__main__":
    probe.main(send, work)
