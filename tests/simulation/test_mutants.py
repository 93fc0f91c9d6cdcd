"""The judge must bite: each of these small faults, planted in the scripts, is seen in a small world."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files

import pytest

from sourcebus.bus.scripts import build, verbs
from sourcebus.model import Quota
from sourcebus.simulation import Burst, World, simulate
from tests.simulation.test_worlds import CALM, CRASHES, DOINGS, DYING, JUMPS, MINUTE, QUIET, STRICT, TENANTS, UNEQUAL, ZOMBIES


@dataclass(frozen=True)
class Mutant:
    """`old` in ``lua/_lib/<part>.lua`` becomes `new`; then one of these promises is seen broken in this world."""

    name: str
    part: str
    old: str
    new: str
    promises: frozenset[int]
    world: World


CAPPED = replace(QUIET, sources=(replace(CALM, quota=Quota(concurrency=1), bursts=(Burst(MINUTE, 20),)),))

MUTANTS = (
    Mutant("acks are not fenced", "settle", "and r[R_AT] == fence then", "then", frozenset({2, 3}), ZOMBIES),
    Mutant(
        "a lost lease is forgotten instead of retried",
        "settle",
        "retry_or_bury(n, s, field, r, 'the lease was lost",
        "drop(field); (function() end)(n, s, field, r, 'the lease was lost",
        frozenset({1}),
        CRASHES,
    ),
    Mutant("the cap is off by one", "place", "b[B_IN_FLIGHT] >= b[B_CAP]", "b[B_IN_FLIGHT] > b[B_CAP]", frozenset({4}), CAPPED),
    Mutant(
        "a provider's pause is not looked at",
        "place",
        "if b[B_PAUSE] > now then return",
        "if false then return",
        frozenset({6}),
        STRICT,
    ),
    Mutant(
        "half of the tokens is charged",
        "place",
        "max(now, b[B_TAT]) + cost",
        "max(now, b[B_TAT]) + 0.5 * cost",
        frozenset({4}),
        TENANTS,
    ),
    Mutant("a held source is served", "place", "if s[S_PAUSED] ~= 0 then return nil end", "", frozenset({12}), DOINGS),
    Mutant(
        "a dead letter takes the newer change with it",
        "settle",
        "if r[X_DIRTY] == 0 then return drop(field) end",
        "if true then return drop(field) end",
        frozenset({1}),
        DYING,
    ),
    Mutant(
        "a slot leaks when the work was slow",
        "settle",
        "b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - 1",
        "if service < 1000 then b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - 1 end",
        frozenset({1, 3, 4, 5}),
        CRASHES,
    ),
    Mutant(
        "worker time is not charged",
        "settle",
        "work(max(service, LEAST_MS)",
        "work(max(LEAST_MS, LEAST_MS)",
        frozenset({5}),
        UNEQUAL,
    ),
    Mutant(
        "time goes back with the server's", "core", "max(raw, m[M_CLOCK] + floor(passed / 2))", "raw", frozenset({12}), JUMPS
    ),
    Mutant(
        "cooling records are never swept",
        "queue",
        "r[R_STATE] == COOLING and r[R_AT] <= now then",
        "r[R_STATE] == COOLING and r[R_AT] < 0 then",
        frozenset({12}),
        QUIET,
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
    broken = simulate(mutant.world, url).broken
    assert broken, "nothing was seen"
    assert broken[0].promise in mutant.promises, broken
