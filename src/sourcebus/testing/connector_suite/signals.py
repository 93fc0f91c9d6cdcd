"""Deliveries as a network makes of them: lost, doubled, late, in any order, in thousands; forged, or meant for others.

Each test ends with the index: every object at its last version, nothing deleted that exists.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from sourcebus.connectors import Connector, Hears, Subscribes
from sourcebus.errors import InvalidInput, SubscriptionLost, Unverified
from sourcebus.model import Change, Delivery, Heard
from sourcebus.testing.connector_suite.hook import Hook
from sourcebus.testing.connector_suite.listing import Index
from sourcebus.testing.connector_suite.source import SourceUnderTest, not_applicable

DAY_MS = 86_400_000
SKEW_MS = 120_000
BURST = 500


@dataclass
class Told:
    """What somebody did to the source (`texts`: what is there now, by reference) and the deliveries that told of it, to an
    index that knew the source before."""

    hook: Hook
    index: Index
    texts: dict[str, str]

    @property
    def deliveries(self) -> list[Delivery]:
        return list(self.hook.deliveries)

    def take(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self.index.take(self.hook.hear(delivery).changes)

    def check(self) -> None:
        """Every object at its last version, and no other there."""
        assert set(self.index.texts) == set(self.texts)
        for ref, text in self.texts.items():
            assert text in self.index.texts[ref], ref


def change_everything(source: SourceUnderTest, texts: dict[str, str], turn: str) -> None:
    """Two objects are new, one has another text, one is gone."""
    for name in (f"fresh{turn}", f"newer{turn}"):
        texts[source.write(name, f"text {turn} of {name}")] = f"text {turn} of {name}"
    old = next(iter(texts))
    again = source.write("old", f"text {turn} of old")
    texts[again] = f"text {turn} of old"
    assert again == old, "an object keeps its reference while it exists"
    gone = [*texts][1]
    source.delete(gone)
    del texts[gone]


class SignalTests:
    """Deliveries and subscriptions."""

    @pytest.fixture
    def hook(self, connector: Connector) -> Generator[Hook]:
        if not isinstance(connector, Hears):
            not_applicable("it hears no deliveries")
        with Hook(connector) as hook:
            yield hook

    @pytest.fixture
    def told(self, source: SourceUnderTest, connector: Connector, hook: Hook) -> Told:
        texts = {source.write(name, f"first text of {name}"): f"first text of {name}" for name in ("old", "gone", "same")}
        index = Index(connector)
        index.scan()
        source.listen(hook)
        source.settle(hook)
        hook.clear()
        change_everything(source, texts, "one")
        source.settle(hook)
        assert hook.deliveries, "nothing arrived"
        return Told(hook, index, texts)

    def test_deliveries_tell_of_every_change(self, told: Told) -> None:
        """By the object's own name, or by a scan of a scope that it lies in."""
        told.take(told.deliveries)
        told.check()

    def test_a_delivery_may_come_twice(self, told: Told) -> None:
        """It has the same id each time, if it has any, and two have different ones."""
        told.take([*told.deliveries, *told.deliveries])
        told.check()
        ids = [[told.hook.hear(delivery).delivery_id for delivery in told.deliveries] for _ in range(2)]
        assert ids[0] == ids[1]
        given = [one for one in ids[0] if one is not None]
        assert len(set(given)) == len(given)

    def test_deliveries_may_come_in_any_order(self, told: Told) -> None:
        """A signal is a claim to look, so the last one to come need not be the last one sent."""
        mixed = told.deliveries
        random.Random(0).shuffle(mixed)
        for order in (mixed, [*reversed(told.deliveries)]):
            told.take(order)
            told.check()

    def test_what_lost_deliveries_told_the_next_listing_finds(self, source: SourceUnderTest, told: Told) -> None:
        """One complete listing makes good whatever was lost, and deletes nothing else."""
        told.take(told.deliveries[::2])
        told.index.scan(anew=True)
        if not source.window:
            told.check()
        assert set(told.texts) <= set(told.index.texts)

    def test_a_late_delivery_takes_nothing_back(self, source: SourceUnderTest, told: Told) -> None:
        """A day later it is refused, or leads to the object as it is by then."""
        old = told.deliveries
        change_everything(source, told.texts, "two")
        source.settle(told.hook)
        told.take(told.deliveries)
        told.check()
        for delivery in old:
            try:
                told.take([replace(delivery, received_at_ms=delivery.received_at_ms + DAY_MS)])
            except Unverified:
                pass  # too old to be believed: the listing has it
        told.check()

    def test_clocks_may_differ_by_two_minutes(self, told: Told) -> None:
        """Refused deliveries of a provider whose clock, or ours, is a little off are silence."""
        for delivery in told.deliveries:
            for skew_ms in (-SKEW_MS, SKEW_MS):
                shifted = replace(delivery, received_at_ms=delivery.received_at_ms + skew_ms)
                assert told.hook.hear(shifted).changes == told.hook.hear(delivery).changes

    def test_a_burst_says_no_more_than_each_of_it(self, told: Told) -> None:
        """Parsed by many threads at once, a storm names the same few objects, so that the bus can merge it."""
        once = {change for delivery in told.deliveries for change in told.hook.hear(delivery).changes}
        storm = (told.deliveries * BURST)[:BURST]
        with ThreadPoolExecutor(8) as pool:
            heard: list[Heard] = [*pool.map(told.hook.hear, storm)]
        assert {change for one in heard for change in one.changes} <= once
        told.index.take(once)
        told.check()

    def test_hearing_asks_nobody(self, source: SourceUnderTest, told: Told) -> None:
        """The provider waits for the answer: its own outage, or ours of the network, must not hold it up."""
        before = [told.hook.hear(delivery).changes for delivery in told.deliveries]
        source.break_off()
        try:
            assert [told.hook.hear(delivery).changes for delivery in told.deliveries] == before
        finally:
            source.mend()

    def test_a_forged_delivery_is_refused(self, source: SourceUnderTest, told: Told) -> None:
        """Whoever can have us look at objects can spend the source's quota."""
        for delivery in told.deliveries:
            for forged in source.forged(delivery):
                with pytest.raises(Unverified):
                    told.hook.hear(forged)

    def test_a_delivery_of_another_source_changes_nothing(self, source: SourceUnderTest, told: Told) -> None:
        """One secret may serve many hooks: what is proven may still be about something else."""
        others = source.of_others(told.hook)
        assert others
        for delivery in others:
            try:
                changes: list[Change] = [*told.hook.hear(delivery).changes]
            except (Unverified, InvalidInput):
                continue
            assert changes == []

    # subscriptions

    @pytest.fixture
    def subscriber(self, source: SourceUnderTest, connector: Connector, hook: Hook) -> Subscribes:
        if not isinstance(connector, Subscribes):
            not_applicable("a person sets up the deliveries: there is no subscription")
        source.listen(hook)
        source.settle(hook)
        assert hook.subscriptions, "listen() should subscribe"
        hook.clear()
        return connector

    def test_a_renewed_subscription_goes_on(self, source: SourceUnderTest, subscriber: Subscribes, hook: Hook) -> None:
        """For longer, or without end; under the same id, or under one that is kept."""
        old = hook.subscriptions[0]
        renewed = subscriber.renew(old, hook.address)
        assert renewed.expires_at_ms is None or renewed.expires_at_ms >= (old.expires_at_ms or 0)
        hook.subscriptions = [renewed]
        ref = source.write("doc", "text")
        source.settle(hook)
        assert hook.deliveries, f"nothing tells of {ref}"

    def test_a_subscription_that_has_ended_is_made_anew(
        self, source: SourceUnderTest, subscriber: Subscribes, hook: Hook
    ) -> None:
        """Silence is what ends sources unnoticed: a renewal says that there is nothing to renew."""
        for form, end in source.endings().items():
            ended = hook.subscriptions[0]
            end(ended)
            with pytest.raises(SubscriptionLost):
                subscriber.renew(ended, hook.address)
            hook.subscriptions = []
            hook.subscribe()
            source.settle(hook)
            hook.clear()
            source.write(f"doc{form}", "text")
            source.settle(hook)
            assert hook.deliveries, f"{form}: nothing arrives of the new one"

    def test_an_ended_subscription_can_be_cancelled(self, subscriber: Subscribes, hook: Hook) -> None:
        """Removing a source is never stopped by a subscription that is gone already."""
        subscriber.unsubscribe(hook.subscriptions[0])
        subscriber.unsubscribe(hook.subscriptions[0])
