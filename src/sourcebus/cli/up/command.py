"""`sourcebus up`: the flags, the checks before anything starts, and the list of processes."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from sourcebus.cli.place import data_dir, load_settings
from sourcebus.cli.serve import HostOption, PortOption, require_loopback
from sourcebus.cli.up.child import Command
from sourcebus.errors import Conflict, InvalidInput


def up(
    watch: Annotated[
        list[Path] | None,
        typer.Option("--watch", metavar="DIR", help="Keep this folder searchable; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave out what matches, in watched folders."),
    ] = None,
    port: PortOption = 8080,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Where everything is kept (sourcebus-data)."),
    ] = None,
    host: HostOption = "127.0.0.1",
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Extractions at the same time.")] = 2,
    redis_url: Annotated[
        str | None,
        typer.Option("--redis-url", envvar="SOURCEBUS_REDIS_URL", help="Not the embedded server, this one."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option("--database-url", envvar="SOURCEBUS_DATABASE_URL", help="Not SQLite, this database."),
    ] = None,
) -> None:
    """Run all of it on this machine: server, database, workers and watcher, until Ctrl-C.

    What dies is started again; nothing that was accepted is lost.
    """
    # Here, so that no other command pays for them.
    from sourcebus.cli.up.companion import Companion
    from sourcebus.cli.up.instance import Instance, claim
    from sourcebus.cli.up.screen import Screen
    from sourcebus.cli.up.server import Server
    from sourcebus.cli.up.supervisor import Supervisor

    require_loopback(host)
    folders = [_folder(path) for path in watch or []]
    port = _free_port(host, port)
    with claim(data_dir(data)) as lock:
        server = None if redis_url else Server.at(lock.data)
        instance = Instance(
            data=lock.data,
            redis_url=redis_url or (server.url if server else ""),
            database_url=database_url or f"sqlite:///{lock.data / 'sourcebus.db'}",
            api_url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
        )
        os.environ.update(instance.environment())
        settings = load_settings()
        screen = Screen()
        supervisor = Supervisor(
            screen=screen,
            logs=lock.data / "logs",
            server=server.command(keep_open=lock.fd) if server else None,
            server_ready=server.ready if server else None,
            commands=_commands(host, port, workers),
            companion=lambda report: Companion(settings, instance, folders, exclude or [], screen, report),
        )
        instance.write()
        code = supervisor.run()
        instance.mark_stopped()
    if code:
        raise typer.Exit(code)


def _commands(host: str, port: int, workers: int) -> list[list[Command]]:
    """The processes in the order in which they are stopped; those of one row at the same time."""
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "--quiet", "-A", "sourcebus.worker"]
    # One node needs neither gossip nor a roll-call of others; without them it is ready a second earlier.
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    level = ["--loglevel", "warning"]
    worker = [*celery, "worker", "--concurrency", str(workers), "--hostname", "up@%h", *alone, *level]
    beat = [*celery, "beat", "--pidfile", "", *level]
    gateway = [*python, "sourcebus", "gateway", "--host", host, "--port", str(port)]
    return [
        [Command("watcher", [*python, "sourcebus", "watch"], patience_s=8), Command("gateway", gateway, patience_s=8)],
        [Command("beat", beat, patience_s=5)],
        [Command("worker", worker, patience_s=25)],
    ]


def _folder(path: Path) -> Path:
    folder = path.expanduser().absolute()
    if not folder.exists():
        raise InvalidInput("--watch", f"{str(path)!r} does not exist", "name a folder")
    if not folder.is_dir():
        raise InvalidInput("--watch", f"{str(path)!r} is not a folder", "name the folder that it is in")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InvalidInput("--watch", f"{str(path)!r} may not be read by this user", "change its permissions, or name another")
    return Path(os.path.normpath(folder))


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; Conflict if another program listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                other = f"--port {port + 1} (make run PORT={port + 1})"
                raise Conflict(f"port {port} is taken by another program; choose another: {other}") from None
            raise InvalidInput("--port", f"{host}:{port} cannot be used: {error.strerror}", "choose another") from None
        return probe.getsockname()[1]
