"""What happens to a lease: re-check → extract → write → record → acknowledge. Who goes next is the bus's business."""

from sourcebus.consumer.batch import Batch
from sourcebus.consumer.feed import Feed
from sourcebus.consumer.judgement import judge
from sourcebus.consumer.pace import Pace
from sourcebus.consumer.pipeline import Pipeline
from sourcebus.consumer.ports import Bindings, Bound
from sourcebus.consumer.scan import Scan
from sourcebus.consumer.shift import Shift, ShiftLimits, Work
from sourcebus.consumer.upkeep import SubscriptionUpkeep

__all__ = [
    "Batch",
    "Bindings",
    "Bound",
    "Feed",
    "Pace",
    "Pipeline",
    "Scan",
    "Shift",
    "ShiftLimits",
    "SubscriptionUpkeep",
    "Work",
    "judge",
]
