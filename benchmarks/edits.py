"""From a change in a folder to seeing it in a search: ours, and CocoIndex keeping a SQLite table.

Both are up at the same time, each on its own copy of the same files. A change is made in one copy and waited for; then the
same change in the other. So both meet the same machine in the same minute, each while the other has nothing to do. Timed
from just before the system call that changes the file until a look sees it. Looks are 1 ms apart for both.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks import peer as cocoindex
from benchmarks.corpus import Corpus, copy_to, own_word
from benchmarks.instance import Instance, up
from benchmarks.peer import Peer
from benchmarks.processes import Running, scratch
from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.timing import NotSeen, filled, quantile, seen_ns

KINDS = ("edit", "create", "rename", "delete")
OURS, PEER = "sourcebus", "CocoIndex"

_SEED = 20_260_131
_SEEN_WITHIN_S = 30.0
_QUIET_S = 3.0
"""After the first index, so that nothing of it is still going on; the filesystem's dedup window is 1 s."""

P50_MS, P95_MS, _TIMES_COCOINDEX = 50.0, 150.0, 2.0


@dataclass(frozen=True)
class Edit:
    """One change: of the file `ref`, for a rename to `new`; it is seen by `word`."""

    kind: str
    ref: str
    word: str
    new: str = ""

    def apply(self, root: Path) -> None:
        path = root / self.ref
        match self.kind:
            case "edit":
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"# {self.word}\n")
            case "create":
                path.write_text(f"# a new file\n# {self.word}\n", "utf-8")
            case "rename":
                path.rename(root / self.new)
            case _:
                path.unlink()


class Side(Protocol):
    """One system with its copy of the files."""

    @property
    def root(self) -> Path: ...

    def sees(self, edit: Edit) -> bool: ...


@dataclass(frozen=True)
class Ours:
    root: Path
    instance: Instance

    def sees(self, edit: Edit) -> bool:
        """By a real search: the word is found in exactly the right file, or nowhere."""
        hits = self.instance.runtime.catalog.search(edit.word, limit=5)
        expected = {"delete": set[str](), "rename": {edit.new}}.get(edit.kind, {edit.ref})
        return {hit.object_ref for hit in hits} == expected


@dataclass(frozen=True)
class Theirs:
    root: Path
    peer: Peer

    def sees(self, edit: Edit) -> bool:
        """By the primary key of its table."""
        match edit.kind:
            case "delete":
                return self.peer.lacks(edit.ref)
            case "rename":
                return self.peer.has(edit.new, edit.word) and self.peer.lacks(edit.ref)
            case _:
                return self.peer.has(edit.ref, edit.word)


def run(quick: bool) -> Result:
    files, changes = (1_000, 40) if quick else (10_000, 200)
    with scratch() as folder, ExitStack() as stack:
        corpus = copy_to(folder / "files", files)
        sides: dict[str, Side] = {OURS: _start_ours(stack, corpus, folder / "ours")}
        if cocoindex.is_there():
            shutil.copytree(corpus.root, folder / "copy")
            sides[PEER] = _start_theirs(stack, corpus, folder / "copy", folder / "theirs")
        time.sleep(_QUIET_S)
        edits = _plan(corpus, changes)
        times, lost = _measure(sides, edits)
        _check_end(sides, edits)
    return _result(corpus, times, lost)


def _start_ours(stack: ExitStack, corpus: Corpus, data: Path) -> Ours:
    instance = stack.enter_context(up(data, corpus.root))
    _await_all("sourcebus: first index", corpus, lambda: instance.searchable(corpus.root.name), instance.process)
    return Ours(corpus.root, instance)


def _start_theirs(stack: ExitStack, corpus: Corpus, root: Path, work: Path) -> Theirs:
    peer = stack.enter_context(cocoindex.live(root, work))
    _await_all("CocoIndex: first index", corpus, peer.rows, peer.process)
    return Theirs(root, peer)


def _await_all(what: str, corpus: Corpus, count: Callable[[], int], process: Running) -> None:
    with step(what, len(corpus.refs)) as shown:
        filled(count, len(corpus.refs), check=process.check, show=shown.to, every_s=0.05)


def _plan(corpus: Corpus, changes: int) -> list[Edit]:
    """As many of each kind, in random order, no file twice; the same plan in every run."""
    chance = random.Random(_SEED)
    kinds = [KINDS[at % len(KINDS)] for at in range(changes)]
    chance.shuffle(kinds)
    refs = chance.sample(corpus.refs, changes)
    folders = sorted({ref.rpartition("/")[0] for ref in corpus.refs})
    edits: list[Edit] = []
    for at, (kind, ref) in enumerate(zip(kinds, refs, strict=True)):
        fresh = own_word(900_000 + at)
        elsewhere = f"{chance.choice(folders)}/{fresh}{Path(ref).suffix}"
        match kind:
            case "edit":
                edits.append(Edit(kind, ref, fresh))
            case "create":
                edits.append(Edit(kind, elsewhere, fresh))
            case "rename":
                edits.append(Edit(kind, ref, corpus.words[ref], elsewhere))
            case _:
                edits.append(Edit(kind, ref, corpus.words[ref]))
    return edits


