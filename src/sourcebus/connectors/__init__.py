"""Talking to one kind of source each. See `base` for what a connector is, `registry` for how it is found by name."""

from sourcebus.connectors.adapters import celery_task_connector, connector_from, extract_with_task
from sourcebus.connectors.base import Batched, Connector, Costly, Hears, Metered, Recommended, Subscribes, Watches
from sourcebus.connectors.registry import available, create, register

__all__ = [
    "Batched",
    "Connector",
    "Costly",
    "Hears",
    "Metered",
    "Recommended",
    "Subscribes",
    "Watches",
    "available",
    "celery_task_connector",
    "connector_from",
    "create",
    "extract_with_task",
    "register",
]
