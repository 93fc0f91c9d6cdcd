"""Huey probed: plain; a lock per key, with and without retries; a rate limit per key. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from huey import RedisHuey
from huey.consumer import Consumer

from benchmarks.peers import probe

huey = RedisHuey("probe", url=probe.URL, results=False)
_RETRIES = {"retries": 30, "retry_delay": 1} if probe.FEATURE == "lock_and_retries" else {}


@huey.task(**_RETRIES)
def event(key: str, seconds: float) -> None:
    match probe.FEATURE:
        case "lock" | "lock_and_retries":
            with huey.lock_task(key):
                probe.job(key, seconds)
        case "rate":
            with huey.rate_limit(key, limit=1, per=probe.WINDOW_S):
                probe.job(key, seconds)
        case _:
            probe.job(key, seconds)


def send(key: str, seconds: float) -> None:
    event(key, seconds)


def work() -> None:
    Consumer(huey, workers=4, worker_type="process", periodic=False).run()


if __name__ == "__main__":
    probe.main(send, work)
