"""The outside system that a connector is tested against: what it must let the suite do, and what it may."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import pytest

from sourcebus.connectors import Connector
from sourcebus.model import Delivery, Subscription
from sourcebus.testing.connector_suite.hook import Hook

NOT_APPLICABLE = "not applicable: "


def not_applicable(why: str) -> NoReturn:
    """Leave the running test out. `why` stands in the connector's table: what the source has not, or cannot show."""
    pytest.skip(NOT_APPLICABLE + why)


class SourceUnderTest(abc.ABC):
    """An outside system in a known state, empty at first, that the suite may change. Real, or as near as a test can have it.

    `connect`, `write` and `delete` are needed. Each other method is an ability: one that is not overridden leaves out the tests
    that need it, and says so in the connector's table. Override it with a call of `not_applicable` to say why.
    """

    window = False
    """True: the source only ever shows its newest objects (a feed), so that what it does not show may be there all the same.
    Its listings are then never complete, and of an object that it never showed nothing can be said."""

    @abc.abstractmethod
    def connect(self) -> Connector:
        """A new connector to this source."""

    @abc.abstractmethod
    def write(self, name: str, text: str) -> str:
        """Create or replace the object of that name (letters, of any alphabet, and digits) and return its `object_ref`."""

    @abc.abstractmethod
    def delete(self, ref: str) -> None:
        """Remove the object."""

    def rename(self, ref: str, name: str) -> str:
        """Give the object another name, its content as it is. Returns its reference now: the same, where that is an id."""
        del ref, name
        not_applicable("the test's source renames nothing")

    # faults; `mend` ends each

    def break_off(self) -> None:
        """Make the whole source unavailable, as an outage would."""
        not_applicable("the test's source has no outages")

    def break_half_way(self) -> None:
        """Answer the beginning of the next listing, which is of a dozen objects, and nothing after it."""
        not_applicable("the test's source does not fail half-way")

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        """Each form in which the provider says "wait", by name, and what begins it."""
        not_applicable("the source never says that it is asked too often")

    def revoke(self) -> None:
        """Take the credentials' permission to see anything."""
        not_applicable("the test's source revokes no credentials")

    def forbid(self, ref: str) -> None:
        """Take the permission to read this one object."""
        del ref
        not_applicable("the test's source has no permissions for single objects")

    def mend(self) -> None:  # noqa: B027 - belongs to the faults, which may all be left out
        """End the outage, the throttle, the lost permission; all objects are as before."""

    def expire_cursor(self, cursor: str | None) -> str | None:
        """Have the provider forget what it needs to go on from the cursor. Returns the cursor that it then does not take."""
        del cursor
        not_applicable("each listing is of everything: there is no cursor")

    # signals

    def listen(self, hook: Hook) -> None:
        """Have everything from now on announced to `hook`: as a person sets it up, or by `hook.subscribe()`."""
        del hook
        not_applicable("the test's source sends no deliveries")

    def settle(self, hook: Hook) -> None:  # noqa: B027 - belongs to listen(), which may be left out
        """Wait until what was written is announced."""

    def forged(self, delivery: Delivery) -> Sequence[Delivery]:
        """The delivery as somebody would forge it who does not know the secret."""
        return [replace(delivery, body=delivery.body + b" "), replace(delivery, headers={}, query={})]

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        """Deliveries, proven like the source's own, about what is not of this source: another repository, bucket, branch.
        Those that the hook has had already are in `Hook.ignored`."""
        del hook
        not_applicable("what is sent to this hook is of this source alone")

    def endings(self) -> Mapping[str, Callable[[Subscription], None]]:
        """How a subscription ends without our doing, by name: it expires, somebody removes it. None: all without expiry."""
        not_applicable("a person sets up the deliveries: there is no subscription")
