"""The machines must bite: each of these small faults, planted in the scripts, is caught."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.properties.mutants import MUTANTS, Mutant
from tests.properties.running import run


def test_every_promise_has_a_mutant():
    assert {mutant.promise for mutant in MUTANTS} == set(range(1, 13))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.promise}: {mutant.name}")
def test_a_planted_fault_is_caught(mutant: Mutant, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    mutant.plant(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017  # any failure will do: also a script error or a wait without end
        run(mutant.machine, redis, examples=150, shrink=False)
