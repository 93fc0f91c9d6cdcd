"""What a sink promises. The built-in index needs none: the catalog writes it in the same transaction as the version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sourcebus.model import JsonObject, Outcome


class Sink(Protocol):
    """A place outside of sourcebus where documents go too.

    `write` gets outcomes in order and returns when the place has taken them; any exception means that the same outcomes
    will come again, perhaps with others. So it is idempotent by (source id, object reference, version): the second time
    changes nothing. A sink looks only at outcomes for which `concerns` is true.
    """

    def write(self, outcomes: Sequence[Outcome]) -> None: ...


def concerns(outcome: Outcome) -> bool:
    """Whether the outcome changes what a reader of the documents sees (indexed, deleted, unreadable)."""
    return outcome.what in ("indexed", "deleted", "unreadable")


def as_json(outcome: Outcome) -> JsonObject:
    """The outcome for another program. `documents` is what the object consists of now: [] where it is gone or unreadable."""
    return {
        "source_id": outcome.source_id,
        "object_ref": outcome.object_ref,
        "version": outcome.version,
        "what": outcome.what,
        "fence": outcome.fence,
        "at_ms": outcome.at_ms,
        "documents": [
            {
                "part": document.part,
                "title": document.title,
                "text": document.text,
                "media_type": document.media_type,
                "metadata": dict(document.metadata),
            }
            for document in (outcome.documents if outcome.what == "indexed" else ())
        ],
    }
