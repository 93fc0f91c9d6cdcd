"""Real signals: what SeaweedFS and moto send when an object changes, as the connector `s3` hears it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

import httpx
import pytest
from tests.connectors.test_s3 import STRANGE_KEYS
from tests.s3_messages import delivery, hearing, refs
from tests.s3_servers import REGION, Receiver, S3Server, new_name

from sourcebus.connectors import Hears
from sourcebus.model import Change, ChangeKind, Heard
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

PATIENCE_S = 10.0


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
