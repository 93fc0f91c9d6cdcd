"""`sourcebus status`, `search`, `why`, `verify`, `doctor`: what people look at."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sourcebus.cli.place import DataOption, JsonOption, opened
from sourcebus.cli.terminal import ago, complain, say, say_json, say_table, say_text, snippet, styled, visible
from sourcebus.clock import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.text import Text

    from sourcebus.model import JsonObject


def status(
    sources: Annotated[list[str] | None, typer.Argument(metavar="SOURCE", help="Only these.")] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", help="Only of this workspace.")] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """What every source is doing, and what is indexed of it."""
    with opened(data) as runtime:
        for source_id in sources or []:
            runtime.catalog.source(source_id)
        rows = runtime.desk.status(sources or None, workspace)
    if as_json:
        say_json({"items": rows, "next": None})
        return
    if not rows:
        complain("no sources; add one: sourcebus source add ID filesystem root=DIR")
        return
    say_table(
        ["source", "state", "#indexed", "#unreadable", "#pending", "#in flight", "#dead", "last listing", "notes"],
        [
            (
                row["id"],
                row["state"],
                row.get("indexed"),
                row.get("unreadable") or "",
                row.get("pending") or "",
                row.get("in_flight") or "",
                row.get("dead") or "",
                ago(row.get("last_scan_at")),
                _notes(row),
            )
            for row in rows
        ],
    )


def _notes(row: Mapping[str, Any]) -> str:
    notes = [row["why"]] if row["state"] != "idle" else []
    notes += [str(row["error"])] if row.get("error") else []
    notes += [f"polled: {row['feed_reason']}"] if row.get("feed") == "fallback" else []
    if row.get("held"):
        notes.append(f"held: {row['held']}")
    if progress := row.get("progress"):
        notes.append(progress_text(progress))
    return "; ".join(notes)


def subscriptions(
    workspace: Annotated[str | None, typer.Option("--workspace", help="Only of this workspace.")] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """What providers have promised to send, until when, and whether it comes."""
    with opened(data) as runtime:
        items: list[JsonObject] = []
        after: str | None = None
        while True:
            page, after = runtime.desk.subscriptions(workspace, after, reveal=True)
            items += page
            if after is None:
                break
    if as_json:
        say_json({"items": items, "next": None})
        return
    if not items:
        complain("no subscriptions; they are made by themselves where SOURCEBUS_PUBLIC_URL is set and the connector has them")
        return
    say_table(
        ["source", "id", "state", "expires", "last delivery", "#announced", "to do, or error"],
        [
            (
                item["source_id"],
                item["id"] or "",
                item["state"],
                item["expires_at"] or ("never" if item["id"] else ""),
                ago(item["last_delivery_at"]),
                "" if item["webhook_coverage"] is None else f"{item['webhook_coverage']:.0%}",
                item["to_do"] or item["error"] or "",
            )
            for item in items
        ],
    )


def progress_text(progress: Mapping[str, Any]) -> str:
    """``1,200 of 10,000 · 850/s · 10 s left``"""
    text = f"{progress['done']:,} of {progress['total']:,}"
    if progress.get("rate_per_s"):
        text += f" · {progress['rate_per_s']:,.0f}/s"
    if progress.get("eta_s") is not None:
        text += f" · {duration(progress['eta_s'])} left"
    return text


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="All of them must match.")],
    source: Annotated[str | None, typer.Option("--source", metavar="ID", help="Only in this source.")] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", help="Only in this workspace.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 10,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Search what is indexed, best first."""
    with opened(data) as runtime:
        if source is not None:
            runtime.catalog.source(source)
        hits = runtime.catalog.search(" ".join(words), source_id=source, workspace=workspace, limit=limit)
    if as_json:
        say_json({"hits": [asdict(hit) for hit in hits]})
        return
    if not hits:
        complain("nothing found")
        return
    for hit in hits:
        line = styled(hit.source_id, "cyan")
        line.append("  ").append(styled(hit.object_ref, "bold")).append("  ").append(styled(ago(hit.indexed_at), "dim"))
        say_text(line)
        found = snippet(hit.snippet)
        found.pad_left(4)
        say_text(found)


def why(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source's id.")],
    ref: Annotated[str, typer.Argument(metavar="REF", help="The object: its path, id or url.")],
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """The story of one object, newest first: why is it as it is, or not there?"""
    with opened(data) as runtime:
        runtime.catalog.source(source)
        items = runtime.desk.why(source, ref)
    if as_json:
        say_json({"items": items, "next": None})
        return
    if not items:
        complain(f"nothing is known of {visible(ref)}: no signal named it and no listing showed it")
        return
    say_table(["when", "what", "detail"], [(_when(item), item["what"], _detail(item)) for item in items])


def _when(item: JsonObject) -> str:
    return f"{item['at']} ({ago(item['at'])})" if item.get("at") else "now"


def _detail(item: JsonObject) -> str:
    """Whatever else the line says, as ``name: value``."""
    parts: list[str] = []
    for name, value in item.items():
        if name in {"at", "what"} or value is None or value == "":
            continue
        nested = cast(dict[str, Any], value) if isinstance(value, dict) else {name: value}
        parts += [f"{key}: {inner}" for key, inner in nested.items()]
    return ", ".join(parts)


def verify(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source's id.")],
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Compare the source with the index, object by object. Exit code 1 if they differ.

    missing: in the source, not in the index. stale: in both, with different versions. orphaned: only in the index.
    """
    with opened(data) as runtime:
        runtime.catalog.source(source)
        with _Counter() as count:
            found = runtime.desk.verify(source, on_progress=count)
    if as_json:
        say_json({**asdict(found), "ok": found.ok})
    else:
        for what in ("missing", "stale", "orphaned"):
            for ref in getattr(found, what):
                say(f"{what:9}{visible(ref)}")
        differ = len(found.missing) + len(found.stale) + len(found.orphaned)
        verdict = "no difference" if found.ok else f"{differ:,} differ"
        unreadable = f" ({len(found.unreadable):,} cannot be read; sourcebus why says why)" if found.unreadable else ""
        complain(f"{found.checked:,} objects compared: {verdict}{unreadable}")
    if not found.ok:
        raise typer.Exit(1)


class _Counter:
    """A count that is drawn while someone watches, and nothing otherwise."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Callable[..., None]:
        return self._show

    def _show(self, checked: int, *_: object) -> None:
        if self._live and checked % 100 == 0:
            sys.stderr.write(f"\r{checked:,} compared ")
            sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")


def doctor(as_json: JsonOption = False, data: DataOption = None) -> None:
    """Check that everything needed is there and works. Exit code 1 if something is wrong."""
    with opened(data) as runtime:
        checks = runtime.desk.doctor()
    if as_json:
        say_json({"items": [asdict(check) for check in checks], "next": None})
    else:
        say_table(
            ["check", "", "detail"],
            [(check.name, _verdict(check.ok), _with_fix(check.detail, check.fix, check.ok)) for check in checks],
        )
    if any(check.ok is False for check in checks):
        raise typer.Exit(1)


def _verdict(ok: bool | None) -> Text:
    return styled("unknown", "yellow") if ok is None else styled("ok", "green") if ok else styled("wrong", "bold red")


def _with_fix(detail: str, fix: str, ok: bool | None) -> str:
    return f"{detail}. {fix}" if fix and not ok else detail
