"""The machines must bite: each of these small faults, planted in the scripts, is caught."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.properties.fairness import Fairness
from tests.properties.mutants import MUTANTS, Mutant
from tests.properties.running import run


def test_every_promise_has_a_mutant():
    assert {mutant.promise for mutant in MUTANTS} == set(range(1, 13))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.promise}: {mutant.name}")
def test_a_planted_fault_is_caught(mutant: Mutant, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    mutant.plant(monkeypatch)
    assert mutant.machine
    lives, steps = (60, 12) if mutant.machine is Fairness else (150, 50)
    with pytest.raises(AssertionError):  # nothing else: a mutant that does not compile proves nothing
        run(mutant.machine, redis, examples=lives, steps=steps)
