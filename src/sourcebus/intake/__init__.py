"""The doors where signals enter: HTTP events, webhooks, watches, polls, manual refreshes. All end in `Intake.accept`."""

from sourcebus.intake.accept import Intake, Refresh
from sourcebus.intake.batcher import Parcel
from sourcebus.intake.hooks import Hook, Hooks
from sourcebus.intake.housekeeping import Housekeeping
from sourcebus.intake.sources import Sources
from sourcebus.intake.subscriptions import Subscriptions, hook_url
from sourcebus.intake.watch import WatchRunner

__all__ = [
    "Hook",
    "Hooks",
    "Housekeeping",
    "Intake",
    "Parcel",
    "Refresh",
    "Sources",
    "Subscriptions",
    "WatchRunner",
    "hook_url",
]
