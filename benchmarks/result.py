"""What a benchmark answers with, and how that is kept as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Cell = str | int | float | None


@dataclass(frozen=True)
class Goal:
    """One number with what it must reach. `measured` None: it could not be measured here, `why` says the reason."""

    what: str
    sense: Literal["at most", "at least"]
    limit: float
    measured: float | None
    unit: str = ""
    why: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.limit if self.sense == "at most" else self.measured >= self.limit

    @property
    def margin(self) -> float | None:
        """How many times better than asked: 1 is just met, below 1 is a miss."""
        if self.measured is None:
            return None
        if self.sense == "at least":
            return self.measured / self.limit
        return self.limit / self.measured if self.measured else None


@dataclass(frozen=True)
class Table:
    """Numbers beside the goals, for the reader."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Result:
    """What one benchmark found. `raw` holds what the plots are drawn from; `notes` what a reader must know."""

    name: str
    title: str
    goals: list[Goal]
    tables: list[Table] = field(default_factory=list[Table])
    notes: list[str] = field(default_factory=list[str])
    raw: dict[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Result:
        return cls(
            name=stored["name"],
            title=stored["title"],
            goals=[Goal(**goal) for goal in stored["goals"]],
            tables=[Table(**table) for table in stored["tables"]],
            notes=stored["notes"],
            raw=stored["raw"],
        )


def number(value: float | int, unit: str = "") -> str:
    """A number as a person reads it: three significant digits, thousands apart."""
    if isinstance(value, int) or abs(value) >= 100:
        text = f"{value:,.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2f}"
    return f"{text} {unit}" if unit else text
