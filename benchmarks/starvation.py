"""One hot source and 200 quiet ones: how many claims pass until each of the 200 has had its turn. The bus alone."""

from __future__ import annotations

from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table
from sourcebus.bus import Bus
from sourcebus.model import SourceChanged
from sourcebus.testing import running_server

QUIET, WITHIN = 200, 250

_SERVICE_MS = 5.0
_HEAD_START = 500
"""So many claims the hot source has alone, before the quiet ones have anything."""


def run(quick: bool) -> Result:
    backlog = 5_000 if quick else 50_000
    rows: list[list[Cell]] = []
    worst = 0
    for batch in (1, 8, 64):
        for head_start in (0, _HEAD_START):
            last, hot = _last_turn(backlog, batch, head_start)
            worst = max(worst, last)
            rows.append([batch, head_start, last, hot])
    return Result(
        "starvation",
        f"One source with {backlog:,} pending events, {QUIET} sources with one each",
        [Goal(f"claims until all {QUIET} were served", "at most", WITHIN, float(worst))],
        [
            Table(
                "By the number claimed at once, and the claims that the big source had alone before",
                ["claimed at once", "alone before", "claims until all were served", "of these the big source's"],
                rows,
            )
        ],
        [f"Each claim is acknowledged with a service time of {_SERVICE_MS:g} ms, which is what the fair order charges."],
    )


def _last_turn(backlog: int, batch: int, head_start: int) -> tuple[int, int]:
    """The number of the claim that served the last quiet source, and how many of those before were the hot one's."""
    with running_server() as url, step(f"{backlog:,} pending, {batch} at once", backlog) as shown:
        bus = Bus.from_url(url)
        try:
            bus.register("hot")
            for number in range(QUIET):
                bus.register(f"quiet-{number}")
            for start in range(0, backlog, 250):
                bus.emit([SourceChanged("hot", f"object-{at}") for at in range(start, min(backlog, start + 250))])
                shown.advance(250)
            _serve(bus, batch, head_start)
            bus.emit([SourceChanged(f"quiet-{number}", "the only one") for number in range(QUIET)])
            return _count(bus, batch)
        finally:
            bus.close()


def _serve(bus: Bus, batch: int, claims: int) -> list[str]:
    """Claims and acknowledges; the source of each claim, in order."""
    served: list[str] = []
    while len(served) < claims:
        leases = bus.claim(min(batch, claims - len(served)), consumer="benchmark").leases
        if not leases:
            raise RuntimeError(f"nothing to claim after {len(served)} claims")
        bus.ack(leases, service_ms=[_SERVICE_MS] * len(leases))
        served += [lease.source_id for lease in leases]
    return served


def _count(bus: Bus, batch: int) -> tuple[int, int]:
    waiting = {f"quiet-{number}" for number in range(QUIET)}
    served: list[str] = []
    while waiting:
        new = _serve(bus, batch, batch)
        waiting -= set(new)
        served += new
        if len(served) > 50 * WITHIN:
            break
    last = max(at for at, source_id in enumerate(served) if source_id != "hot")
    return last + 1, served[: last + 1].count("hot")
