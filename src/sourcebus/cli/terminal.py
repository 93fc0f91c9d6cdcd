"""How the command line speaks: what was found on standard output, what went wrong on standard error.

Text that came from a source (references, titles, errors) can hold anything, so it passes through `visible` and never
reaches a terminal raw. Rich is imported when something is drawn, not before.
"""

from __future__ import annotations

import html
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sourcebus.clock import duration

if TYPE_CHECKING:
    from rich.text import Text

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MARK = re.compile(r"(</?mark>)")


def visible(text: str) -> str:
    """The text with control, formatting (bidi, zero-width) and unpaired surrogate characters as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in text)


def _escaped(c: str) -> str:
    code = ord(c)
    if c in _NAMED:
        return _NAMED[c]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(text: str = "") -> None:
    """One line of what was asked for, on standard output."""
    sys.stdout.write(text + "\n")


def complain(text: str) -> None:
    """One line about the command itself, on standard error."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_json(value: object) -> None:
    """The value as JSON on standard output. ASCII only, so that it is harmless on any terminal."""
    say(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | set | frozenset):
        return list(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]  # any of them will do
    return str(value)


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under column names. Fitted to a terminal; in a pipe one line per row, uncut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    # In a pipe a row is as wide as it needs to be: grep and cut must see whole references.
    console = Console(file=sys.stdout, highlight=False, soft_wrap=not terminal, width=None if terminal else 100_000)
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False)
    for name in columns:
        numbers = name.startswith("#")
        table.add_column(name.lstrip("#"), justify="right" if numbers else "left", overflow="fold", no_wrap=not terminal)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(visible("" if cell is None else str(cell))) for cell in row))
    console.print(table)


def say_text(text: Text) -> None:
    """One styled line; styles only on a terminal."""
    from rich.console import Console

    Console(file=sys.stdout, highlight=False, soft_wrap=True).print(text)


def styled(text: str, style: str) -> Text:
    """Visible text in a Rich style."""
    from rich.text import Text

    return Text(visible(text), style=style)


def snippet(marked: str) -> Text:
    """A search snippet (HTML-escaped, matches in ``<mark>``) as terminal text with the matches bold."""
    from rich.text import Text

    result, bold = Text(), False
    for piece in _MARK.split(marked):
        if piece in {"<mark>", "</mark>"}:
            bold = piece == "<mark>"
        else:
            result.append(visible(re.sub(r"\s+", " ", html.unescape(piece))), style="bold" if bold else "")
    return result


def ago(value: Any, now: datetime | None = None) -> str:
    """How long ago an instant was (datetime, ISO text or epoch milliseconds): ``42 s ago``; "" for None."""
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        at = datetime.fromisoformat(value)
    elif isinstance(value, datetime):
        at = value
    else:
        at = datetime.fromtimestamp(float(value) / 1000, UTC)
    return f"{duration(((now or datetime.now(UTC)) - at).total_seconds())} ago"
