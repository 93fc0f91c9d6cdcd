"""The judge must bite: each of these small faults, planted in the scripts, is caught in one of a few worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files

import pytest

from sourcebus.bus.scripts import build, verbs
from sourcebus.simulation import World, random_world, simulate
from tests.simulation.test_worlds import CRASHES, DYING, UNEQUAL, ZOMBIES


@dataclass(frozen=True)
class Mutant:
    """`old` in ``lua/_lib/<part>.lua`` becomes `new`; then one of these promises is seen broken in one of these worlds."""

    name: str
    part: str
    old: str
    new: str
    promises: frozenset[int]
    worlds: Callable[[], Iterable[World]] = lambda: map(random_world, range(4))


MUTANTS = (
    Mutant("acks are not fenced", "settle", "and r[R_AT] == fence then", "then", frozenset({2, 3}), lambda: [ZOMBIES]),
    Mutant(
        "a lost lease is forgotten instead of retried",
        "settle",
        "retry_or_bury(n, s, field, r, 'the lease was lost",
        "drop(field); (function() end)(n, s, field, r, 'the lease was lost",
        frozenset({1}),
        lambda: [CRASHES],
    ),
    Mutant("the cap is off by one", "place", "b[B_IN_FLIGHT] >= b[B_CAP]", "b[B_IN_FLIGHT] > b[B_CAP]", frozenset({4})),
    Mutant(
        "a provider's pause is not looked at",
        "place",
        "if b[B_PAUSE] > now then return",
        "if false then return",
        frozenset({6}),
    ),
    Mutant(
        "half of the tokens is charged", "place", "max(now, b[B_TAT]) + cost", "max(now, b[B_TAT]) + 0.5 * cost", frozenset({4})
    ),
    Mutant("a held source is served", "place", "if s[S_PAUSED] ~= 0 then return nil end", "", frozenset({12})),
    Mutant(
        "a dead letter takes the newer change with it",
        "settle",
        "if r[X_DIRTY] == 0 then return drop(field) end",
        "if true then return drop(field) end",
        frozenset({1}),
        lambda: [DYING],
    ),
    Mutant(
        "a slot leaks when the work was slow",
        "settle",
        "b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - 1",
        "if service < 1000 then b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - 1 end",
        frozenset({1, 3, 4, 5}),
    ),
    Mutant(
        "worker time is not charged",
        "settle",
        "work(max(service, LEAST_MS)",
        "work(max(LEAST_MS, LEAST_MS)",
        frozenset({5}),
        lambda: [UNEQUAL],
    ),
    Mutant("time goes back with the server's", "core", "max(raw, m[M_CLOCK] + floor(passed / 2))", "raw", frozenset({12})),
    Mutant(
        "cooling records are never swept",
        "queue",
        "r[R_STATE] == COOLING and r[R_AT] <= now then",
        "r[R_STATE] == COOLING and r[R_AT] < 0 then",
        frozenset({12}),
    ),
)


def plant(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files("sourcebus.bus") / "lua"
    text = (folder / "_lib" / f"{mutant.part}.lua").read_text()
    assert mutant.old in text, f"the mutant {mutant.name!r} no longer applies: bring it up to date"
    library = {mutant.part: text.replace(mutant.old, mutant.new, 1)}
    for name in list(verbs()):
        monkeypatch.setitem(verbs(), name, build(name, (folder / f"{name}.lua").read_text(), library))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_seen(mutant: Mutant, url: str, monkeypatch: pytest.MonkeyPatch):
    plant(mutant, monkeypatch)
    broken = next((report.broken for report in (simulate(world, url) for world in mutant.worlds()) if not report.good), ())
    assert broken, "no world showed it"
    assert broken[0].promise in mutant.promises, broken
