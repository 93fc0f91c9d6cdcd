"""`sourcebus gateway` and `sourcebus watch`: the two servers that are not Celery's."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import sys
import threading
from typing import Annotated

import typer

from sourcebus.cli.place import DataOption, opened
from sourcebus.errors import InvalidInput

HostOption = Annotated[str, typer.Option("--host", help="Loopback address to listen on.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]


def require_loopback(host: str) -> None:
    """InvalidInput unless `host` can be reached from this machine only: nothing checks who asks yet."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise InvalidInput(
            "--host",
            f"{host} can be reached from other machines, and the API has no keys yet",
            "use 127.0.0.1, and put a proxy that checks who asks in front of it",
        )


def gateway(host: HostOption = "127.0.0.1", port: PortOption = 8080, data: DataOption = None) -> None:
    """Serve the HTTP API and the pages."""
    require_loopback(host)
    with opened(data, inviting=True) as runtime:
        import uvicorn

        from sourcebus.dashboard import router
        from sourcebus.gateway import create_app
        from sourcebus.telemetry import configure_logging

        configure_logging(runtime.settings)
        app = create_app(runtime, mount=[router(runtime)])
        _answer_evenly()
        # Access logs would be most of what is written, and /metrics counts the requests.
        uvicorn.run(
            app,
            host=host,
            port=port,
            access_log=False,
            log_level=runtime.settings.log_level,
            timeout_graceful_shutdown=3,
            server_header=False,
        )


def _answer_evenly() -> None:
    """Spares answers the two longest waits inside of a Python process.

    What was imported lives as long as the process, so the garbage collector need not go through it again and again. And threads
    take turns each millisecond, not each five: else an answer waits that long whenever a line of a log is being packed.
    """
    sys.setswitchinterval(0.001)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def watch(data: DataOption = None) -> None:
    """Watch the sources that can be watched, and emit what changes. Runs until it is stopped; one per installation."""
    stop = _stop_on_signal()
    with opened(data, inviting=True) as runtime:
        from sourcebus.telemetry import configure_logging

        configure_logging(runtime.settings)
        runtime.watches().run(stop)


def _stop_on_signal() -> threading.Event:
    """An event that SIGTERM or SIGINT sets.

    Through a thread: a handler that sets an event itself waits for ever if it interrupts that event's own wait.
    """
    stop = threading.Event()
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)

    def wait() -> None:
        os.read(told, 1)
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop
