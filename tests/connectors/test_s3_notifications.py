"""What the connector `s3` hears: real notifications of SeaweedFS and moto, Amazon's documented ones, and forgeries."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.connectors.test_s3 import STRANGE_KEYS
from tests.s3_servers import REGION, SECRET, TOKEN, Receiver, S3Server, new_name

from sourcebus.connectors import Connector, Hears, create
from sourcebus.connectors.s3.keys import is_later, keys_of
from sourcebus.errors import ConnectorError, InvalidInput, SourceUnavailable, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer
from sourcebus.testing.providers.sns import SnsServer

PATIENCE_S = 10.0
BUCKET = "amzn-s3-demo-bucket"


_made: list[Connector] = []


@pytest.fixture(autouse=True)
def close_connectors() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def hearing(secret: str | None = SECRET, **config: Any) -> Hears:
    connector = create("s3", {"bucket": BUCKET, **config}, secret)
    _made.append(connector)
    assert isinstance(connector, Hears)
    return connector


def delivery(body: Any, *, headers: dict[str, str] | None = None, query: dict[str, str] | None = None) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"authorization": f"Bearer {TOKEN}"} if headers is None else headers
    return Delivery("POST", given, raw, time.time_ns() // 1_000_000, query or {})


def hear(body: Any, **config: Any) -> Heard:
    return hearing(**config).parse_webhook(delivery(body), [])


def record(key: str, name: str = "ObjectCreated:Put", *, source: str = "aws:s3", bucket: str = BUCKET, **stored: Any) -> Any:
    """One of Amazon's records, as in the S3 User Guide, "Event message structure" (version 2.1)."""
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "awsRegion": "us-west-2",
        "eventTime": "1970-01-01T00:00:00.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "172.16.0.1"},
        "responseElements": {
            "x-amz-request-id": "C3D13FE58DE4C810",
            "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JR",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "testConfigRule",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A3NL1KOZZKExample"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", **stored},
        },
    }


def refs(heard: Heard) -> dict[str, ChangeKind]:
    return {change.object_ref: change.change_kind for change in heard.changes}


# keys, in each sender's spelling


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_no_key_is_ever_mangled(key: str) -> None:
    """Whether the sender encodes or not, and whether that is known or not, the key itself is among the readings."""
    from urllib.parse import quote, quote_plus

    try:
        key.encode()
    except UnicodeEncodeError:
        return
    assert keys_of(quote_plus(key), encoded=True) == (key,)
    for written in (key, quote_plus(key), quote(key), quote_plus(key, safe="/")):
        assert key in keys_of(written, encoded=False)


@pytest.mark.parametrize(
    ("written", "readings"),
    [
        ("red+flower.jpg", ("red flower.jpg", "red+flower.jpg")),
        ("100%25.txt", ("100%.txt", "100%25.txt")),
        ("100%.txt", ("100%.txt",)),
        ("a b+c.txt", ("a b+c.txt",)),
        ("ü+1", ("ü+1",)),
        ("plain/key.txt", ("plain/key.txt",)),
        ("%ff", ("%ff",)),
    ],
)
def test_of_an_unknown_sender_both_readings_count(written: str, readings: tuple[str, ...]) -> None:
    assert keys_of(written, encoded=False) == readings


def test_amazon_and_minio_encode_and_others_may() -> None:
    elsewhere = {"endpoint_url": "http://gateway:9000"}
    assert set(refs(hear({"Records": [record("red+flower.jpg")]}))) == {"red flower.jpg"}
    minio = {
        "EventName": "s3:ObjectCreated:Put",
        "Key": f"{BUCKET}/a+b.txt",
        "Records": [record("a%2Bb.txt", source="minio:s3")],
    }
    assert set(refs(hear(minio, **elsewhere))) == {"a+b.txt"}
    for source in ("ceph:s3", "aws:s3"):
        assert set(refs(hear({"Records": [record("a+b.txt", source=source)]}, **elsewhere))) == {"a+b.txt", "a b.txt"}


