"""Runs a machine by a seed. One that fails says how to see it again."""

from __future__ import annotations

from collections import Counter
from typing import cast

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis

from tests.properties.core import Core
from tests.properties.driver import Driver
from tests.properties.fairness import Fairness
from tests.properties.lanes import Lanes
from tests.properties.lifecycle import Lifecycle

Machine = type[Core] | type[Lanes] | type[Lifecycle] | type[Fairness]
MACHINES: tuple[Machine, ...] = (Core, Lanes, Lifecycle, Fairness)
SEED = 1
"""Of the default suite, which does the same at every run."""


def run(machine: Machine, redis: Redis, *, number: int = SEED, examples: int, steps: int = 50, shrink: bool = False) -> int:
    """Runs `examples` lives of a bus of at most `steps` rules each. Answers how many rules were run. To `shrink` what failed
    takes minutes, so a failure says how to see it again, made small."""
    bound = cast("Machine", type(machine.__name__, (machine,), {"redis": redis}))
    before = Counter(Driver.steps)
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    run_settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    try:
        run_state_machine_as_test(seed(number)(bound), settings=run_settings)
    except Exception as fault:
        again = f"PROPERTY_SEED={number}:{examples}:{steps}"
        fault.add_note(
            f"again, made small: {again} python -m pytest -m soak tests/properties -k 'replay and {machine.__name__}'"
        )
        raise
    return (Driver.steps - before)[machine.__name__]
