"""The twelve promises of DESIGN §4, held against the model on the real scripts. Which machine shows which: docs/bus.md."""

from __future__ import annotations

import os
import time
from itertools import count, cycle
from random import SystemRandom

import pytest
from redis import Redis

from tests.properties.core import Core
from tests.properties.driver import Driver
from tests.properties.fairness import Fairness
from tests.properties.lanes import Lanes
from tests.properties.lifecycle import Lifecycle
from tests.properties.running import MACHINES, Machine, run

PLAN: dict[Machine, tuple[int, int, int]] = {
    Core: (120, 50, 4_800),
    Lanes: (80, 50, 3_200),
    Lifecycle: (55, 50, 2_000),
    Fairness: (8, 10, 40),
}
"""Machine → lives, most rules in each, and the rules that are run in all of them at the least."""


def test_ten_thousand_steps_are_planned():
    assert sum(least for _, _, least in PLAN.values()) >= 10_000
    assert set(PLAN) == set(MACHINES)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_the_bus_keeps_its_promises(machine: Machine, redis: Redis):
    examples, steps, least = PLAN[machine]
    ran = run(machine, redis, examples=examples, steps=steps)
    assert ran >= least, f"only {ran} rules were run"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_new_lives_for_some_minutes(redis: Redis, capsys: pytest.CaptureFixture[str]):
    """``SOAK_MINUTES`` says for how long: 10, or hours."""
    end = time.monotonic() + float(os.environ.get("SOAK_MINUTES", "10")) * 60
    before, said = Driver.steps.total(), time.monotonic()
    for number, machine in zip(count(SystemRandom().randrange(10**9)), cycle(MACHINES), strict=False):
        if time.monotonic() >= end:
            break
        run(machine, redis, number=number, examples=20 if machine is Fairness else 100)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            kept = Driver.steps.total() - before
            with capsys.disabled():  # a long run that says nothing looks hung
                print(f"\nproperties: {kept} steps kept every promise, now at seed {number}", flush=True)  # noqa: T201


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.skipif("PROPERTY_SEED" not in os.environ, reason="set PROPERTY_SEED to what a failure printed")
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_replay(machine: Machine, redis: Redis):
    number, examples, steps = map(int, os.environ["PROPERTY_SEED"].split(":"))
    run(machine, redis, number=number, examples=examples, steps=steps, shrink=True)
