"""An object's story as one text: a JSON array per line, oldest first, a failure marked with ``!``.

One row per object instead of one per line: a settle reads it with the object, appends and writes it back, and trimming
is a list operation. JSON is ASCII here, so a line never holds a raw newline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from sourcebus.model import JsonObject, Outcome, StoryLine

KEPT = 20
"""Lines kept of an object, and failures kept beside them."""

_LONGEST_TEXT = 1_000
_LONGEST_LINE = 4_000
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str, check_circular=False).encode


def line_of(outcome: Outcome) -> str:
    """The line that `outcome` leaves. A note names itself in ``detail["what"]``; `detail` is cut to a few kilobytes.

    It counts as a failure where it says unreadable or failed, or carries an error.
    """
    detail = {key: _short(value) for key, value in outcome.detail.items()}
    what = outcome.what if outcome.what != "note" else str(detail.pop("what", "note"))
    failed = what in ("unreadable", "failed") or bool(detail.get("error"))
    line = _encode([outcome.at_ms, what, detail])
    if len(line) > _LONGEST_LINE:
        line = _encode([outcome.at_ms, what, {"cut": _encode(detail)[:_LONGEST_TEXT]}])
    return ("!" if failed else " ") + line


def append(story: str | None, line: str) -> str:
    """`story` with `line` at its end, trimmed to the last `KEPT` lines and the last `KEPT` failures."""
    if not story:
        return line
    lines = story.split("\n")
    lines.append(line)
    if len(lines) <= KEPT:
        return "\n".join(lines)
    old, recent = lines[:-KEPT], lines[-KEPT:]
    room = KEPT - sum(line.startswith("!") for line in recent)
    failures = [line for line in old if line.startswith("!")]
    return "\n".join((failures[-room:] if room else []) + recent)


def read(story: str) -> Iterator[StoryLine]:
    """The lines, newest first."""
    for line in reversed(story.split("\n")):
        at_ms, what, detail = cast("tuple[int, str, JsonObject]", tuple(json.loads(line[1:])))
        yield StoryLine(at_ms, what, detail)


def _short(value: Any) -> Any:
    return value[:_LONGEST_TEXT] + "…" if isinstance(value, str) and len(value) > _LONGEST_TEXT else value
