"""How fast a folder becomes searchable for the first time: ours, a plain loop into FTS5, and CocoIndex into a table.

Timed from being told to begin to the last document being there, with processes already up and files in the page cache:
ours from sending ``POST /v1/sources`` to a running `sourcebus up`; the loop from its first look at the folder to its last
commit; CocoIndex from the call of `update` to its last row.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peer as cocoindex
from benchmarks.corpus import Corpus, copy_to
from benchmarks.instance import up
from benchmarks.processes import Running, scratch
from benchmarks.progress import Step, step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.timing import filled, median
from sourcebus.connectors import registry
from sourcebus.model import Change

_BATCH = 64
_LOOK_S = 0.02
_SHARE_OF_LOOP = 0.7
_TIMES_COCOINDEX = 2.0

OURS, LOOP, COCOINDEX = "sourcebus", "plain loop", "CocoIndex"


@dataclass(frozen=True)
class Timed:
    """How long it took, and the longest time in that in which nothing new appeared."""

    seconds: float
    longest_pause_s: float


def run(quick: bool) -> Result:
    files, rounds = (1_000, 1) if quick else (10_000, 3)
    systems: list[tuple[str, Callable[[Corpus, Path, Step], Timed]]] = [(OURS, _ours), (LOOP, _loop)]
    if cocoindex.is_there():
        systems.append((COCOINDEX, _cocoindex))
    times: dict[str, list[Timed]] = {name: [] for name, _measure in systems}
    with scratch() as folder:
        corpus = copy_to(folder / "files", files)
        for number in range(rounds):
            for name, measure in systems[number % len(systems) :] + systems[: number % len(systems)]:
                with step(f"{name}, {number + 1} of {rounds}", len(corpus.refs)) as shown:
                    timed = measure(corpus, folder / f"{name}-{number}", shown)
                times[name].append(timed)
    return _result(corpus, times)


def _ours(corpus: Corpus, work: Path, shown: Step) -> Timed:
    work.mkdir()
    (work / "empty").mkdir()
    with up(work / "data", work / "empty") as instance:
        began_ns = time.monotonic_ns()
        new = {"id": "files", "connector": "filesystem", "config": {"root": str(corpus.root)}}
        status, answer = instance.call("POST", "/v1/sources", new)
        if status != 201:
            raise RuntimeError(f"the folder was refused: {answer}")
        return _await(corpus, lambda: instance.searchable("files"), instance.process, shown, began_ns)


def _await(corpus: Corpus, count: Callable[[], int], process: Running, shown: Step, began_ns: int) -> Timed:
    found = filled(count, len(corpus.refs), check=process.check, show=shown.to, every_s=_LOOK_S)
    return Timed((found.ended_ns - began_ns) / 1e9, found.longest_pause_s)


def _loop(corpus: Corpus, work: Path, shown: Step) -> Timed:
    """One process, one thread: list, read and extract as ours does, insert 64 documents per transaction."""
    work.mkdir()
    database = sqlite3.connect(work / "loop.db", isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            "CREATE VIRTUAL TABLE documents USING"
            " fts5(path UNINDEXED, version UNINDEXED, title, text, tokenize='unicode61 remove_diacritics 2')"
        )
        began_ns = committed_ns = time.monotonic_ns()
        longest = 0
        connector = registry.create("filesystem", {"root": str(corpus.root)}, None)
        batch: list[tuple[str, str, str, str]] = []
        done = 0
        for item in connector.changes(None):
            if not isinstance(item, Change):
                continue
            extraction = connector.extract(item.object_ref)
            batch += [(item.object_ref, extraction.version, found.title, found.text) for found in extraction.documents]
            if len(batch) >= _BATCH:
                done += _insert(database, batch)
                longest, committed_ns = max(longest, time.monotonic_ns() - committed_ns), time.monotonic_ns()
                shown.to(done)
        _insert(database, batch)
        return Timed((time.monotonic_ns() - began_ns) / 1e9, longest / 1e9)
    finally:
        database.close()


def _insert(database: sqlite3.Connection, batch: list[tuple[str, str, str, str]]) -> int:
    count = len(batch)
    database.execute("BEGIN")
    database.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", batch)
    database.execute("COMMIT")
    batch.clear()
    return count


def _cocoindex(corpus: Corpus, work: Path, shown: Step) -> Timed:
    with cocoindex.live(corpus.root, work) as peer:
        return _await(corpus, peer.rows, peer.process, shown, peer.began_ns)


def _result(corpus: Corpus, times: dict[str, list[Timed]]) -> Result:
    rates = {name: [len(corpus.refs) / one.seconds for one in timed] for name, timed in times.items()}
    middle = {name: median(values) for name, values in rates.items()}
    peer = middle.get(COCOINDEX)
    goals = [
        Goal("rate, as a share of the plain loop's", "at least", _SHARE_OF_LOOP, middle[OURS] / middle[LOOP], "×"),
        Goal(
            "rate, as a multiple of CocoIndex's",
            "at least",
            _TIMES_COCOINDEX,
            middle[OURS] / peer if peer else None,
            "×",
            "" if peer else cocoindex.NOT_INSTALLED,
        ),
    ]
    rows: list[list[Cell]] = []
    for name, values in rates.items():
        pause = max(one.longest_pause_s for one in times[name])
        rows.append([name, round(middle[name]), round(min(values)), round(max(values)), f"{pause:.1f} s"])
    title = f"Files per second, median of {len(rates[OURS])} interleaved rounds"
    return Result(
        "first_index",
        f"First index of {len(corpus.refs):,} files",
        goals,
        [Table(title, ["system", "median", "lowest", "highest", "longest pause"], rows)],
        [
            "Ours runs from sending POST /v1/sources to a running `sourcebus up` until every file is in the index: the "
            "listing, the bus, two workers, the watch that begins meanwhile and its own listing are all in it.",
            "The plain loop is one Python process that lists, reads, decodes and hashes with the same connector and inserts "
            f"into an FTS5 table, {_BATCH} documents per transaction. It keeps no versions and no stories, and after a crash "
            "it would begin anew.",
            "The longest pause is the longest time in any round in which nothing new became searchable.",
            "CocoIndex runs from its `update` call to its last row; it fills a plain table, without a full-text index.",
        ],
        {"rates": rates, "corpus": corpus.facts},
    )
