"""Notifications and subscriptions: parsed as they are sent, forged as they are not, and over real HTTP from the simulator."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from tests.connectors.sharepoint_source import connect

from sourcebus.connectors import Costly, Hears, Metered, Subscribes
from sourcebus.connectors.sharepoint import SharePointConnector
from sourcebus.errors import ConnectorError, InvalidInput, SubscriptionLost, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Subscription
from sourcebus.testing.providers.courier import Faults
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_drive import SimDrive
from sourcebus.testing.providers.graph_meter import GraphFacts
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)
MINUTE_MS = 60_000


class Hook(ProviderServer):
    """A receiver: answers the handshake and what is proven with the connector alone, as the gateway does."""

    def __init__(self, connector: SharePointConnector) -> None:
        super().__init__()
        self.connector, self.subscriptions = connector, list[Subscription]()
        self.heard: list[Any] = []
        self.slow_s = 0.0
        self.on("POST", "/hooks/docs", self._hear)

    def _hear(self, asked: Asked) -> Answer:
        time.sleep(self.slow_s)
        try:
            heard = self.connector.parse_webhook(delivery(asked.body, **asked.query), self.subscriptions)
        except Unverified as error:
            return Answer(401, {"title": str(error)})
        self.heard.append(heard)
        if heard.reply is None:
            return Answer(202)
        return Answer(heard.reply.status, heard.reply.body, {"Content-Type": heard.reply.media_type})

    @property
    def address(self) -> str:
        return f"{self.url}/hooks/docs"


def delivery(body: bytes | list[dict[str, Any]] = b"", **query: str) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps({"value": body}).encode()
    return Delivery("POST", {"content-type": "application/json"}, raw, 0, query)


@pytest.fixture(scope="module")
def tenant() -> Generator[GraphSimulator]:
    with GraphSimulator(enforce=False, pace=1_000) as simulated:
        yield simulated


@pytest.fixture
def drive(tenant: GraphSimulator) -> SimDrive:
    return tenant.drive()


@pytest.fixture
def connector(tenant: GraphSimulator, drive: SimDrive) -> Generator[SharePointConnector]:
    with closing(connect(tenant, drive=drive.id)) as made:
        yield made


@pytest.fixture
def hook(connector: SharePointConnector) -> Generator[Hook]:
    with Hook(connector) as receiver:
        yield receiver


@pytest.fixture
def subscription(connector: SharePointConnector, hook: Hook) -> Subscription:
    made = connector.subscribe(hook.address)
    hook.subscriptions.append(made)
    return made


def entry(subscription: Subscription, **other: Any) -> dict[str, Any]:
    return {"subscriptionId": subscription.id, "clientState": subscription.secret, "changeType": "updated", **other}


def test_it_hears_subscribes_and_counts(connector: SharePointConnector) -> None:
    for protocol in (Hears, Subscribes, Metered, Costly):
        assert isinstance(connector, protocol)


# over HTTP


def test_from_a_subscription_to_a_scan(tenant: GraphSimulator, drive: SimDrive, hook: Hook, subscription: Subscription) -> None:
    """Handshake, change, notification: with the token of the handshake as it was before it was put into the URL."""
    days = (subscription.expires_at_ms or 0) / MINUTE_MS / 1440 - time.time() / 86_400
    assert 29.3 < days < 29.375  # 42,300 minutes
    assert subscription.secret
    assert len(subscription.secret) <= 128
    assert hook.address not in repr(subscription)
    hook.heard.clear()
    tenant.put(drive, "a.txt", "text")
    tenant.courier.settle()
    (heard,) = hook.heard
    assert (list(heard.changes), heard.note) == ([SCAN], "")


def test_two_subscriptions_never_share_a_secret(connector: SharePointConnector, hook: Hook, subscription: Subscription) -> None:
    assert connector.subscribe(hook.address).secret != subscription.secret


def test_notifications_of_two_subscriptions_in_one_post(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector, hook: Hook, subscription: Subscription
) -> None:
    """While one takes over from the other, both are told; one that is not known here is counted, not believed."""
    hook.subscriptions.insert(0, connector.subscribe(hook.address))
    connector.subscribe(hook.address)
    hook.heard.clear()
    tenant.put(drive, "a.txt", "text")
    tenant.courier.settle()
    (heard,) = hook.heard
    assert list(heard.changes) == [SCAN]
    assert heard.note == "1 of 3 notifications are of other subscriptions"


def test_renewing(connector: SharePointConnector, hook: Hook, tenant: GraphSimulator, subscription: Subscription) -> None:
    old = replace(subscription, expires_at_ms=1)
    renewed = connector.renew(old, hook.address)
    assert (renewed.id, renewed.secret) == (subscription.id, subscription.secret)
    assert (renewed.expires_at_ms or 0) >= (subscription.expires_at_ms or 0)
    assert [asked.method for asked in tenant.asked if asked.path.endswith(subscription.id)] == ["PATCH"]


def test_a_hook_that_moved_gets_a_successor(
    connector: SharePointConnector, tenant: GraphSimulator, hook: Hook, subscription: Subscription
) -> None:
    with Hook(connector) as elsewhere:
        successor = connector.renew(subscription, elsewhere.address)
    assert successor.id != subscription.id
    assert tenant.hooks.living(subscription.id) is None
    assert tenant.hooks.living(successor.id) is not None


def test_a_subscription_that_graph_has_forgotten_is_lost(
    connector: SharePointConnector, tenant: GraphSimulator, hook: Hook, subscription: Subscription
) -> None:
    del tenant.hooks.subscriptions[subscription.id]
    with pytest.raises(SubscriptionLost):
        connector.renew(subscription, hook.address)
    connector.unsubscribe(subscription)


def test_unsubscribing(connector: SharePointConnector, tenant: GraphSimulator, subscription: Subscription) -> None:
    connector.unsubscribe(subscription)
    assert tenant.hooks.living(subscription.id) is None


def test_a_hook_that_fails_the_handshake_is_said_without_its_address(connector: SharePointConnector, hook: Hook) -> None:
    """The address may be all that protects the hook, so it must not get into logs."""
    hook.refuse(Answer(202, b""))
    with pytest.raises(ConnectorError, match="Subscription validation request failed"):
        connector.subscribe(hook.address)
    with pytest.raises(ConnectorError) as refused:
        connector.subscribe("http://127.0.0.1:9/hooks/unguessable")
    assert "unguessable" not in str(refused.value)


def test_a_site_has_one_subscription_with_a_part_for_each_library(tenant: GraphSimulator) -> None:
    first, second = tenant.site("sites/hooked", "One", "Two")
    with closing(connect(tenant, site=f"{tenant.host}/sites/hooked")) as connector, Hook(connector) as hook:
        made = connector.subscribe(hook.address)
        hook.subscriptions.append(made)
        hook.heard.clear()
        for drive in (first, second):
            tenant.put(drive, "a.txt", "text")
        tenant.courier.settle()
        assert [list(heard.changes) for heard in hook.heard] == [[SCAN], [SCAN]]
        second_id = made.state["drives"][second.id]
        tenant.hooks.lifecycle(second_id, "subscriptionRemoved")
        tenant.courier.settle()
        assert list(hook.heard[-1].lost) == [made.id]
        with pytest.raises(SubscriptionLost):
            connector.renew(made, hook.address)
        assert not any(one.drive_id in (first.id, second.id) for one in tenant.hooks.subscriptions.values())
        tenant.add_library("sites/hooked", "Three")
        assert len(connector.subscribe(hook.address).state["drives"]) == 3
        second.forbidden = True
        before = len(tenant.hooks.subscriptions)
        with pytest.raises(ConnectorError):
            connector.subscribe(hook.address)
        assert len(tenant.hooks.subscriptions) == before, "all or none"


@pytest.mark.parametrize(
    ("event", "lost", "renew", "scan"),
    [
        ("reauthorizationRequired", False, True, False),
        ("subscriptionRemoved", True, False, True),
        ("missed", False, False, True),
    ],
)
def test_lifecycle(
    tenant: GraphSimulator, hook: Hook, subscription: Subscription, event: str, lost: bool, renew: bool, scan: bool
) -> None:
    hook.heard.clear()
    tenant.hooks.lifecycle(subscription.id, event)
    tenant.courier.settle()
    (heard,) = hook.heard
    expected = ([subscription.id] * lost, [subscription.id] * renew, [SCAN] * scan)
    assert (list(heard.lost), list(heard.renew), list(heard.changes)) == expected


# parsing


def test_the_handshake_gives_the_token_back_as_plain_text(connector: SharePointConnector) -> None:
    token = 'Validation: Testing client application reachability for subscription <b>"Request-Id"</b> ü'
    heard = connector.parse_webhook(delivery(validationToken=token), [])
    assert heard.reply is not None
    assert (heard.reply.status, heard.reply.media_type, heard.reply.body) == (200, "text/plain", token.encode())
    assert heard.reply.headers["X-Content-Type-Options"] == "nosniff"
    for bad in ("", "x" * 5_000):
        with pytest.raises(InvalidInput):
            connector.parse_webhook(delivery(validationToken=bad), [])


FORGED: list[Any] = [
    [],
    [{"subscriptionId": "strange", "clientState": "s3cret"}],
    [{"subscriptionId": "known"}],
    [{"subscriptionId": "known", "clientState": "s3cre"}],
    [{"subscriptionId": "known", "clientState": ""}],
    [{"subscriptionId": "known", "clientState": None}],
    [{"subscriptionId": "known", "clientState": ["s3cret"]}],
    [{"subscriptionId": ["known"], "clientState": "s3cret"}],
    [{"subscriptionId": "known", "clientState": "s3cret"}, {"subscriptionId": "known", "clientState": "forged"}],
    [{"subscriptionId": "old", "clientState": "s3cret"}],
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"value": {"subscriptionId": "known"}}',
    b'{"value": [1, null, "x"]}',
    b'{"values": []}',
    b"validationToken=x",
]


@pytest.mark.parametrize("body", FORGED, ids=lambda body: repr(body)[:60])
def test_what_does_not_prove_itself_is_refused_whole(connector: SharePointConnector, body: Any) -> None:
    living = [Subscription("known", secret="s3cret"), Subscription("old", secret="older")]
    with pytest.raises(Unverified) as refused:
        connector.parse_webhook(delivery(body), living)
    assert "s3cret" not in str(refused.value)


def test_without_a_secret_nothing_is_proven(connector: SharePointConnector) -> None:
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery([{"subscriptionId": "known", "clientState": ""}]), [Subscription("known")])


def test_a_huge_collection_is_refused(connector: SharePointConnector) -> None:
    known = Subscription("known", secret="s3cret")
    assert connector.parse_webhook(delivery([entry(known)] * 1_000), [known]).changes == [SCAN]
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery([entry(known)] * 10_001), [known])


def test_an_old_secret_is_good_as_long_as_its_subscription(connector: SharePointConnector) -> None:
    """Rotation: the new subscription takes over, the old one lives until it ends."""
    new, old = Subscription("new", secret="n"), Subscription("old", secret="o")
    assert connector.parse_webhook(delivery([entry(old), entry(new)]), [new, old]).changes == [SCAN]
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery([entry(old)]), [new])


def test_a_replayed_delivery_asks_for_the_same_scan(connector: SharePointConnector) -> None:
    """Graph's notifications have no id and no time. A repeated one merges with the scan that is pending."""
    known = Subscription("known", secret="s")
    said = [connector.parse_webhook(delivery([entry(known)]), [known]) for _ in range(2)]
    assert said[0] == said[1]
    assert said[0].delivery_id is None


