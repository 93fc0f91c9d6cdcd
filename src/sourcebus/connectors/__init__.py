"""Talking to one kind of source each. See `base` for what a connector is, `registry` for how it is found by name."""

from sourcebus.connectors.adapters import celery_task_connector, connector_from, connector_from_loader, extract_with_task
from sourcebus.connectors.base import (
    Batched,
    Connector,
    Costly,
    Depot,
    Hears,
    Metered,
    Recommended,
    Subscribes,
    UsesDepot,
    Watches,
)
from sourcebus.connectors.registry import available, create, register

__all__ = [
    "Batched",
    "Connector",
    "Costly",
    "Depot",
    "Hears",
    "Metered",
    "Recommended",
    "Subscribes",
    "UsesDepot",
    "Watches",
    "available",
    "celery_task_connector",
    "connector_from",
    "connector_from_loader",
    "create",
    "extract_with_task",
    "register",
]
