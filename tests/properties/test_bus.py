"""The twelve promises of DESIGN §4, held against the model on the real scripts."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis

from tests.properties.core import Core
from tests.properties.driver import Driver

MACHINES = (Core,)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.__name__)
def test_the_bus_keeps_its_promises(redis: Redis, machine: type[Driver]):
    machine = type(machine.__name__, (machine,), {"redis": redis})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=200,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )
    print(Driver.steps)
