"""What came from a source never reaches a terminal raw."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from sourcebus.cli.terminal import ago, say_json, say_table, snippet, visible
from sourcebus.clock import duration


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("notes/größe 🙂.md", "notes/größe 🙂.md"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("one\x1ftwo\x7f\x9b", "one\\x1ftwo\\x7f\\x9b"),
        ("invoice\u202efdp.exe", "invoice\\u202efdp.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("zero\u200bwidth\u2028line", "zero\\u200bwidth\\u2028line"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_table_in_a_pipe_has_one_uncut_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    long = "deep/" * 100 + "file"
    say_table(["id", "#count"], [(long, 3), ("a\nb", None)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert long in lines[1] and lines[1].endswith("3")
    assert lines[2].startswith("a\\nb")


def test_a_snippet_loses_its_markup_and_keeps_its_text() -> None:
    shown = snippet("if a &lt; b:\n  <mark>return</mark> &quot;\x1b[2J&quot;")
    assert shown.plain == 'if a < b: return "\\x1b[2J"'
    assert [shown.plain[span.start : span.end] for span in shown.spans if span.style == "bold"] == ["return"]


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"ref": "größe\u202e\udce9", "at": datetime(2026, 1, 2, tzinfo=UTC)})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"ref": "größe\u202e\udce9", "at": "2026-01-02T00:00:00+00:00"}


def test_durations_and_ages() -> None:
    assert [duration(s) for s in (0.44, 42, 200, 7300, 200_000)] == ["0.4 s", "42 s", "3 min", "2 h", "2 d"]
    now = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert ago(now - timedelta(seconds=42), now) == "42 s ago"
    assert ago((now - timedelta(hours=5)).isoformat(), now) == "5 h ago"
    assert ago(int(now.timestamp() * 1000) - 3000, now) == "3 s ago"
    assert ago(None) == ""
