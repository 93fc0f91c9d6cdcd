"""Messages and channels: parsed as Google sends them, forged as it does not, and over real HTTP from the simulator."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest
from tests.connectors.google_drive_source import connect

from sourcebus.connectors import Costly, Hears, Metered, Subscribes
from sourcebus.connectors.google_drive import GoogleDriveConnector
from sourcebus.errors import ConnectorError, NeedsAuth, Throttled, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Subscription
from sourcebus.testing.providers.google_drive import GoogleDriveSimulator, refusal
from sourcebus.testing.providers.google_drive_files import SimDrive
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)
DAY_S = 86_400


class Hook(ProviderServer):
    """A receiver that answers what is proven with the connector alone, as the gateway does."""

    def __init__(self, connector: GoogleDriveConnector) -> None:
        super().__init__()
        self.connector, self.subscriptions = connector, list[Subscription]()
        self.heard: list[Any] = []
        self.on("POST", "/hooks/docs", self._hear)

    def _hear(self, asked: Asked) -> Answer:
        try:
            heard = self.connector.parse_webhook(Delivery("POST", asked.headers, asked.body, 0), self.subscriptions)
        except Unverified as error:
            return Answer(401, {"title": str(error)})
        self.heard.append(heard)
        return Answer(202)

    @property
    def address(self) -> str:
        return f"{self.url}/hooks/docs"


@pytest.fixture(scope="module")
def google() -> Generator[GoogleDriveSimulator]:
    with GoogleDriveSimulator(enforce=False, pace=1_000) as simulated:
        yield simulated


@pytest.fixture
def drive(google: GoogleDriveSimulator) -> SimDrive:
    return google.shared_drive()


@pytest.fixture
def connector(google: GoogleDriveSimulator, drive: SimDrive) -> Generator[GoogleDriveConnector]:
    with closing(connect(google, drive=drive.id)) as made:
        yield made


@pytest.fixture
def hook(google: GoogleDriveSimulator, connector: GoogleDriveConnector) -> Generator[Hook]:
    with Hook(connector) as receiver:
        yield receiver
        google.courier.settle()


@pytest.fixture
def subscription(google: GoogleDriveSimulator, connector: GoogleDriveConnector, hook: Hook) -> Subscription:
    """One whose first message has been sent; to a hook that did not know it yet, as happens."""
    made = connector.subscribe(hook.address)
    google.courier.settle()
    hook.subscriptions.append(made)
    return made


def message(subscription: Subscription, **other: str | None) -> Delivery:
    """As Google sends it; None leaves a header out."""
    headers = {
        "x-goog-channel-id": subscription.id,
        "x-goog-channel-token": subscription.secret,
        "x-goog-resource-state": "change",
        "x-goog-message-number": "42",
        **{name.replace("_", "-"): value for name, value in other.items()},
    }
    return Delivery("POST", {name: value for name, value in headers.items() if value is not None}, b"", 0)


def test_it_hears_subscribes_and_counts(connector: GoogleDriveConnector) -> None:
    for protocol in (Hears, Subscribes, Metered, Costly):
        assert isinstance(connector, protocol)


# over HTTP


def test_from_a_channel_to_a_scan(
    google: GoogleDriveSimulator, drive: SimDrive, hook: Hook, subscription: Subscription
) -> None:
    google.put(drive, "a.txt", "text")
    google.courier.settle()
    (heard,) = hook.heard
    assert (list(heard.changes), heard.note) == ([SCAN], "")
    assert heard.delivery_id.startswith(f"{subscription.id}:")
    days = (subscription.expires_at_ms or 0) / 1000 / DAY_S - time.time() / DAY_S
    assert 6.99 < days < 7.001
    assert subscription.secret
    assert hook.address not in repr(subscription)


def test_the_first_message_of_a_channel_that_is_known_says_that_it_is_open(
    google: GoogleDriveSimulator, hook: Hook, subscription: Subscription
) -> None:
    google.channels.say(google.channels.living[subscription.id], "sync")
    google.courier.settle()
    (heard,) = hook.heard
    assert (list(heard.changes), heard.note) == ([], "the channel is open")


def test_a_receiver_that_is_down_is_tried_again_but_not_one_that_refuses(
    google: GoogleDriveSimulator, drive: SimDrive, hook: Hook, subscription: Subscription
) -> None:
    """Of what a receiver answers with 4xx nothing is ever sent again: only a later scan finds it."""
    hook.refuse(Answer(503), times=2)
    google.put(drive, "a.txt", "text")
    google.courier.settle()
    assert google.courier.sent[-1].statuses == [503, 503, 202]
    hook.refuse(Answer(404))
    google.put(drive, "a.txt", "text")
    google.courier.settle()
    assert google.courier.sent[-1].statuses == [404]
    assert len(hook.heard) == 1


def test_a_successor_overlaps_and_has_a_token_of_its_own(
    google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector, hook: Hook, subscription: Subscription
) -> None:
    successor = connector.renew(subscription, hook.address)
    google.courier.settle()
    hook.subscriptions.insert(0, successor)
    hook.heard.clear()
    assert successor.id != subscription.id
    assert successor.secret != subscription.secret
    google.put(drive, "a.txt", "text")
    google.courier.settle()
    assert [list(heard.changes) for heard in hook.heard] == [[SCAN], [SCAN]]
    connector.unsubscribe(subscription)
    assert set(google.channels.living) >= {successor.id}
    assert subscription.id not in google.channels.living
    connector.unsubscribe(subscription)


def test_what_google_grants_is_what_counts(google: GoogleDriveSimulator, connector: GoogleDriveConnector, hook: Hook) -> None:
    """Not what was asked for; and an answer without an end is good for Google's hour."""
    granted = {"id": "x", "resourceId": "r", "expiration": "1800000000000"}
    google.refuse(Answer(200, granted), path=".*/changes/watch")
    assert connector.subscribe(hook.address).expires_at_ms == 1_800_000_000_000
    google.refuse(Answer(200, {"id": "x", "resourceId": "r"}), path=".*/changes/watch")
    left_s = (connector.subscribe(hook.address).expires_at_ms or 0) / 1000 - time.time()
    assert 3_590 < left_s < 3_601


