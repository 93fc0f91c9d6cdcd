"""A deterministic world in virtual time around the bus's real scripts: docs/simulation.md.

`simulate` runs a `World` and answers a `Report`; `random_world` makes one of a seed; `sweep` is the cron job to compare with.
"""

from sourcebus.simulation.generate import random_world
from sourcebus.simulation.judge import Broken
from sourcebus.simulation.report import Freshness, Report, SourceReport
from sourcebus.simulation.run import simulate
from sourcebus.simulation.sweep import SweepReport, sweep
from sourcebus.simulation.truth import SimChange, schedule
from sourcebus.simulation.world import (
    Burst,
    ClockJump,
    Crash,
    Happening,
    Latency,
    Pause,
    Put,
    RedisRestart,
    RedisWipe,
    Refresh,
    Remove,
    SimSource,
    Stall,
    Webhooks,
    World,
)

__all__ = [
    "Broken",
    "Burst",
    "ClockJump",
    "Crash",
    "Freshness",
    "Happening",
    "Latency",
    "Pause",
    "Put",
    "RedisRestart",
    "RedisWipe",
    "Refresh",
    "Remove",
    "Report",
    "SimChange",
    "SimSource",
    "SourceReport",
    "Stall",
    "SweepReport",
    "Webhooks",
    "World",
    "random_world",
    "schedule",
    "simulate",
    "sweep",
]