def _measure(sides: dict[str, Side], edits: list[Edit]) -> tuple[dict[str, dict[str, list[float]]], dict[str, int]]:
    """Milliseconds by system and kind, and by system the changes that were never seen."""
    chance = random.Random(_SEED + 1)
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in sides}
    lost = dict.fromkeys(sides, 0)
    order = list(sides)
    with step("changes", len(edits)) as shown:
        for edit in edits:
            for name in order:
                side = sides[name]
                time.sleep(chance.uniform(0.03, 0.13))  # not in step with anybody's timer
                began_ns = time.monotonic_ns()
                edit.apply(side.root)
                try:
                    ended_ns = seen_ns(lambda side=side, edit=edit: side.sees(edit), within_s=_SEEN_WITHIN_S)
                except NotSeen:
                    lost[name] += 1
                else:
                    times[name][edit.kind].append((ended_ns - began_ns) / 1e6)
            order.reverse()
            shown.advance()
    return times, lost


def _check_end(sides: dict[str, Side], edits: list[Edit]) -> None:
    """The index holds exactly what is in the folder, and HTTP says the same as the search that was timed."""
    ours = sides[OURS]
    assert isinstance(ours, Ours)
    there = {path.relative_to(ours.root).as_posix() for path in ours.root.rglob("*") if path.is_file()}
    verified = ours.instance.runtime.desk.verify(ours.root.name)
    if not verified.ok or verified.checked != len(there):
        raise RuntimeError(f"the index differs from the folder: {verified}")
    created = next(edit for edit in edits if edit.kind == "create")
    if ours.instance.finds(created.word) != {created.ref}:
        raise RuntimeError(f"GET /v1/search does not find {created.ref}")
    theirs = sides.get(PEER)
    if isinstance(theirs, Theirs) and theirs.peer.paths() != there:
        raise RuntimeError("CocoIndex's table differs from the folder, so its times mean nothing")


def _all(times: dict[str, list[float]]) -> list[float]:
    return [value for values in times.values() for value in values]


def _result(corpus: Corpus, times: dict[str, dict[str, list[float]]], lost: dict[str, int]) -> Result:
    ours = _all(times[OURS])
    theirs = _all(times[PEER]) if PEER in times else []
    changes = len(ours) + lost[OURS]
    why = "" if theirs else cocoindex.NOT_INSTALLED
    goals = [
        Goal(f"p50 of {changes} changes", "at most", P50_MS, quantile(ours, 0.5), "ms"),
        Goal(f"p95 of {changes} changes", "at most", P95_MS, quantile(ours, 0.95), "ms"),
    ]
    for share in (0.5, 0.95):
        ratio = quantile(ours, share) / quantile(theirs, share) if theirs else None
        goals.append(Goal(f"p{share * 100:.0f}, as a multiple of CocoIndex's", "at most", _TIMES_COCOINDEX, ratio, "×", why))
    deletes = quantile(times[OURS]["delete"], 0.5) / quantile(ours, 0.5)
    goals.append(Goal("p50 of deletes, as a multiple of all changes'", "at most", 1.5, deletes, "×"))
    goals.append(Goal("changes never seen", "at most", 0, float(lost[OURS])))
    return Result(
        "edits",
        f"Change → searchable, in a folder of {len(corpus.refs):,} files",
        goals,
        [Table("Milliseconds until seen", ["system", "change", "n", "p50", "p95", "max", "never seen"], _rows(times, lost))],
        [
            "Each file changes once, so the 1 s dedup window of the filesystem connector never holds a change back; what a "
            "storm on one file does is the benchmark `storm`.",
            "Ours is seen through the catalog's full-text search (the call behind /v1/search), in exactly the right file; "
            "CocoIndex by the primary key of its table, which has no full-text index to keep.",
            "At the end the index was compared with the folder, file by file, and both held exactly its files.",
        ],
        {"times_ms": times, "corpus": corpus.facts},
    )


def _rows(times: dict[str, dict[str, list[float]]], lost: dict[str, int]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for name, kinds in times.items():
        groups: dict[str, Any] = {**kinds, "all": _all(kinds)}
        for kind, values in groups.items():
            if values:
                numbers = [round(quantile(values, 0.5), 1), round(quantile(values, 0.95), 1), round(max(values), 1)]
                rows.append([name, kind, len(values), *numbers, lost[name] if kind == "all" else None])
    return rows