# Amazon's records


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ObjectCreated:Put", ChangeKind.UPDATED),
        ("ObjectCreated:CompleteMultipartUpload", ChangeKind.UPDATED),
        ("s3:ObjectCreated:Copy", ChangeKind.UPDATED),
        ("ObjectRemoved:Delete", ChangeKind.DELETED),
        ("ObjectRemoved:DeleteMarkerCreated", ChangeKind.DELETED),
        ("LifecycleExpiration:Delete", ChangeKind.DELETED),
        ("LifecycleExpiration:DeleteMarkerCreated", ChangeKind.DELETED),
        ("ObjectLifecycle:Expiration:Current", ChangeKind.DELETED),
        ("ObjectRestore:Completed", ChangeKind.UPDATED),
        ("ReducedRedundancyLostObject", ChangeKind.UPDATED),
        ("ObjectSynced:Create", ChangeKind.UPDATED),
        ("SomethingNew:Happened", ChangeKind.UPDATED),
        ("ObjectRestore:Post", None),
        ("ObjectRestore:Delete", None),
        ("ObjectTagging:Put", None),
        ("ObjectAcl:Put", None),
        ("LifecycleTransition", None),
        ("IntelligentTiering", None),
        ("Replication:OperationFailedReplication", None),
        ("s3:ObjectAccessed:Get", None),
    ],
)
def test_what_each_event_means(name: str, kind: ChangeKind | None) -> None:
    heard = hear({"Records": [record("doc.txt", name)]})
    assert refs(heard) == ({"doc.txt": kind} if kind else {})
    assert bool(heard.note) == (kind is None)


def test_the_hint_is_the_version() -> None:
    event = {"Records": [record("doc.txt", eTag="abc", versionId="v1")]}
    assert [change.version for change in hear(event).changes] == ["abc"]
    assert [change.version for change in hear(event, versioned=True).changes] == ["abc v1"]


def test_a_test_event_is_noted() -> None:
    """S3 User Guide, "Event message structure": sent when a notification is set up."""
    heard = hear({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2014-10-13T15:57:02.089Z", "Bucket": BUCKET})
    assert not heard.changes
    assert "s3:TestEvent" in heard.note


def test_other_buckets_prefixes_and_folders_are_let_go_with_a_note() -> None:
    records = [record("docs/a.md", bucket="another"), record("else/a.md"), record("docs/a.tmp"), record("docs/folder/")]
    heard = hear({"Records": records}, prefix="docs/", exclude=["*.tmp"])
    assert not heard.changes
    assert "another bucket: 'another'" in heard.note
    assert "an object that the source leaves out (3)" in heard.note


@pytest.mark.parametrize(
    ("one", "other", "later"),
    [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E4", True),
        ("0055AED6DCD90281E4", "0055AED6DCD90281E5", False),
        ("0055aed6dcd90281e5", "0055AED6DCD90281E4", True),
        ("1", "01", True),
        ("10", "1", False),
        ("1", "10", False),
        ("11", "1", True),
    ],
)
def test_sequencers_are_padded_on_the_right(one: str, other: str, later: bool) -> None:
    assert is_later(one, other) is later


def test_the_latest_word_on_an_object_counts() -> None:
    """Records of one delivery may be out of order; without sequencers the last one is the latest."""
    removed, written = "ObjectRemoved:Delete", "ObjectCreated:Put"
    shuffled = [
        record("doc.txt", removed, sequencer="0055AED6DCD90281E5"),
        record("doc.txt", written, sequencer="0055AED6DCD9"),
    ]
    assert refs(hear({"Records": shuffled})) == {"doc.txt": ChangeKind.DELETED}
    assert refs(hear({"Records": [*reversed(shuffled)]})) == {"doc.txt": ChangeKind.DELETED}
    plain = [record("doc.txt", removed), record("doc.txt", written)]
    assert refs(hear({"Records": plain})) == {"doc.txt": ChangeKind.UPDATED}


# EventBridge


def bridged(kind: str, **detail: Any) -> Any:
    """As in the S3 User Guide, "EventBridge event message structure"."""
    stored = {"key": "a b+ü%20.txt", "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184", "sequencer": "617f08299329d189"}
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2021-11-12T00:00:00Z",
        "region": "ca-central-1",
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": {"version": "0", "bucket": {"name": BUCKET}, "object": stored, "requester": "123456789012", **detail},
    }


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (bridged("Object Created", reason="PutObject"), ChangeKind.UPDATED),
        (bridged("Object Deleted", reason="DeleteObject", **{"deletion-type": "Delete Marker Created"}), ChangeKind.DELETED),
        (bridged("Object Deleted", reason="Lifecycle Expiration"), ChangeKind.DELETED),
        (bridged("Object Restore Completed"), ChangeKind.UPDATED),
        (bridged("Object Something New"), ChangeKind.UPDATED),
        (bridged("Object Tags Added"), None),
        (bridged("Object Restore Expired"), None),
        (bridged("Object Storage Class Changed"), None),
        ({**bridged("Object Created"), "source": "aws.ec2"}, None),
        (bridged("Object Created", bucket={"name": "another"}), None),
    ],
)
def test_eventbridge_by_an_api_destination(event: Any, kind: ChangeKind | None) -> None:
    """Its keys are written as they are. Its id is no delivery's: moto's events all have the same."""
    heard = hear(event)
    assert refs(heard) == ({"a b+ü%20.txt": kind} if kind else {})
    assert heard.delivery_id is None


