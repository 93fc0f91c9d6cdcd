"""What the consumer needs of the connectors, as a narrow protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sourcebus.connectors import Connector
from sourcebus.model import Source


@dataclass(frozen=True)
class Bound:
    """A source together with the connector that was made from its configuration."""

    source: Source
    connector: Connector


class Bindings(Protocol):
    """Finds the connector of a source; UnknownSource when it has been removed."""

    def get(self, source_id: str) -> Bound: ...
