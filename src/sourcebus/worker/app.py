"""The Celery side: ``celery -A sourcebus.worker worker`` and ``… beat``. Messages are invitations, not work items.

`sourcebus.consume` carries no event. It claims whatever is due next when a slot is really free, so a queue of any length
cannot spoil fairness, and a lost or repeated message loses nothing. Only public Celery API is used; any pool works.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportFunctionMemberAccess=false

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_init, worker_shutting_down

from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.telemetry import configure_logging

_log = structlog.get_logger(__name__)

_INVITATION_S = 30  # as long as the bus counts it as open
_TICK_S = 1.0

_stopping = mmap.mmap(-1, 1)  # anonymous and shared: prefork children see the parent's warm shutdown at once
_lock = threading.Lock()
_runtimes: dict[int, Runtime] = {}


def broker_url(redis_url: str) -> str:
    """Celery's spelling of a Redis URL: unix sockets are ``redis+socket://`` there."""
    return "redis+socket://" + redis_url.removeprefix("unix://") if redis_url.startswith("unix://") else redis_url


def make_app(settings: Settings) -> Celery:
    """A Celery application for one bus. Its queue is named after the bus, so several can share a Redis."""
    made = Celery("sourcebus", broker=broker_url(settings.redis_url))
    made.conf.update(
        task_default_queue=f"{settings.bus_name}.celery",
        task_ignore_result=True,
        worker_prefetch_multiplier=1,  # an invitation that waits in a busy worker's memory helps nobody
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        # Concerns tasks that acknowledge late, which these do not: set so that Celery need not warn of its new default.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_transport_options={"socket_keepalive": True},
        beat_scheduler="celery.beat:Scheduler",  # in memory: the only entry is the tick, poll times live in the bus
        beat_max_loop_interval=_TICK_S,
        beat_schedule={"tick": {"task": "sourcebus.tick", "schedule": _TICK_S, "options": {"expires": _TICK_S * 2}}},
    )
    return made


settings = Settings()
app = make_app(settings)


def invite(tokens: Sequence[int]) -> None:
    """Publishes invitations; never raises. A broker that does not answer is no loss: the tick invites again."""
    for token in tokens:
        try:
            consume.apply_async(args=(token,), expires=_INVITATION_S, retry=False)
        except Exception as error:  # noqa: BLE001  whoever calls may hold leases, which are worth more than a message
            _log.warning("invitation_not_published", error=str(error))


def _runtime() -> Runtime:
    with _lock:
        runtime = _runtimes.get(os.getpid())
        if runtime is None:
            configure_logging(settings)
            _runtimes.clear()  # after a fork the parent's connections are not ours to use, nor to close
            runtime = _runtimes[os.getpid()] = build(settings, invite=invite)
        return runtime


def is_stopping() -> bool:
    return _stopping[0] != 0


@app.task(name="sourcebus.consume")
def consume(token: int | None = None) -> int:
    """One slice of one consumer. Answers how many leases it worked on."""
    if is_stopping():
        return 0
    shift = _runtime().shift(is_stopping)
    try:
        return shift.run(token)
    finally:
        shift.close()


@app.task(name="sourcebus.tick")
def tick() -> None:
    """Beat's once-a-second housekeeping; consumers do the same while they wait."""
    _runtime().housekeeping()


@worker_init.connect
def _begin(**_kwargs: Any) -> None:
    _stopping[0] = 0


@worker_shutting_down.connect
def _stop_claiming(**_kwargs: Any) -> None:
    _stopping[0] = 1
