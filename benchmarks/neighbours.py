"""What sources do to one another: a hot one to cold ones, slow ones to fast ones, a throttled one to all, equals to equals."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import cold, provider, slow
from benchmarks.cold import Cold, Loads
from benchmarks.provider import Calls
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.slow import Shares, Storm
from benchmarks.timing import median, quantile

WAIT_TIMES, FAST_SHARE, OTHERS_SHARE, JAIN = 1.1, 0.75, 0.95, 0.999

_DEFAULT_BATCH = 64


def run(quick: bool) -> Result:
    backlog, fifo_backlog = (5_000, 500) if quick else (100_000, 2_000)
    rounds = 2 if quick else 5
    by_batch = {batch: cold.ours(rounds, 2 if quick else 8, backlog, batch) for batch in ((64, 1) if quick else (64, 8, 1))}
    fifo = cold.celery_fifo(rounds, fifo_backlog)
    shares = slow.slow_beside_fast(1 if quick else 5, 7 if quick else 13)
    storm = slow.storm_beside_others(rounds, 1 if quick else 4)
    calls = provider.storm(2 if quick else 10)
    claims = slow.even_shares(200 if quick else 500)
    return Result(
        "neighbours",
        f"Neighbours: {backlog:,} pending beside cold sources, slow beside fast, a 429 storm, equals",
        [
            *_cold_goals(by_batch[_DEFAULT_BATCH]),
            Goal(
                f"fast sources' throughput beside {slow.SLOW} slow ones, of that without",
                "at least",
                FAST_SHARE,
                median([beside / alone for beside, alone in zip(shares.beside, shares.alone, strict=True)]),
                "×",
            ),
            *_storm_goals(storm, calls),
            Goal(f"Jain index of {slow.EQUAL} equal sources", "at least", JAIN, slow.jain(claims)),
        ],
        [
            _cold_table(by_batch, fifo, backlog, fifo_backlog),
            _slow_table(shares),
            _storm_table(storm, calls),
            _equal_table(claims),
        ],
        _notes(),
        {
            "burst_claimed_ms": {
                "without the hot source": _thinned(by_batch[_DEFAULT_BATCH].alone.burst.claimed_ms),
                "beside it": _thinned(by_batch[_DEFAULT_BATCH].beside.burst.claimed_ms),
            },
        },
    )


def _cold_goals(default: Cold) -> list[Goal]:
    what = "beside a hot one, as a multiple of without it"
    return [
        Goal(f"p95 wait of bursts on {cold.SOURCES} cold sources {what}", "at most", WAIT_TIMES, default.times(_burst), "×"),
        Goal(f"p95 wait of single events of cold sources {what}", "at most", WAIT_TIMES, default.times(_single), "×"),
    ]


def _burst(loads: Loads) -> list[float]:
    return loads.burst.claimed_ms


def _single(loads: Loads) -> list[float]:
    return loads.single.claimed_ms


def _thinned(values: list[float]) -> list[float]:
    """200 quantiles: as much as a plot shows."""
    return [quantile(values, at / 200) for at in range(1, 201)]


def _storm_goals(storm: Storm, calls: Calls) -> list[Goal]:
    share = median([beside / alone for beside, alone in zip(storm.beside, storm.alone, strict=True)])
    return [
        Goal("others' throughput during a 429 storm, of that without", "at least", OTHERS_SHARE, share, "×"),
        Goal("claims of the throttled source during its pauses", "at most", 0, float(storm.claimed_in)),
        Goal("calls to a throttled provider during its pauses, nobody else having work", "at most", 0, float(calls.in_pause)),
    ]


def _cold_table(by_batch: dict[int, Cold], fifo: Cold, backlog: int, fifo_backlog: int) -> Table:
    rows: list[list[Cell]] = []
    loads: list[tuple[str, Callable[[Loads], list[float]]]] = [
        ("burst, until claimed", _burst),
        ("burst, until begun", lambda loads: loads.burst.begun_ms),
        ("single events, until claimed", _single),
        ("single events, until begun", lambda loads: loads.single.begun_ms),
    ]
    for batch, found in by_batch.items():
        rows += [_cold_row(f"sourcebus, claims of {batch}", name, backlog, found, load) for name, load in loads]
    rows.append(_cold_row("Celery, one queue", "burst, until begun", fifo_backlog, fifo, lambda loads: loads.burst.begun_ms))
    columns = ["system", "cold events", "hot backlog", "n", "p50 alone", "p95 alone", "p50 beside", "p95 beside", "p95 ×"]
    return Table(
        f"Milliseconds that cold events wait, two worker processes, {cold.CALL_MS:g} ms of work per event", columns, rows
    )


def _cold_row(system: str, name: str, backlog: int, found: Cold, load: Callable[[Loads], list[float]]) -> list[Cell]:
    waits = [round(quantile(load(loads), share), 1) for loads in (found.alone, found.beside) for share in (0.5, 0.95)]
    return [system, name, backlog, len(load(found.beside)), *waits, round(found.times(load), 2)]


def _slow_table(shares: Shares) -> Table:
    def line(name: str, values: list[float]) -> list[Cell]:
        return [name, *(round(value, 1) for value in (median(values), min(values), max(values)))]

    return Table(
        f"Calls per second on {slow.SLOTS} slots: {slow.FAST} × {slow.FAST_MS:g} ms and {slow.SLOW} × {slow.SLOW_MS:g} ms",
        ["", "median", "lowest", "highest"],
        [
            line("fast ones, alone", shares.alone),
            line("fast ones, beside the slow ones", shares.beside),
            line("slow ones, meanwhile", shares.slow_calls),
        ],
    )


def _storm_table(storm: Storm, calls: Calls) -> Table:
    return Table(
        f"A source that answers 429 and asks to wait {slow.STORM_PAUSE_MS:g} ms (alone: {provider.PAUSE_MS} ms)",
        ["", "others /s without", "others /s with", "pauses", "calls answered 429", "claimed in a pause", "called in a pause"],
        [
            [
                "beside others, calls that only sleep",
                round(median(storm.alone)),
                round(median(storm.beside)),
                storm.pauses,
                storm.calls,
                storm.claimed_in,
                storm.begun_in,
            ],
            ["alone, the whole product", None, None, calls.pauses, calls.answered_429, None, calls.in_pause],
        ],
    )


def _equal_table(claims: list[int]) -> Table:
    return Table(
        f"Claims of each of {slow.EQUAL} equal sources when three quarters of all were done",
        ["fewest", "mean", "most", "Jain index"],
        [[min(claims), round(sum(claims) / len(claims), 1), max(claims), f"{slow.jain(claims):.6f}"]],
    )


def _notes() -> list[str]:
    return [
        "Slots are the real `Shift` in processes (cold, storm, equals: two with one slot each; slow beside fast: two with four "
        "threads each) whose calls sleep. What is compared takes turns within one run: the hot, slow or throttled source is "
        "paused and resumed.",
        f"Cold bursts are one event on each of {cold.SOURCES} sources in one emit; single ones come 5 to 30 ms after the one "
        "before was begun, when slots are idle but for the hot source. Goals are on waits until claimed, with claims of 64.",
        "A slot is not interrupted: what it has claimed comes first, up to 20 ms of work by default (`claim_ms`). Against "
        "an idle system that is many times the wait; smaller claims show how much of it.",
        "Celery's queue is first in, first out, so its wait grows with what is before: it has a smaller hot backlog, and "
        "would take in proportion longer behind as much as ours has.",
        f"Slow beside fast runs at {slow.SCALE} times the speed: the issue is 10 s and 50 ms per call; the limits of the "
        "shifts are scaled alike.",
        f"In a pause: later than {provider.GRACE_MS:g} ms after the first 429 of that pause, and before its end. The "
        "whole product means runtime, pipeline and catalog with a connector that answers 429.",
    ]
