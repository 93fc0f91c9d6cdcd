"""`sourcebus deliveries …`: what providers sent to the hooks."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sourcebus.cli.place import DataOption, JsonOption, opened
from sourcebus.cli.terminal import ago, complain, say, say_json, say_table
from sourcebus.errors import InvalidInput

app = typer.Typer(help="What came to a source's hook: look, or look at it once more.", no_args_is_help=True)

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="A delivery's id.")]


@app.command("list")
def list_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source's id.")],
    after: Annotated[int | None, typer.Option("--after", help="Those before this id.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")] = 50,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List what came to a source's hook, newest first, and what it was taken for."""
    with opened(data) as runtime:
        lines = runtime.catalog.deliveries(source, after=after, limit=limit)
        shown = [runtime.hooks.show(line) for line in lines]
    following = lines[-1].id if len(lines) == limit else None
    if as_json:
        say_json({"items": shown, "next": following})
        return
    if not shown:
        complain("no deliveries")
        return
    say_table(
        ["id", "came", "method", "result", "#bytes", "#ms", "detail"],
        [
            (s["id"], ago(s["at_ms"]), s["method"], s["result"], s["body_bytes"], s["duration_ms"], _brief(s["detail"]))
            for s in shown
        ],
    )
    if following:
        complain(f"there may be more: --after {following}")


@app.command("show")
def show(id: IdArgument, as_json: JsonOption = False, data: DataOption = None) -> None:
    """Show one delivery in full, its secrets masked."""
    with opened(data) as runtime:
        line = runtime.catalog.delivery(id)
        if line is None:
            raise InvalidInput("ID", f"there is no delivery {id} (any more)", "sourcebus deliveries list SOURCE shows them")
        shown = runtime.hooks.show(line)
    if as_json:
        say_json(shown)
    else:
        say_table(["field", "value"], [(name, v if isinstance(v, str) else json.dumps(v)) for name, v in shown.items()])


@app.command("redeliver")
def redeliver(id: IdArgument, as_json: JsonOption = False, data: DataOption = None) -> None:
    """Look at a delivery once more, as of when it came; its proof is checked against the secrets of now."""
    with opened(data, inviting=True) as runtime:
        done = runtime.hooks.redeliver(id)
    if as_json:
        say_json(done)
    else:
        say(f"stored {done['stored']} events" + (f" ({done['note']})" if done["note"] else ""))


def _brief(detail: object) -> str:
    text = json.dumps(detail, ensure_ascii=False)
    return "" if text == "{}" else text if len(text) <= 120 else text[:119] + "…"
