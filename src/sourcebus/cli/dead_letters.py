"""`sourcebus dlq …`: events whose attempts are used up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sourcebus.cli.place import DataOption, JsonOption, opened
from sourcebus.cli.terminal import ago, complain, say, say_json, say_table, visible
from sourcebus.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sourcebus.bus import Bus, DeadLetter

app = typer.Typer(help="Events that failed for good: look, try again, or drop.", no_args_is_help=True)

SourceOption = Annotated[str | None, typer.Option("--source", metavar="ID", help="Only of this source.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Dead letters, by id.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them (or all of --source).")]


@app.command("list")
def list_(
    source: SourceOption = None,
    after: Annotated[str | None, typer.Option("--after", help="Ids after this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 100,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List dead letters, oldest first."""
    with opened(data) as runtime:
        letters = runtime.bus.dead_letters(source, after=after, limit=limit)
    following = letters[-1].id if len(letters) == limit else None
    if as_json:
        say_json({"items": [letter.as_json() for letter in letters], "next": following})
        return
    if not letters:
        complain("no dead letters")
        return
    say_table(
        ["id", "source", "object", "died", "#attempts", "error"],
        [(d.id, d.source_id, d.object_ref, ago(d.died_at_ms), d.attempts, d.error) for d in letters],
    )
    if following:
        complain(f"there may be more: --after {visible(following)}")


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id.")],
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Show one dead letter in full."""
    with opened(data) as runtime:
        letter = next((letter for letter in _every(runtime.bus, None) if letter.id == id), None)
    if letter is None:
        raise InvalidInput("ID", f"there is no dead letter {id!r}", "sourcebus dlq list shows them")
    if as_json:
        say_json(letter.as_json())
    else:
        say_table(["field", "value"], list(letter.as_json().items()))


@app.command("replay")
def replay(ids: IdsArgument = None, every: AllOption = False, source: SourceOption = None, data: DataOption = None) -> None:
    """Try dead letters again, with all their attempts."""
    _each("replayed", ids, every, source, data)


@app.command("drop")
def drop(ids: IdsArgument = None, every: AllOption = False, source: SourceOption = None, data: DataOption = None) -> None:
    """Forget dead letters. What they were about stays as it was indexed last."""
    _each("dropped", ids, every, source, data)


def _each(done: str, ids: list[str] | None, every: bool, source: str | None, data: DataOption) -> None:
    if bool(ids) == every:
        raise InvalidInput("ID", "name dead letters, or --all, not both", "sourcebus dlq list shows them")
    with opened(data) as runtime:
        bus = runtime.bus
        # Read to the end first: what is replayed may die again while we go on.
        chosen = [letter.id for letter in _every(bus, source)] if every else list(ids or [])
        missing = [id for id in chosen if not (bus.replay(id) is not None if done == "replayed" else bus.drop(id))]
    if every or len(missing) < len(chosen):
        say(f"{done} {len(chosen) - len(missing)}")
    if missing and not every:
        raise InvalidInput("ID", f"there is no dead letter {missing[0]!r}", "sourcebus dlq list shows them")


def _every(bus: Bus, source: str | None) -> Iterator[DeadLetter]:
    after: str | None = None
    while page := bus.dead_letters(source, after=after, limit=500):
        yield from page
        after = page[-1].id
