"""`sourcebus emit` and `sourcebus refresh`: signals from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sourcebus.cli.place import DataOption, JsonOption, opened
from sourcebus.cli.terminal import complain, say, say_json, visible
from sourcebus.clock import duration
from sourcebus.errors import InvalidInput

if TYPE_CHECKING:
    from sourcebus.model import JsonObject


def emit(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="The source's id.")] = None,
    ref: Annotated[str | None, typer.Argument(metavar="REF", help="The object that changed.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="created, updated, deleted or scan.")] = "updated",
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Read events from here, a JSON list or JSON lines; - is standard input."),
    ] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Tell the bus that something changed. The answer comes when it is stored.

    Without REF, --kind scan lists the whole source.
    """
    from sourcebus.intake.events import decode_batch

    if file is not None:
        if source is not None or ref is not None:
            raise InvalidInput("--file", "names the events already", "leave SOURCE and REF out")
        events = decode_batch(_read(file))
    else:
        events = decode_batch([_one(source, ref, kind)])
    with opened(data, inviting=True) as runtime:
        emitted = runtime.intake.accept(events)
    if as_json:
        say_json({"accepted": emitted.accepted, "merged": emitted.merged, "deferred": emitted.deferred})
    else:
        say(f"{emitted.accepted} accepted, {emitted.merged} merged, {emitted.deferred} deferred")


def refresh(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source's id.")],
    ref: Annotated[str | None, typer.Argument(metavar="REF", help="Only this object.")] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Look at a source, or one object of it, before its turn. At most once a minute per source."""
    with opened(data, inviting=True) as runtime:
        answer = runtime.intake.refresh(source, ref)
    if as_json:
        say_json({"accepted": answer.accepted, "retry_after_ms": answer.retry_after_ms, "reason": answer.reason})
    elif answer.accepted:
        say("accepted")
    else:
        complain(f"not now: {visible(answer.reason)}; possible in {duration(answer.retry_after_ms / 1000)}")
    if not answer.accepted:
        raise typer.Exit(1)


def _one(source: str | None, ref: str | None, kind: str) -> JsonObject:
    if source is None:
        raise InvalidInput("SOURCE", "is missing", "sourcebus emit SOURCE REF, or --file FILE")
    if ref is None and kind != "scan":
        raise InvalidInput("REF", "is missing", "name the object, or list the whole source with --kind scan")
    return {"source_id": source, "object_ref": ref or "", "change_kind": kind}


def _read(file: Path) -> object:
    """The file's JSON value, or the list of its JSON lines."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("--file", f"cannot be read: {error}", "name a readable JSON file") from None
    try:
        return json.loads(text)
    except ValueError as whole:
        events: list[object] = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    events.append(json.loads(line))
                except ValueError as error:
                    problem = whole if number == 1 else error
                    fix = "give a JSON list, or one event per line"
                    raise InvalidInput(f"--file line {number}", f"is not JSON: {problem}", fix) from None
        return events