def test_a_user_s_own_changes_are_announced_too(google: GoogleDriveSimulator) -> None:
    ada = google.my_drive("ada@example.com")
    with closing(connect(google, subject="ada@example.com")) as connector, Hook(connector) as hook:
        hook.subscriptions.append(connector.subscribe(hook.address))
        google.courier.settle()
        google.put(ada, "a.txt", "text")
        google.courier.settle()
        assert list(hook.heard[-1].changes) == [SCAN]


def test_an_address_without_tls_is_refused_before_google_does(connector: GoogleDriveConnector) -> None:
    with pytest.raises(ConnectorError, match="https"):
        connector.subscribe("http://sourcebus.example.com/hooks/docs")


def test_a_refusal_does_not_show_the_address(google: GoogleDriveSimulator, connector: GoogleDriveConnector, hook: Hook) -> None:
    """It may be all that protects the hook, so it must not get into logs."""
    told = f"Unauthorized WebHook callback channel: {hook.address}"
    for answer in (
        refusal(401, "push.webhookUrlUnauthorized", told),
        refusal(400, "push.other", told),
        refusal(403, "x", told),
    ):
        google.refuse(answer, times=2, path=".*/changes/watch")
        with pytest.raises(ConnectorError) as refused:
            connector.subscribe(hook.address)
        google.accept_again()
        assert hook.address not in str(refused.value)


def test_what_stands_in_the_way_of_a_channel_is_not_disguised(
    google: GoogleDriveSimulator, connector: GoogleDriveConnector, hook: Hook
) -> None:
    google.refuse(refusal(403, "userRateLimitExceeded", "later"), path=".*/changes/watch")
    with pytest.raises(Throttled):
        connector.subscribe(hook.address)
    google.refuse(refusal(403, "accessNotConfigured", "enable it"), path=".*/changes/watch")
    with pytest.raises(NeedsAuth):
        connector.subscribe(hook.address)


# as they should not be

ONE = Subscription("channel-1", None, "token-one")
TWO = Subscription("channel-2", None, "token-two")


@pytest.mark.parametrize(
    "forged",
    [
        {"x_goog_channel_token": None},
        {"x_goog_channel_token": ""},
        {"x_goog_channel_token": "token-onee"},
        {"x_goog_channel_token": "\udcff"},
        {"x_goog_channel_token": "x" * 1_000_000},
        {"x_goog_channel_token": "token-one, token-one"},
    ],
    ids=lambda value: str(value)[:60],
)
def test_without_the_token_nothing_is_believed(connector: GoogleDriveConnector, forged: dict[str, str | None]) -> None:
    with pytest.raises(Unverified):
        connector.parse_webhook(message(ONE, **forged), [ONE, TWO])


def test_where_nothing_is_subscribed_nothing_is_believed(connector: GoogleDriveConnector) -> None:
    for living in ([], [Subscription("channel-1")]):
        with pytest.raises(Unverified):
            connector.parse_webhook(message(ONE), living)
        with pytest.raises(Unverified):
            connector.parse_webhook(message(ONE, x_goog_channel_token=None), living)


@pytest.mark.parametrize("channel", ["channel-2", "channel-3", "", None])
def test_a_message_of_another_channel_is_ignored(connector: GoogleDriveConnector, channel: str | None) -> None:
    """One channel's token does not speak for another."""
    heard = connector.parse_webhook(message(ONE, x_goog_channel_id=channel), [ONE, TWO])
    assert not heard.changes
    assert "another channel" in heard.note


def test_a_message_that_comes_twice_has_one_name(connector: GoogleDriveConnector) -> None:
    first, again = (connector.parse_webhook(message(ONE), [TWO, ONE]) for _ in range(2))
    other = connector.parse_webhook(message(ONE, x_goog_message_number="43"), [ONE])
    assert first.delivery_id == again.delivery_id == "channel-1:42"
    assert other.delivery_id == "channel-1:43"
    assert connector.parse_webhook(message(TWO), [TWO, ONE]).delivery_id == "channel-2:42"


@pytest.mark.parametrize("number", [None, "", "-1", "4 2", "x"])
def test_a_message_without_a_number_is_believed_but_not_remembered(connector: GoogleDriveConnector, number: str | None) -> None:
    heard = connector.parse_webhook(message(ONE, x_goog_message_number=number), [ONE])
    assert (list(heard.changes), heard.delivery_id) == ([SCAN], None)


@pytest.mark.parametrize("state", ["add", "remove", "update", "trash", "untrash", "change", "somethingNew", None])
def test_every_state_but_sync_is_a_scan(connector: GoogleDriveConnector, state: str | None) -> None:
    """Also one that Google thinks of tomorrow; a body, which there never is, is not looked at."""
    heard = connector.parse_webhook(message(ONE, x_goog_resource_state=state), [ONE])
    assert list(heard.changes) == [SCAN]
    assert bool(heard.note) is (state in ("somethingNew", None))
