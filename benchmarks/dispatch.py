"""Dispatch of events whose work is nothing: ours, claimed in slices from the bus, beside nine queues that carry a job each.

Two worker processes, the same server, one system after the other, several times (`benchmarks.turns`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks import turns
from benchmarks.processes import Died
from benchmarks.progress import console, step
from benchmarks.result import Cell, Goal, Result, Table, number
from benchmarks.roster import BULLMQ, CELERY, PEERS, QUEUES
from benchmarks.timing import median
from benchmarks.turns import OURS, Turn

SOURCES = 400
BULLMQ_TIMES, QUEUE_TIMES, CELERY_TIMES = 2.0, 5.0, 40.0


def run(quick: bool) -> Result:
    rounds, ours_count = (3, 20_000) if quick else (5, 100_000)
    absent = {peer.name: f"{peer.name} is not installed: {why}" for peer in PEERS if (why := peer.missing())}
    here = [peer for peer in PEERS if peer.name not in absent]
    counts = {OURS: ours_count} | {peer.name: peer.quick_jobs if quick else peer.jobs for peer in here}
    systems: list[tuple[str, Callable[[], Turn]]] = [(OURS, lambda: turns.ours(ours_count, SOURCES))]
    systems += [(peer.name, lambda peer=peer: turns.theirs(peer, counts[peer.name], SOURCES)) for peer in here]
    runs: dict[str, list[Turn]] = {name: [] for name, _ in systems}
    for at in range(rounds):
        with step(f"dispatch, round {at + 1} of {rounds}", len(systems)) as shown:
            for name, turn in systems if at % 2 == 0 else reversed(systems):
                if name not in absent:
                    try:
                        runs[name].append(turn())
                    except (Died, TimeoutError) as error:  # a peer that breaks must not cost us the others' numbers
                        if name == OURS:
                            raise
                        console.print(f"  {name} is left out: {error}", style="yellow", markup=False)
                        absent[name] = f"{name} broke in round {at + 1}"
                shown.advance()
    return _result({name: done for name, done in runs.items() if name not in absent}, counts, absent)


def _result(runs: dict[str, list[Turn]], counts: dict[str, int], absent: dict[str, str]) -> Result:
    consumed = {name: [one.consumed for one in done] for name, done in runs.items()}
    columns = ["system", "version", "events", "one by one /s", "by 100 /s", "consumed /s", "lowest – highest", "ours ×"]
    columns += ["bytes each", "server µs each"]
    ours = median(consumed[OURS])
    blank: list[Cell] = [None] * (len(columns) - 1)
    rows: list[list[Cell]] = [_row(name, runs[name], counts[name], ours) for name in runs]
    rows += [[f"{name} (not measured)", *blank] for name in absent]
    return Result(
        "dispatch",
        f"Dispatch of no-op events, {SOURCES} sources, two worker processes",
        _goals({name: median(values) for name, values in consumed.items()}, absent),
        [Table(f"Events per second, medians of {len(runs[OURS])} interleaved rounds", columns, rows)],
        [
            "Each on a server of its own on a Unix socket, without persistence. Ours keeps fair order, deduplicates, counts "
            "tokens and holds a lease for every event; the peers do none of that here: what they can do is in `semantics`.",
            "Ours runs in Celery's prefork pool with two processes and claims up to 64 at once, as by default.",
            *(f"{peer.name}: {peer.note}." for peer in PEERS),
            *(f"{why}." for why in absent.values()),
            "Each gets as many events as make a run of seconds; a rate is a rate.",
            "*Bytes each* is the growth of the server's used memory by enqueueing, per waiting event, its own 40 bytes or so "
            "and its share of the invitations included. *Server µs each*: its processor time while they were consumed.",
        ],
        {"consumed": consumed},
    )


def _row(name: str, done: list[Turn], count: int, ours: float) -> list[Cell]:
    values = [one.consumed for one in done]
    bulks = [one.bulk for one in done if one.bulk is not None]
    return [
        name,
        done[0].version,
        count,
        round(median([one.single for one in done])),
        round(median(bulks)) if bulks else None,
        round(median(values)),
        f"{number(round(min(values)))} – {number(round(max(values)))}",
        None if name == OURS else ours / median(values),
        round(median([one.bytes_each for one in done])),
        round(median([one.server_us_each for one in done])),
    ]


def _goals(rates: dict[str, float], absent: dict[str, str]) -> list[Goal]:
    def times(what: str, limit: float, against: Sequence[str]) -> Goal:
        found = {name: rates[name] for name in against if name in rates}
        if not found:
            return Goal(what, "at least", limit, None, "×", "; ".join(sorted({absent[name] for name in against})))
        fastest = max(found, key=found.__getitem__)
        named = what if len(against) == 1 else f"{what} ({fastest} here)"
        return Goal(named, "at least", limit, rates[OURS] / found[fastest], "×")

    return [
        times("consumed per second, as a multiple of BullMQ", BULLMQ_TIMES, [BULLMQ]),
        times("consumed per second, as a multiple of the fastest of the other queues", QUEUE_TIMES, QUEUES),
        times("consumed per second, as a multiple of a Celery task per event", CELERY_TIMES, [CELERY]),
    ]