# the token


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": f"Bearer {TOKEN}"}, {}),
        ({"authorization": TOKEN}, {}),
        ({"authorization": basic(TOKEN)}, {}),
        ({}, {"token": TOKEN}),
    ],
)
def test_the_token_may_come_as_senders_can_send_it(headers: dict[str, str], query: dict[str, str]) -> None:
    body = {"Records": [record("doc.txt")]}
    assert refs(hearing().parse_webhook(delivery(body, headers=headers, query=query), []))


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, {}),
        ({"authorization": "Bearer wrong"}, {}),
        ({"authorization": "Bearer "}, {}),
        ({"authorization": "Basic %%"}, {}),
        ({"authorization": basic("wrong")}, {}),
        ({"authorization": "Bearer wrong"}, {"token": TOKEN}),
        ({"x-api-key": TOKEN}, {}),
    ],
)
def test_without_the_token_nothing_is_believed(headers: dict[str, str], query: dict[str, str]) -> None:
    with pytest.raises(Unverified):
        hearing().parse_webhook(delivery({"Records": [record("doc.txt")]}, headers=headers, query=query), [])


def test_without_a_secret_nobody_is_believed() -> None:
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
        with pytest.raises(Unverified):
            hearing(None).parse_webhook(delivery({"Records": []}, headers=headers), [])


def test_a_token_that_is_replaced_works_beside_the_new_one() -> None:
    both = hearing(json.dumps({"webhook": ["new", "old"]}), token_header="X-Api-Key")
    for token, right in (("new", True), ("old", True), ("older", False)):
        given = delivery({"Records": [record("doc.txt")]}, headers={"x-api-key": token})
        if right:
            assert refs(both.parse_webhook(given, []))
        else:
            with pytest.raises(Unverified):
                both.parse_webhook(given, [])


NONSENSE: tuple[Any, ...] = (
    *(b"", b"{", b"\xff\xfe", b"[]", b"1", b"null", b'{"some": "thing"}', b"[" * 100_000, b'{"a":' * 100_000),
    *({"Records": {}}, {"Records": [1]}, {"Records": [{}]}, {"Records": [{"s3": {"bucket": {}, "object": {}}}]}),
    *({"Records": [record("")]}, {"detail-type": "Object Created", "source": "aws.s3"}),
    *({"event_type": "create", "key": "/buckets/b/x"}, {"event_type": "create", "key": 1, "message": {}}),
    *({"Type": "Notification", "Message": 1}, {"Type": "Notification", "Message": "no JSON"}),
    {"Type": "Notification", "Message": json.dumps({"Type": "Notification", "TopicArn": "t", "Message": "{}"})},
)


@pytest.mark.parametrize("body", NONSENSE)
def test_nonsense_is_refused_by_name(body: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        hear(body)
    assert refused.value.field
    assert TOKEN not in str(refused.value)


def test_a_huge_delivery_is_read() -> None:
    heard = hear({"Records": [record(f"doc{number}.txt") for number in range(5_000)]})
    assert len(heard.changes) == 5_000


# SNS


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
        with pytest.raises(ConnectorError):
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


# real systems


def collect(receiver: Receiver, connector: Hears, bucket: str, wanted: set[str]) -> dict[str, Change]:
    """Hear what comes until all of `wanted` is announced. Deliveries for other tests' buckets say so and nothing else."""
    found: dict[str, Change] = {}
    deadline = time.monotonic() + PATIENCE_S
    while not wanted <= found.keys():
        heard = connector.parse_webhook(receiver.deliveries.get(timeout=deadline - time.monotonic()), [])
        found |= {change.object_ref: change for change in heard.changes}
    return found


def test_seaweedfs_tells_of_each_change_by_its_key(weed: S3Server) -> None:
    bucket, s3 = new_name(), weed.client()
    s3.create_bucket(Bucket=bucket)
    keys = {*STRANGE_KEYS, "renamed-from.txt"}
    etags = {key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode())["ETag"].strip('"') for key in keys}
    connector = hearing(**weed.config(bucket))
    found = collect(weed.receiver, connector, bucket, keys)
    assert {key: found[key].version for key in keys} == etags, "and the hint is the object's version"
    assert set(found) == keys
    for key in ("a+b.txt", "dir/sub/x.txt"):
        s3.delete_object(Bucket=bucket, Key=key)
    found = collect(weed.receiver, connector, bucket, {"a+b.txt", "dir/sub/x.txt"})
    assert {change.change_kind for change in found.values()} == {ChangeKind.DELETED}


