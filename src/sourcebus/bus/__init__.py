"""The event bus: dedup window, fair order, token buckets, leases, retries and dead letters, in Redis.

The promises are drawn up in docs/bus.md, the keys in `sourcebus.bus.keys`, the values in `sourcebus.bus.values`;
every transition is a Lua verb in ``lua/``, one file each.
"""

from sourcebus.bus.bus import MOST_EVENTS, MOST_LEASES, Bus
from sourcebus.bus.standing import COUNTED_AS, REASONS, WAITED, SourceStats
from sourcebus.bus.values import (
    Claimed,
    DeadLetter,
    Emitted,
    Heard,
    Peek,
    Refreshed,
    Settle,
    Settled,
    Ticked,
    Vitals,
)

__all__ = [
    "COUNTED_AS",
    "MOST_EVENTS",
    "MOST_LEASES",
    "REASONS",
    "WAITED",
    "Bus",
    "Claimed",
    "DeadLetter",
    "Emitted",
    "Heard",
    "Peek",
    "Refreshed",
    "Settle",
    "Settled",
    "SourceStats",
    "Ticked",
    "Vitals",
]
