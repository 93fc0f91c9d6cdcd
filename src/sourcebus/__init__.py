"""sourcebus keeps a search or RAG index fresh: an event bus in front of your extractors, on Celery and Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sourcebus.model import Change, ChangeKind, Cursor, Document, Extraction, Lease, Quota, Signal, Source, SourceChanged

if TYPE_CHECKING:
    from sourcebus.bus import Bus
    from sourcebus.connectors import Connector, connector_from

__version__ = "0.1.0"

__all__ = [
    "Bus",
    "Change",
    "ChangeKind",
    "Connector",
    "Cursor",
    "Document",
    "Extraction",
    "Lease",
    "Quota",
    "Signal",
    "Source",
    "SourceChanged",
    "connector_from",
]

_LAZY = {"Bus": "sourcebus.bus", "Connector": "sourcebus.connectors", "connector_from": "sourcebus.connectors"}


def __getattr__(name: str) -> Any:
    """Rooms are imported when first asked for, so that values alone cost next to nothing."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
