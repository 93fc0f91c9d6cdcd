"""When nothing is owed any more: is the index equal to the truth, and is nothing left behind?"""

from __future__ import annotations

from collections.abc import Mapping

from sourcebus.bus import Bus
from sourcebus.bus.store import Store
from sourcebus.simulation.judge import Judge, Key
from sourcebus.simulation.place import Place

_WHO_WORKS_HERE = ("con", "wt", "inv", "wake")
"""Keys that are not about sources; they expire."""

_ENOUGH_TICKS = 200


def judge_truth(judge: Judge, places: Mapping[str, Place], dead: set[Key]) -> None:
    """Promise 1 on ground truth: the index has the last version of every object, unless that is `dead`; or unless no signal
    told of it and nobody lists the source."""
    for source_id, place in places.items():
        if (
            not place.present or (source_id, "", True) in dead
        ):  # a listing that failed for good excuses what it would have found
            continue
        listed = place.source.poll_ms > 0 or place.source.reconcile_ms > 0
        for ref, (version, gone) in place.truth.objects.items():
            have = place.index.get(ref)
            same = (gone and have.gone) or (have.version, have.gone) == (version, gone)
            if same or (source_id, ref, False) in dead:
                continue
            item = judge.books.items.get((source_id, ref, False))
            if listed or (item and have.version < item.owed):
                judge.breaks(1, f"{source_id}/{ref} is at version {version}, the index at {have.version}: a change was lost")


def judge_leaks(judge: Judge, bus: Bus, store: Store) -> None:
    """Promise 12: with every window over and every source removed, nothing of them is left. A shared bucket may stay."""
    for source_id in judge.sources:
        bus.unregister(source_id)
    for _ in range(_ENOUGH_TICKS):
        bus.tick()
    shared = {source.quota.bucket for source in judge.sources.values()} - {None}
    left = {name: size for name, size in store.sizes().items() if size and name not in _WHO_WORKS_HERE}
    if sum(left.values()) > 2 * len(shared):
        judge.breaks(12, f"all sources are gone, and these members are left: {left}")
