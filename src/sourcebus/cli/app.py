"""The tree of commands, and what becomes of an exception."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sourcebus.cli import dead_letters, deliveries, events, look, serve, source
from sourcebus.cli.place import NotRunning
from sourcebus.cli.terminal import complain, visible
from sourcebus.cli.top import top
from sourcebus.cli.up.command import up
from sourcebus.errors import (
    BusUnavailable,
    CatalogUnavailable,
    InvalidInput,
    NeedsAuth,
    SourcebusError,
    StorageFull,
    Unverified,
)

app = typer.Typer(
    name="sourcebus",
    help="Keeps a search or RAG index fresh: a fair, quota-aware event bus in front of your extractors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_HERE = "On this machine"
_SOURCES = "Sources and events"
_LOOK = "Look"

app.command(rich_help_panel=_HERE)(up)
app.command(rich_help_panel=_HERE)(serve.gateway)
app.command(rich_help_panel=_HERE)(serve.watch)
app.command(rich_help_panel=_HERE)(look.doctor)
app.add_typer(source.app, name="source", rich_help_panel=_SOURCES)
app.command(rich_help_panel=_SOURCES)(events.emit)
app.command(rich_help_panel=_SOURCES)(events.refresh)
app.add_typer(dead_letters.app, name="dlq", rich_help_panel=_SOURCES)
app.add_typer(deliveries.app, name="deliveries", rich_help_panel=_SOURCES)
app.command(rich_help_panel=_LOOK)(look.status)
app.command(rich_help_panel=_LOOK)(top)
app.command(rich_help_panel=_LOOK)(look.subscriptions)
app.command(rich_help_panel=_LOOK)(look.search)
app.command(rich_help_panel=_LOOK)(look.why)
app.command(rich_help_panel=_LOOK)(look.verify)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sourcebus {version('sourcebus')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """What every command shares: nothing but the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and answers its exit code. What is expected to happen never shows a traceback."""
    try:
        app(args=list(sys.argv[1:] if argv is None else argv), prog_name="sourcebus")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except InvalidInput as error:
        complain(f"error: {visible(str(error))}")
        return 2
    except SourcebusError as error:
        complain(f"error: {visible(str(error) or type(error).__doc__ or type(error).__name__)}")
        if hint := _what_to_do(error):
            complain(f"       {hint}")
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # The reader went away (`| head`): that is its right. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _what_to_do(error: SourcebusError) -> str:
    match error:
        case NotRunning():
            return ""  # its message says it
        case BusUnavailable():
            address = visible(os.environ.get("SOURCEBUS_REDIS_URL", ""))
            return f"nothing usable answers at {address or 'the default address'}: is `sourcebus up` (or your Redis) running?"
        case CatalogUnavailable():
            return "is the database running, and SOURCEBUS_DATABASE_URL right? sourcebus doctor looks closer"
        case StorageFull():
            return "make room on the disk; nothing is lost, what is pending goes on by itself"
        case Unverified():
            return "its proof was checked against the secrets that the source has now"
        case NeedsAuth():
            return "give the source a new secret: sourcebus source set ID --secret-env VARIABLE"
        case _:
            return ""
