"""What `sourcebus top` makes of a look: differences, shares, order, and lines that fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.text import Text

from sourcebus.bus import WAITED, SourceStats, Vitals
from sourcebus.cli.top.figures import Picture, Row, faded_in, ordered
from sourcebus.cli.top.view import BAR, LOOKS, bar, compact, draw, nothing_yet
from sourcebus.cli.top.watcher import Seen

NOTHING: dict[str, int] = dict.fromkeys(WAITED, 0)
IDLE = SourceStats(
    source_id="s", state="idle", reason="", until_ms=None, pending=0, live=0, backfill=0, manual=0, delayed=0, in_flight=0,
    cap=4, shared=False, dead=0, oldest_due_ms=None, tokens=None, accepted=0, merged=0, claimed=0, acked=0, nacked=0, reaped=0,
    throttled=0, reruns=0, overflowed=0, service_ms=0.0, learned_share=1.0, waited_ms=NOTHING, now_ms=100_000,
)  # fmt: skip


def row(name: str, state: str = "idle", reason: str = "", *, acks_per_s: float | None = None, **fields: Any) -> Row:
    return Row(replace(IDLE, source_id=name, state=state, reason=reason, **fields), name, acks_per_s, {})


ROWS = [
    row("idle"),
    row("dead", dead=2),
    row("paused", "blocked", "paused", pending=9, oldest_due_ms=1),
    row("window", "waiting", "window_or_backoff", until_ms=112_000, pending=1, delayed=1),
    row("running", "ready", "", in_flight=2, pending=2),
    row("quick", "ready", "workers_busy", pending=50, oldest_due_ms=90_000, acks_per_s=20.0),
    row("tokens", "waiting", "tokens", until_ms=103_000, pending=3, oldest_due_ms=60_000, learned_share=0.5),
    row("busy", "ready", "workers_busy", pending=3, oldest_due_ms=99_000),
    row("pause", "waiting", "provider_pause", until_ms=141_000, pending=7, oldest_due_ms=59_000),
    row("cap", "blocked", "cap", pending=7, oldest_due_ms=58_000),
    row("lacking", "ready", "no_worker", pending=1, oldest_due_ms=99_900),
]


def picture(rows: list[Row] = ROWS, *, consumers: int = 2) -> Picture:
    troubles = {"reruns": 5, "reaped": 0, "throttled": 3}
    return Picture(rows, Vitals(100_000, consumers, 0, 99_500), 12.0, 11.5, troubles, {**troubles, "reruns": 2}, 42.0)


def plain(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


def test_who_needs_attention_comes_first() -> None:
    names = [one.name for one in ordered(picture(), "attention")]
    assert names == ["lacking", "cap", "pause", "tokens", "busy", "quick", "running", "paused", "window", "dead", "idle"]
    assert [one.name for one in ordered(picture(), "name")][:3] == ["busy", "cap", "dead"]
    assert ordered(picture(), "pending")[0].name == "quick"
    assert ordered(picture(), "oldest")[0].name == "paused"
    assert ordered(picture(), "rate")[0].name == "quick"
    assert ordered(picture(), "dead")[0].name == "dead"


def test_a_source_that_works_between_the_looks_runs() -> None:
    quick = next(one for one in ROWS if one.name == "quick")
    assert (quick.standing, quick.why) == ("running", "running; no worker is free for more")


def test_a_gate_and_a_want_of_workers_look_different_without_colour() -> None:
    text = "\n".join(plain(draw(picture(), "attention", 130, None)))
    for words in (
        "▲ ready, no worker is running",
        "△ ready, no worker is free",
        "◷ waits for tokens, 3 s",
        "◷ provider said wait, 41 s",
        "◷ at its cap of 4",
        "◷ window or back-off, 12 s",
        "■ paused by a person",
        "● running",
        "○ nothing to do",
    ):
        assert words in text
    gates = {LOOKS[name][0] for name in ("tokens", "provider_pause", "cap", "window_or_backoff")}
    assert not gates & {LOOKS[name][0] for name in ("no_worker", "workers_busy", "running", "paused", "idle")}
    assert len({style for _, style, _ in LOOKS.values()} - {LOOKS["idle"][1]}) >= 6


def test_the_head_sums_up() -> None:
    text = " ".join(plain(draw(picture(), "attention", 200, None))[:3])
    for part in ("2 workers seen, none free", "11 sources", "83 pending", "12 claims/s", "re-runs 5 (+2)", "429s 3", "42 s"):
        assert part in text
    assert "NO WORKER IS RUNNING" in draw(picture(consumers=0), "attention", 200, None)[0].plain


@pytest.mark.parametrize("width", [20, 24, 40, 58, 60, 72, 80, 100, 112, 130, 250])
@pytest.mark.parametrize("height", [3, 8, 24, 60])
def test_every_line_fits_and_the_reason_is_always_there(width: int, height: int) -> None:
    odd = [row("数据源" * 30, "ready", "no_worker", pending=1), *ROWS]
    lines = draw(picture(odd), "attention", width, height, foot="q quit")
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
    if height >= 24:
        assert any("▲ ready" in line.plain for line in lines)
        assert lines[-1].plain == "q quit"


def test_what_finds_no_room_is_summed_up() -> None:
    lines = plain(draw(picture([row(f"s{i}", "ready", "no_worker", pending=2) for i in range(10_000)]), "attention", 80, 24))
    listed = sum("no worker is running" in line for line in lines)
    assert f"and {10_000 - listed:,} more: {2 * (10_000 - listed):,} pending" in lines[-1]


def test_a_pipe_gets_every_source_uncut() -> None:
    long = "deep/" * 50
    lines = plain(draw(picture([row(long, "waiting", "tokens", until_ms=103_000), *ROWS]), "name", None, None))
    assert any(line.startswith(f"{long}  ◷ waits for tokens, 3 s") for line in lines)


def test_old_figures_are_never_shown_as_new() -> None:
    lines = draw(picture(), "attention", 100, 24, said="Connection refused", old="14 s")
    text = "\n".join(plain(lines))
    assert "THE BUS DOES NOT ANSWER: these figures are 14 s old" in lines[0].plain and "Connection refused" in lines[1].plain
    assert "bus answers" not in text and "– claims/s" in text
    assert plain(nothing_yet("Connection refused", 40))[0].strip() == "THE BUS DOES NOT ANSWER"


def test_silence_is_a_failure_long_before_a_time_limit() -> None:
    seen = Seen(picture(), 1_000.0, 0.01)
    assert seen.failing(2.0, 1_002.0) == ""
    assert seen.failing(2.0, 1_007.0) == "no word for 7 s"
    assert seen.failing(60.0, 1_100.0) == "", "nobody was asked meanwhile"
    assert Seen(picture(), 1_000.0, 0.01, "refused").failing(2.0, 1_001.0) == "refused"
    assert Seen(picture(), 1_000.0, 0.5).next_s(2.0) == 5.0, "looking takes a tenth of the time at most"


def test_shares_of_what_was_waited_for() -> None:
    before = replace(IDLE, waited_ms=NOTHING, now_ms=0)
    assert faded_in({}, None, before) == {}
    now = replace(before, now_ms=10_000, waited_ms={**NOTHING, "tokens": 2_500, "cap": 5_000})
    shares = faded_in({}, before, now)
    assert (shares["tokens"], shares["cap"], shares["no_worker"]) == (0.25, 0.5, 0.0)
    assert bar(Row(now, "s", None, shares)).plain == "ttcccc··"
    under_way = replace(now, now_ms=20_000, reason="provider_pause", state="waiting")
    later = faded_in(shares, now, under_way)
    assert later["provider_pause"] > 0.2 and sum(later.values()) <= 1
    ended = replace(under_way, now_ms=30_000, reason="", waited_ms={**now.waited_ms, "provider_pause": 500_000})
    assert sum(faded_in(later, under_way, ended).values()) <= 1, "a wait that ended counts for no more than the span looked at"
    flowing = replace(now, now_ms=20_000, state="ready", reason="workers_busy", claimed=5)
    assert faded_in({}, now, flowing)["no_worker"] == 0


def test_bars_have_letters_for_everything_counted() -> None:
    assert set(BAR) == set(WAITED)
    assert len({letter for letter, _ in BAR.values()}) == len(BAR)
    assert bar(Row(IDLE, "s", None, dict.fromkeys(WAITED, 0.2))).cell_len == 8


@pytest.mark.parametrize(("count", "shown"), [(0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (4_500_000, "4.5M")])
def test_compact(count: float, shown: str) -> None:
    assert compact(count) == shown
