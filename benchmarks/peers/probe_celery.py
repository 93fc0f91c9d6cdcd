"""Celery probed: plain, celery-once in both of its modes, and a task's rate limit. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from celery import Celery
from celery.result import EagerResult
from celery_once import QueueOnce

from benchmarks.peers import probe

app = Celery("probe", broker=f"redis+socket://{probe.SOCKET}")
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    ONCE={
        "backend": "celery_once.backends.Redis",
        "settings": {"url": f"redis+socket://{probe.SOCKET}", "default_timeout": 3600},
    },
)
_OPTIONS = {
    "plain": {},
    "once": {"base": QueueOnce, "once": {"graceful": True}},
    "once_unlock_before_run": {"base": QueueOnce, "once": {"graceful": True, "unlock_before_run": True}},
    "rate": {"rate_limit": f"{probe.WINDOW_S}/s"},
}


@app.task(name="probe.event", **_OPTIONS[probe.FEATURE])
def event(key: str, seconds: float) -> None:
    probe.job(key, seconds)


def send(key: str, seconds: float) -> object:
    return not isinstance(event.delay(key, seconds), EagerResult)  # celery-once's way to say no


def work() -> None:
    four = ("--pool", "prefork", "--concurrency", "4")
    probe.run_module("celery", "--quiet", "-A", "benchmarks.peers.probe_celery", "worker", *four, "--loglevel", "warning")


if __name__ == "__main__":
    probe.main(send, work)
