"""`sourcebus top`: once, as text in a pipe, or live on a terminal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from sourcebus.cli.place import DataOption, JsonOption, opened
from sourcebus.cli.terminal import say, say_json
from sourcebus.clock import duration
from sourcebus.errors import InvalidInput
from sourcebus.model import JsonObject, from_ms

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from sourcebus.cli.top.figures import Looker, Picture, Row
    from sourcebus.cli.top.watcher import Seen, Watcher

_KEYS_S = 0.1
"""A key, a new size or Ctrl-C is seen this soon."""

_PLAIN_ROWS = 40
"""So many sources are listed at each look where no terminal is and nobody asked for all of them."""


def top(
    every: Annotated[float, typer.Option("--every", min=0.2, metavar="S", help="Seconds between looks.")] = 2.0,
    sort: Annotated[
        str, typer.Option("--sort", metavar="KEY", help="attention, name, pending, oldest, rate or dead.")
    ] = "attention",
    source: Annotated[str | None, typer.Option("--source", metavar="PATTERN", help="Only these, as in 'wiki*'.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, all sources, and end.")] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Every source, live, and why it is not running now. q or Ctrl-C ends it, s sorts by something else.

    Where no terminal is, it writes text at every look. With --once or --json it looks twice, for the rates, and ends.
    """
    from sourcebus.cli.top.figures import SORTS, Looker

    if sort not in SORTS:
        raise InvalidInput("--sort", f"{sort!r} is no order", f"use one of {', '.join(SORTS)}")
    with opened(data) as runtime:
        looker = Looker(runtime.bus, source)
        if once or as_json:
            _show_once(looker, min(every, 1.0), sort, as_json)
        elif sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb"):
            _live(looker, every, sort)
        else:
            _plain(looker, every, sort)


# --- once, and in a pipe -------------------------------------------------------------------------------------------


def _show_once(looker: Looker, passed_s: float, sort: str, as_json: bool) -> None:
    looker.look()
    time.sleep(passed_s)
    picture = looker.look()
    if as_json:
        say_json(_as_json(picture, sort))
        return
    from sourcebus.cli.top.view import draw

    console = _console()
    terminal = sys.stdout.isatty()
    _print(console, draw(picture, sort, console.width if terminal else None, None))


def _plain(looker: Looker, every_s: float, sort: str) -> None:
    from sourcebus.cli.top.view import draw, nothing_yet

    console = _console()
    with _told_to_end() as told, _watching(looker, every_s) as watcher:
        shown: object = None
        while not told:
            seen = watcher.newest
            failing = seen.failing(every_s, time.monotonic())
            if (seen, bool(failing)) != shown and (seen.picture or failing):
                shown = seen, bool(failing)
                say(f"--- {from_ms(int(time.time() * 1000)).isoformat(timespec='seconds')}")
                if failing or seen.picture is None:  # figures that were written before are not written again
                    _print(console, nothing_yet(failing, None))
                else:
                    _print(console, draw(seen.picture, sort, None, _PLAIN_ROWS))
                sys.stdout.flush()
            time.sleep(_KEYS_S)


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def _print(console: Console, lines: list[Text]) -> None:
    for line in lines:
        line.rstrip()
        console.print(line, soft_wrap=True)


def _as_json(picture: Picture, sort: str) -> JsonObject:
    from sourcebus.cli.top.figures import ordered

    vitals = picture.vitals
    return {
        "now": from_ms(vitals.now_ms).isoformat(),
        "consumers": vitals.consumers,
        "waiting_consumers": vitals.waiting,
        "housekeeping": from_ms(vitals.ticked_ms).isoformat() if vitals.ticked_ms else None,
        "claims_per_s": picture.claims_per_s,
        "acks_per_s": picture.acks_per_s,
        "items": [_item(row) for row in ordered(picture, sort)],
        "next": None,
    }


def _item(row: Row) -> JsonObject:
    stats = asdict(row.stats)
    return {
        "id": stats.pop("source_id"),
        "why": row.why,
        "left_s": row.stats.left_s,
        "oldest_due_s": row.stats.oldest_due_s,
        "acks_per_s": row.acks_per_s,
        "waited_share": dict(row.waited),
        **stats,
    }


# --- live ----------------------------------------------------------------------------------------------------------


def _live(looker: Looker, every_s: float, sort: str) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    from sourcebus.cli.top.figures import SORTS
    from sourcebus.cli.top.keys import Keys

    console = Console(highlight=False)
    orders = list(SORTS)
    # Signals are waited for first and let go last: the terminal is put right whatever ends this.
    with (
        _told_to_end() as told,
        _watching(looker, every_s) as watcher,
        Keys() as keys,
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as screen,
    ):
        drawn: object = None
        while not told:
            seen, now_s, (width, height) = watcher.newest, time.monotonic(), console.size
            failing = seen.failing(every_s, now_s)
            state = (seen, sort, width, height, int(now_s) if failing else 0)
            if state != drawn:
                drawn = state
                screen.update(Group(*_lines(seen, failing, sort, width, height, every_s, keys.help)), refresh=True)
            for key in keys.pressed(_KEYS_S):
                if key in "qQ":
                    return
                if key in "sS":
                    sort = orders[(orders.index(sort) + 1) % len(orders)]


def _lines(seen: Seen, failing: str, sort: str, width: int, height: int, every_s: float, keys: str) -> list[Text]:
    from sourcebus.cli.top.view import draw, nothing_yet

    if seen.picture is None:
        return nothing_yet(failing, width)
    old = duration(seen.age_s(time.monotonic())) if failing else ""
    foot = f"by {sort} · every {duration(seen.next_s(every_s))} · {keys}"
    return draw(seen.picture, sort, width, height, said=failing, old=old, foot=foot)


@contextmanager
def _watching(looker: Looker, every_s: float) -> Generator[Watcher]:
    from sourcebus.cli.top.watcher import Watcher

    watcher = Watcher(looker, every_s)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop()


@contextmanager
def _told_to_end() -> Generator[list[int]]:
    """A list that is empty until a signal asks this process to end."""
    told: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield told
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