def test_seaweedfs_versions_uploads_in_parts_and_renames(weed: S3Server) -> None:
    bucket, s3 = new_name(), weed.client()
    s3.create_bucket(Bucket=bucket)
    connector = hearing(**weed.config(bucket))
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big.txt")["UploadId"]
    part = {"Bucket": bucket, "Key": "big.txt", "UploadId": upload}
    etag = s3.upload_part(**part, PartNumber=1, Body=b"all")["ETag"]
    s3.complete_multipart_upload(**part, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert set(collect(weed.receiver, connector, bucket, {"big.txt"})) == {"big.txt"}, "and nothing of its parts"
    move = f"{weed.filer_url}/buckets/{bucket}/new.txt?mv.from=/buckets/{bucket}/big.txt"
    assert httpx.post(move).is_success
    found = collect(weed.receiver, connector, bucket, {"big.txt", "new.txt"})
    assert (found["big.txt"].change_kind, found["new.txt"].change_kind) == (ChangeKind.DELETED, ChangeKind.UPDATED)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="d/doc.txt", Body=b"one")
    assert set(collect(weed.receiver, connector, bucket, {"d/doc.txt"})) == {"d/doc.txt"}
    s3.delete_object(Bucket=bucket, Key="d/doc.txt")
    assert set(collect(weed.receiver, connector, bucket, {"d/doc.txt"})) == {"d/doc.txt"}, "a delete marker: look at it"


@pytest.fixture
def certificates(aws: S3Server) -> Iterator[ProviderServer]:
    """moto's certificates at an address of their own: moto finds them only for a request that looks signed for SNS."""
    looks_signed = f"AWS4-HMAC-SHA256 Credential=any/20260101/{REGION}/sns/aws4_request, SignedHeaders=host, Signature=any"

    def fetch(asked: Asked) -> Answer:
        found = httpx.get(aws.url + asked.path, headers={"Authorization": looks_signed})
        return Answer(found.status_code, found.content)

    with ProviderServer() as server:
        server.on("GET", "/SimpleNotificationService-.+", fetch)
        yield server


def test_moto_by_sns_over_http_proven_by_its_signature(aws: S3Server, certificates: ProviderServer) -> None:
    """S3 → SNS → HTTP: signed by moto, verified here against the certificate that it serves."""
    bucket, s3, sns = new_name(), aws.client(), aws.client("sns")
    s3.create_bucket(Bucket=bucket)
    arn = sns.create_topic(Name=bucket)["TopicArn"]
    sns.subscribe(TopicArn=arn, Protocol="http", Endpoint=aws.receiver.hook)
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"TopicConfigurations": [{"TopicArn": arn, "Events": events}]}
    )
    assert arn.split(":")[3] == REGION
    connector = hearing(None, bucket=bucket, sns_topics=[arn], sns_endpoint_url=certificates.url)
    first = connector.parse_webhook(aws.receiver.deliveries.get(timeout=PATIENCE_S), [])
    assert "s3:TestEvent" in first.note
    keys = {key for key in STRANGE_KEYS if "\n" not in key}
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"text")
    found = collect(aws.receiver, connector, bucket, keys)
    assert set(found) == keys, "each under its own name"
    s3.delete_object(Bucket=bucket, Key="a+b.txt")
    assert collect(aws.receiver, connector, bucket, {"a+b.txt"})["a+b.txt"].change_kind is ChangeKind.DELETED


def test_changes_of_a_queue_s_three_senders(aws: S3Server) -> None:
    """S3 → SQS, S3 → SNS → SQS and S3 → EventBridge → SQS say the same of an object."""
    bucket, s3, sqs, sns, events = new_name(), aws.client(), aws.client("sqs"), aws.client("sns"), aws.client("events")
    s3.create_bucket(Bucket=bucket)
    url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=bucket)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    events.put_rule(Name=bucket, EventPattern=json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}))
    events.put_targets(Rule=bucket, Targets=[{"Id": "queue", "Arn": arn}])
    told = {
        "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}],
        "TopicConfigurations": [{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}],
        "EventBridgeConfiguration": dict[str, str](),
    }
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=told)
    s3.put_object(Bucket=bucket, Key="a b+ü%20.txt", Body=b"text")
    bodies: list[str] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        bodies += [message["Body"] for message in messages]
    connector = hearing(bucket=bucket)
    heard: Sequence[Heard] = [connector.parse_webhook(delivery(body.encode()), []) for body in bodies]
    said = [refs(one) for one in heard if one.changes]
    assert said == [{"a b+ü%20.txt": ChangeKind.UPDATED}] * 3
    notes = " ".join(one.note for one in heard)
    assert notes.count("s3:TestEvent") == 2
    events.remove_targets(Rule=bucket, Ids=["queue"])
