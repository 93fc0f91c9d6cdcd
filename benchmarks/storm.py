"""A storm: 10,000 events on 100 files that really change meanwhile, through HTTP, with the real workers.

The folder is watched too, so the bus gets the watcher's own signals on top of the 10,000.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import own_word
from benchmarks.instance import Instance, up
from benchmarks.processes import scratch
from benchmarks.progress import step
from benchmarks.result import Goal, Result, Table
from benchmarks.timing import seen_ns

OBJECTS, ROUNDS, STORM_S = 100, 100, 5.0

_SOURCE = "storm"
_GRACE_S = 20.0


@dataclass(frozen=True)
class _Storm:
    """What the storm did: how long it took to send, and when (monotonic) the last file was written."""

    sent_s: float
    last_write_ns: int


def run(quick: bool) -> Result:
    window_ms = 12_000 if quick else 30_000
    with scratch() as folder:
        root, empty = folder / "files", folder / "empty"
        root.mkdir()
        empty.mkdir()
        with up(folder / "data", empty) as instance:
            _begin(instance, root, window_ms)
            storm = _blow(instance, root)
            with step("waiting for the last state of each", OBJECTS) as shown:
                found = 0

                def all_found() -> bool:
                    nonlocal found
                    while found < OBJECTS and instance.runtime.catalog.search(_word(found, ROUNDS - 1), source_id=_SOURCE):
                        found += 1
                        shown.to(found)
                    return found == OBJECTS

                seen = seen_ns(all_found, within_s=window_ms / 1000 + _GRACE_S, every_s=0.02)
            _await_idle(instance, window_ms)
            extractions = [_extractions(instance, _name(at)) for at in range(OBJECTS)]
            (stats,) = instance.runtime.bus.stats([_SOURCE])
            clean = instance.runtime.desk.verify(_SOURCE).ok
    signals = stats.accepted if stats else 0
    most = max(extractions)
    return Result(
        "storm",
        f"A storm of {OBJECTS * ROUNDS:,} events on {OBJECTS} files in {STORM_S:.0f} s",
        [
            Goal("most extractions of one file", "at most", 2, float(most)),
            Goal("files whose last state is not indexed", "at most", 0, 0.0 if clean else float(OBJECTS)),
        ],
        [
            Table(
                "What became of it",
                [
                    "signals stored",
                    "of these by HTTP",
                    "sent within",
                    "extractions",
                    "most of one file",
                    "last state found after",
                ],
                [
                    [
                        signals,
                        OBJECTS * ROUNDS,
                        f"{storm.sent_s:.1f} s",
                        sum(extractions),
                        most,
                        f"{(seen - storm.last_write_ns) / 1e9:.1f} s",
                    ]
                ],
            )
        ],
        [
            f"The dedup window is {window_ms / 1000:g} s here. 30 s is the default; local folders, which cost nothing to read, "
            "have 1 s unless told otherwise. One extraction comes at its beginning, one at its end, for the last state; the "
            "time to the last state is that window.",
            "Every file is rewritten before each of its 100 events. The watcher reports the same writes on its own. Sending "
            "takes longer than 5 s where the machine cannot write that fast.",
        ],
        {"extractions": extractions},
    )


def _name(at: int) -> str:
    return f"file-{at:03d}.txt"


def _word(at: int, number: int) -> str:
    return own_word(at * 1_000 + number)


def _begin(instance: Instance, root: Path, window_ms: int) -> None:
    new = {"id": _SOURCE, "connector": "filesystem", "config": {"root": str(root)}, "window_ms": window_ms}
    status, answer = instance.call("POST", "/v1/sources", new)
    if status != 201:
        raise RuntimeError(f"the folder was refused: {answer}")
    _wait(lambda: "last_scan_at_ms" in instance.runtime.catalog.state(_SOURCE), 30)


def _blow(instance: Instance, root: Path) -> _Storm:
    began, last_write_ns = time.monotonic(), 0
    with step("storm", OBJECTS * ROUNDS) as shown:
        for number in range(ROUNDS):
            time.sleep(max(0.0, began + number * STORM_S / ROUNDS - time.monotonic()))
            for at in range(OBJECTS):
                (root / _name(at)).write_text(f"state {number} of {_name(at)}: {_word(at, number)}\n", "utf-8")
            last_write_ns = time.monotonic_ns()
            events = [{"source_id": _SOURCE, "object_ref": _name(at), "change_kind": "updated"} for at in range(OBJECTS)]
            status, answer = instance.call("POST", "/v1/events", events)
            if status != 202:
                raise RuntimeError(f"the events were refused: {answer}")
            shown.advance(OBJECTS)
    return _Storm(time.monotonic() - began, last_write_ns)


def _await_idle(instance: Instance, window_ms: int) -> None:
    """Until nothing is pending or running, so that a third extraction, if there were one, would be counted."""

    def idle() -> bool:
        (stats,) = instance.runtime.bus.stats([_SOURCE])
        return stats is not None and not stats.pending and not stats.in_flight

    _wait(idle, window_ms / 1000 + _GRACE_S)


def _wait(condition: Callable[[], bool], within_s: float) -> None:
    seen_ns(condition, within_s=within_s, every_s=0.05)


def _extractions(instance: Instance, ref: str) -> int:
    """How often the file was extracted, by its story (which keeps 20 lines: more than are hoped for)."""
    return sum(line.what == "indexed" for line in instance.runtime.catalog.story(_SOURCE, ref))