def test_an_event_that_nobody_knows_yet_is_looked_into(connector: SharePointConnector) -> None:
    known = Subscription("known", secret="s")
    heard = connector.parse_webhook(delivery([entry(known, lifecycleEvent="somethingNew")]), [known])
    assert (list(heard.changes), heard.note) == ([SCAN], "unknown lifecycle event 'somethingNew'")


# the simulator's own rules


def test_a_slow_receiver_is_told_late_and_then_not_at_all() -> None:
    """10 % of a hundred calls over the limit: ten minutes later. 15 %: dropped."""
    facts = replace(GraphFacts(), slow_ms=30.0, slow_sample=20, slow_delay_s=0.05)
    with GraphSimulator(facts=facts, enforce=False) as tenant:
        drive = tenant.drive()
        with closing(connect(tenant, drive=drive.id)) as connector, Hook(connector) as hook:
            hook.subscriptions.append(connector.subscribe(hook.address))

            def many(count: int, slow_s: float) -> None:
                hook.slow_s = slow_s
                for number in range(count):
                    tenant.put(drive, f"{number}.txt", "text")
                tenant.courier.settle()

            many(18, 0)
            many(2, 0.05)
            many(1, 0)
            assert (tenant.hooks.delayed, tenant.hooks.dropped) == (1, 0)
            many(4, 0.05)
            many(3, 0)
            assert tenant.hooks.dropped == 3


def test_lost_and_repeated_notifications() -> None:
    with GraphSimulator(faults=Faults(seed=3, lose=0.3, duplicate=0.3), enforce=False) as tenant:
        drive = tenant.drive()
        with closing(connect(tenant, drive=drive.id)) as connector, Hook(connector) as hook:
            hook.subscriptions.append(connector.subscribe(hook.address))
            hook.heard.clear()
            for number in range(60):
                tenant.put(drive, f"{number}.txt", "text")
            tenant.courier.settle()
            lost = sum(sent.lost for sent in tenant.courier.sent)
            repeated = sum(len(sent.statuses) == 2 for sent in tenant.courier.sent)
            assert 8 < lost < 30
            assert len(hook.heard) == 60 - lost + repeated


def test_a_refused_notification_is_sent_again(
    tenant: GraphSimulator, drive: SimDrive, hook: Hook, subscription: Subscription
) -> None:
    hook.heard.clear()
    hook.refuse(Answer(503, b""), times=2)
    tenant.put(drive, "a.txt", "text")
    tenant.courier.settle()
    assert tenant.courier.sent[-1].statuses == [503, 503, 202]
    assert len(hook.heard) == 1
