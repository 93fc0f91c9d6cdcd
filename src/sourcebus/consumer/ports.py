"""What the consumer needs of the catalog, the sinks and the connectors, as narrow protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sourcebus.connectors import Connector
from sourcebus.model import Outcome, Source


@dataclass(frozen=True)
class Bound:
    """A source together with the connector that was made from its configuration."""

    source: Source
    connector: Connector


class Bindings(Protocol):
    """Finds the connector of a source; UnknownSource when it has been removed."""

    def get(self, source_id: str) -> Bound: ...


class Sink(Protocol):
    """See `sourcebus.sinks`."""

    def write(self, outcomes: Sequence[Outcome]) -> None: ...
