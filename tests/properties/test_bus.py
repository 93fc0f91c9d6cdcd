"""DESIGN §4, promises 1 to 5 and 12, held against the model of `machine.py` on the real scripts."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis

from tests.properties.machine import BusMachine


def test_the_bus_keeps_its_promises(redis: Redis):
    machine = type("Machine", (BusMachine,), {"redis": redis})
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
