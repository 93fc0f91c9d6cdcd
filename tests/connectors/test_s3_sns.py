"""SNS by HTTP, from the handshake to the change, and what is not believed. Against the simulated SNS, which signs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.s3_messages import delivery, hear, hearing, record, refs
from tests.s3_servers import SECRET, TOKEN, Receiver

from sourcebus.connectors import Hears
from sourcebus.errors import InvalidInput, SourceUnavailable, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind
from sourcebus.testing.providers.server import Answer
from sourcebus.testing.providers.sns import SnsServer

PATIENCE_S = 10.0


@pytest.fixture
def sns() -> Iterator[SnsServer]:
    with SnsServer(pace=1_000) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


def topics(sns: SnsServer, *names: str) -> Hears:
    return hearing(None, sns_topics=[sns.topic(name) for name in names], sns_endpoint_url=sns.url)


def test_sns_from_the_handshake_to_the_change(sns: SnsServer, receiver: Receiver) -> None:
    """A subscription is confirmed where it is made, by one call to SNS; from then on its messages come."""
    connector, arn = topics(sns, "changes"), sns.topic("changes")
    sns.subscribe(arn, receiver.hook)
    heard = connector.parse_webhook(receiver.deliveries.get(timeout=PATIENCE_S), [])
    assert heard.changes == [Change(WHOLE_SOURCE, ChangeKind.SCAN)], "what changed until now was not announced"
    assert sns.confirmed == {(arn, receiver.hook)}
    for version in ("1", "2"):
        sns.version = version
        sns.publish(arn, json.dumps({"Records": [record("red+flower.jpg")]}), subject="Amazon S3 Notification")
        delivered = receiver.deliveries.get(timeout=PATIENCE_S)
        heard = connector.parse_webhook(delivered, [])
        assert refs(heard) == {"red flower.jpg": ChangeKind.UPDATED}
        assert heard.delivery_id == delivered.headers["x-amz-sns-message-id"], "one that is sent again is the same"


def test_certificates_are_fetched_once_and_may_change(sns: SnsServer, receiver: Receiver) -> None:
    connector, arn = topics(sns, "changes"), sns.topic("changes")
    for _ in range(2):
        for _ in range(3):
            connector.parse_webhook(delivery(sns.signed("Notification", arn, {"Message": '{"Records": []}'}), headers={}), [])
        sns.rotate()
    assert len(sns.asked) == 2


def spoiled(**fields: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda message: {**message, **fields}


@pytest.mark.parametrize(
    "spoil",
    [
        spoiled(Message='{"Records": [1]}'),
        spoiled(Subject="added"),
        spoiled(Timestamp="2030-01-01T00:00:00.000Z"),
        spoiled(MessageId="another"),
        spoiled(Signature="AAAA"),
        spoiled(Signature="no base64"),
        spoiled(SignatureVersion="3"),
        spoiled(SignatureVersion="1"),
        spoiled(Type="SubscriptionConfirmation"),
        spoiled(Type="Other"),
        spoiled(TopicArn="arn:aws:sns:eu-west-1:123456789012:of-somebody-else"),
        spoiled(TopicArn="arn:aws:sns:eu-west-1:123456789012:second"),
    ],
)
def test_a_forged_sns_message_is_refused(sns: SnsServer, spoil: Callable[[dict[str, str]], dict[str, str]]) -> None:
    message = sns.signed("Notification", sns.topic("changes"), {"Message": '{"Records": []}'})
    connector = topics(sns, "changes", "second")
    assert connector.parse_webhook(delivery(message, headers={}), []).changes == []
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery(spoil(message), headers={}), [])


@pytest.mark.parametrize(
    "where",
    [
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        "https://evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        "https://sns.eu-west-1.amazonaws.com:444/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        "https://sns.eu-west-1.amazonaws.com/../../SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem?x=1",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "",
        "https://[",
    ],
)
def test_a_certificate_elsewhere_is_not_fetched(sns: SnsServer, where: str) -> None:
    message = sns.signed("Notification", sns.topic("changes"), {"Message": "{}"}) | {"SigningCertURL": where}
    with pytest.raises(Unverified):
        topics(sns, "changes").parse_webhook(delivery(message, headers={}), [])
    assert not sns.asked


def test_made_up_certificates_do_not_make_us_ask_and_ask(sns: SnsServer) -> None:
    connector, arn = topics(sns, "changes"), sns.topic("changes")
    known = sns.signed("Notification", arn, {"Message": '{"Records": []}'})
    connector.parse_webhook(delivery(known, headers={}), [])
    for number in range(20):
        made_up = f"https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{number:032x}.pem"
        with pytest.raises(SourceUnavailable if number else Unverified):
            connector.parse_webhook(delivery(known | {"SigningCertURL": made_up}, headers={}), [])
    assert len(sns.asked) == 2, "the right one, and the first that was not there"
    connector.parse_webhook(delivery(known, headers={}), [])


def test_an_old_message_is_not_believed(sns: SnsServer) -> None:
    arn = sns.topic("changes")
    message = sns.signed("Notification", arn, {"Message": '{"Records": []}'})
    sent = delivery(message, headers={})
    connector = topics(sns, "changes")
    connector.parse_webhook(replace(sent, received_at_ms=sent.received_at_ms + 3_600_000), [])
    with pytest.raises(Unverified):
        connector.parse_webhook(replace(sent, received_at_ms=sent.received_at_ms + 7_200_000), [])


def test_a_confirmation_that_fails_is_not_answered_with_success(sns: SnsServer, receiver: Receiver) -> None:
    """So SNS sends it again. And the address in it is not called: only the topic's own SNS is."""
    arn = sns.topic("changes")
    sns.subscribe(arn, receiver.hook)
    sent = receiver.deliveries.get(timeout=PATIENCE_S)
    connector = topics(sns, "changes")
    sns.refuse(Answer(500), path="/")
    with pytest.raises(SourceUnavailable):
        connector.parse_webhook(sent, [])
    assert not sns.confirmed
    connector.parse_webhook(sent, [])
    assert sns.confirmed
    elsewhere = sns.signed(
        "SubscriptionConfirmation", arn, {"Message": "m", "SubscribeURL": "http://169.254.169.254/", "Token": "unknown"}
    )
    asked = len(sns.asked)
    with pytest.raises(Exception, match="HTTP 400"):
        connector.parse_webhook(delivery(elsewhere, headers={}), [])
    assert [one.path for one in sns.asked[asked:]] == ["/"]


def test_a_topic_that_the_source_does_not_name_is_not_confirmed(sns: SnsServer) -> None:
    """Also not for somebody who has the token: it says what to set."""
    arn = sns.topic("changes")
    message = sns.signed("SubscriptionConfirmation", arn, {"Message": "m", "SubscribeURL": "https://x", "Token": "t"})
    with pytest.raises(InvalidInput) as refused:
        hear(message)
    assert refused.value.field == "config.sns_topics"


def test_raw_message_delivery_needs_the_token(sns: SnsServer, receiver: Receiver) -> None:
    arn = sns.topic("changes")
    sns.confirmed = {(arn, f"{receiver.hook}?token={TOKEN}"), (arn, receiver.hook)}
    sns.publish(arn, json.dumps({"Records": [record("doc.txt")]}), raw=True)
    connector = hearing(SECRET, sns_topics=[arn], sns_endpoint_url=sns.url)
    by_token = {bool(one.query): one for one in (receiver.deliveries.get(timeout=PATIENCE_S) for _ in range(2))}
    assert refs(connector.parse_webhook(by_token[True], [])) == {"doc.txt": ChangeKind.UPDATED}
    with pytest.raises(Unverified):
        connector.parse_webhook(by_token[False], [])
