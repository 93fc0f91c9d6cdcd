"""Draws what a look saw: a head, then a line per source as far as there is room, then the sum of the rest.

Every state has a mark and words beside its colour. A narrow terminal loses columns, never the source or the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from sourcebus.cli.top.figures import TROUBLES, Picture, Row, ordered
from sourcebus.clock import duration

LOOKS: Final = {
    "no_worker": ("▲", "bold white on red", "no worker"),
    "workers_busy": ("△", "bold yellow", "no free worker"),
    "provider_pause": ("◷", "magenta", "provider said wait"),
    "out_of_reach": ("◷", "red", "out of reach"),
    "tokens": ("◷", "cyan", "tokens"),
    "cap": ("◷", "blue", "at their cap"),
    "window_or_backoff": ("◷", "bright_black", "window or back-off"),
    "running": ("●", "green", "running"),
    "ready": ("●", "green", "about to run"),
    "paused": ("■", "bright_black", "paused"),
    "idle": ("○", "bright_black", "idle"),
}
"""Standing → its mark, style and word in the head's count. A want of workers is a triangle, a source's own gate a clock."""

BAR: Final = {
    "no_worker": ("n", "white on red"),
    "provider_pause": ("p", "white on magenta"),
    "tokens": ("t", "black on cyan"),
    "cap": ("c", "white on blue"),
    "window": ("w", "black on bright_black"),
}
"""What was waited for → its letter in the bar."""

_BAR_CELLS = 8
_QUIET_MS = 30_000
_WORDS: Final = {"reruns": "re-runs", "reaped": "reaps", "throttled": "429s"}


@dataclass(frozen=True, slots=True)
class Column:
    """`width` in cells, None for what is left; shown on terminals from `least` to `most` cells wide."""

    title: str
    cell: Callable[[Row], Text]
    width: int | None
    least: int = 0
    most: int = 1_000_000
    right: bool = True


def why(row: Row) -> Text:
    mark, style, _ = LOOKS[row.standing]
    return Text(f"{mark} {row.why}", style)


def _number(count: int) -> Text:
    return Text(compact(count) if count else "")


def compact(count: float) -> str:
    """At most six cells: ``9,999``, ``12.3k``, ``4.5M``."""
    if count < 10_000:
        return f"{count:,.0f}"
    return f"{count / 1e3:,.1f}k" if count < 1e6 else f"{count / 1e6:,.1f}M"


def _age(row: Row) -> Text:
    return Text("" if row.stats.oldest_due_s is None else duration(row.stats.oldest_due_s))


def _rate(row: Row) -> Text:
    if row.acks_per_s is None:
        return Text("–", "bright_black")
    return Text(_per_s(row.acks_per_s) if row.acks_per_s else "")


def _per_s(rate: float) -> str:
    return f"{rate:.1f}" if 0 < rate < 10 else compact(rate)


def _learned(row: Row) -> Text:
    share = row.stats.learned_share
    return Text(f"{share:.0%}" if share < 0.995 else "", "yellow")


def _dead(row: Row) -> Text:
    return Text(compact(row.stats.dead) if row.stats.dead else "", "bold red")


def bar(row: Row) -> Text:
    """Eight cells of recent time, a letter for what was waited for: ``ttttnn··``; dots are time without waiting."""
    drawn, left, owed = Text(), _BAR_CELLS, 0.0
    for name, (letter, style) in BAR.items():
        owed += row.waited.get(name, 0.0) * _BAR_CELLS
        cells = min(left, int(owed + 0.5))
        owed -= cells
        left -= cells
        drawn.append(letter * cells, style)
    return drawn.append("·" * left, "bright_black")


COLUMNS: Final = (
    Column("source", lambda row: Text(row.name), None, right=False),
    Column("why it is not running now", why, None, right=False),
    Column("pending", lambda row: _number(row.stats.pending), 7, 48, 111),
    Column("live", lambda row: _number(row.stats.live + row.stats.manual), 6, 112),
    Column("backfill", lambda row: _number(row.stats.backfill), 8, 112),
    Column("delayed", lambda row: _number(row.stats.delayed), 7, 112),
    Column("runs", lambda row: _number(row.stats.in_flight), 5, 72),
    Column("oldest", _age, 6, 58),
    Column("per s", _rate, 6, 88),
    Column("rate", _learned, 4, 100),
    Column("dead", _dead, 5, 84),
    Column("waited for", bar, 10, 124, right=False),
)


def table(rows: Sequence[Row], width: int | None, old: str = "") -> list[Text]:
    """A header and a line per row, `width` cells wide; None: as wide as it must be. `old` dims it and says how old."""
    columns = [one for one in COLUMNS if one.least <= (width or 1_000_000) <= one.most or (width is None and one.least)]
    cells = [[column.cell(row) for column in columns] for row in rows]
    widths = _widths(columns, cells, width)
    titles = [Text(one.title + (f" ({old} ago)" if old and one.cell is why else "")) for one in columns]
    lines = [_line(titles, columns, widths)]
    lines[0].stylize("dim reverse" if old else "bold reverse")
    for one in cells:
        line = _line(one, columns, widths)
        if old:
            line.stylize("dim")
        lines.append(line)
    return lines


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[Text]], width: int | None) -> list[int]:
    """The two open columns share what is left: a source gets what its name needs, but not what the reasons need."""
    natural = [max([len(one.title), *(row[at].cell_len for row in cells)]) for at, one in enumerate(columns)]
    if width is None:
        return natural
    left = width - sum(one.width + 2 for one in columns if one.width is not None) - 2
    reason = min(natural[1], max(left - natural[0], int(left * 0.55)))
    source = max(4, min(left - reason, 60))
    return [source, max(4, left - source), *(one.width or 0 for one in columns[2:])]


def _line(cells: Sequence[Text], columns: Sequence[Column], widths: Sequence[int]) -> Text:
    line = Text()
    for at, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        cell.truncate(width, overflow="ellipsis")
        gap = " " * (width - cell.cell_len)
        line.append("  " if at else "")
        line.append(gap if column.right else "")
        line.append_text(cell)
        line.append("" if column.right else gap)
    return line


# --- the head ------------------------------------------------------------------------------------------------------


def head(picture: Picture, width: int | None, said: str = "") -> list[Text]:
    """Who works here and what is going on in total. `said`: why this is not of now; it is dimmed then, and without rates."""
    vitals, totals = picture.vitals, _totals(picture.rows)
    parts = [Text("bus answers", "green")] if not said else []
    parts += [
        _workers(picture),
        Text(f"{len(picture.rows):,} source{'s' * (len(picture.rows) != 1)}"),
        Text(f"{totals['pending']:,} pending"),
    ]
    parts.append(Text(f"{totals['in_flight']:,} running"))
    for rate, name in ((picture.claims_per_s, "claims"), (picture.acks_per_s, "acks")):
        parts.append(Text("– " if rate is None or said else f"{_per_s(rate)} ").append(f"{name}/s"))
    for name in TROUBLES:
        new = picture.since_begun[name]
        text = Text(f"{_WORDS[name]} {picture.total[name]:,}")
        parts.append(text.append(f" (+{new:,})", "yellow") if new else text)
    parts.append(Text("nothing due" if picture.oldest_s is None else f"oldest due {duration(picture.oldest_s)}"))
    if dead := totals["dead"]:
        parts.append(Text(f"{dead:,} dead letters", "bold red"))
    lines = _flow(parts, width)
    counts = picture.standings
    said_of = ((f"{mark} {word} {counts[name]:,}", style) for name, (mark, style, word) in LOOKS.items() if counts[name])
    lines += _flow((Text(words, style) for words, style in said_of), width)
    quiet_ms = None if vitals.ticked_ms is None else vitals.now_ms - vitals.ticked_ms
    if quiet_ms is None or quiet_ms > _QUIET_MS:
        since = "was never done" if quiet_ms is None else f"was done {duration(quiet_ms / 1000)} ago"
        lines.append(Text(f"housekeeping {since}: is Celery's beat running?", "bold yellow"))
    if said:
        for line in lines:
            line.stylize("dim")
    return lines


def banner(said: str, old: str, width: int | None) -> list[Text]:
    """That the bus does not answer, how old what is shown below is, and why."""
    text = " THE BUS DOES NOT ANSWER" + (f": these figures are {old} old " if old else " ")
    return [_fitted(text, "bold white on red", width), _fitted(said, "red", width)]


def _fitted(words: str, style: str, width: int | None) -> Text:
    return _cut(Text(words, style), width)


def _cut(line: Text, width: int | None) -> Text:
    """One line on the screen, whatever it holds."""
    line.no_wrap = True
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _workers(picture: Picture) -> Text:
    vitals = picture.vitals
    if not vitals.consumers:
        return Text(" NO WORKER IS RUNNING ", "bold white on red")
    seen = f"{vitals.consumers} worker{'s' * (vitals.consumers != 1)} seen"
    return Text(f"{seen}, {vitals.waiting or 'none'} free", "green" if vitals.waiting else "yellow")


def _totals(rows: Iterable[Row]) -> dict[str, int]:
    sums = {"pending": 0, "in_flight": 0, "dead": 0}
    for row in rows:
        sums["pending"] += row.stats.pending
        sums["in_flight"] += row.stats.in_flight
        sums["dead"] += row.stats.dead
    return sums


def _flow(parts: Iterable[Text], width: int | None) -> list[Text]:
    """The parts with dots between them, in as many lines as they need."""
    lines: list[Text] = []
    for part in parts:
        if lines and (width is None or lines[-1].cell_len + 3 + part.cell_len <= width):
            lines[-1].append(" · ", "bright_black").append_text(part)
        else:
            lines.append(Text().append_text(part))
    return lines


# --- the whole -----------------------------------------------------------------------------------------------------


def draw(
    picture: Picture,
    sort: str,
    width: int | None,
    height: int | None,
    *,
    said: str = "",
    old: str = "",
    foot: str = "",
) -> list[Text]:
    """All lines, at most `height`; None: all sources."""
    lines = [*(banner(said, old, width) if said else []), *head(picture, width, said)]
    if height is not None:
        lines = lines[: max(1, height // 2)]
    rows = ordered(picture, sort)
    if not rows:
        return [*lines, Text("no source is known to the bus", "dim")]
    room = len(rows) if height is None else max(1, height - len(lines) - 1 - bool(foot))
    if room < len(rows):
        room = max(1, room - 1)
    lines += table(rows[:room], width, old)
    if rest := rows[room:]:
        sums = _totals(rest)
        words = f"and {len(rest):,} more: " + ", ".join(
            [f"{sums['pending']:,} pending", f"{sums['in_flight']:,} running", f"{sums['dead']:,} dead"]
        )
        lines.append(Text(words, "italic"))
    if foot:
        lines += [Text()] * max(0, (height or 0) - len(lines) - 1)
        lines.append(Text(foot, "bright_black"))
    return [_cut(line, width) for line in lines[:height]]


def nothing_yet(said: str, width: int | None) -> list[Text]:
    """Before the first answer."""
    return banner(said, "", width) if said else [_fitted("asking the bus …", "", width)]
