"""What the connector `s3` hears: notifications as they are documented, in each sender's spelling, and nonsense."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.s3_messages import BUCKET, delivery, hear, hearing, record, refs
from tests.s3_servers import TOKEN

from sourcebus.connectors.s3.keys import is_later, keys_of
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import ChangeKind

# keys, in each sender's spelling


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_no_key_is_ever_mangled(key: str) -> None:
    """Whether the sender encodes or not, and whether that is known or not, the key itself is among the readings."""
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


def test_events_of_the_bucket_itself_need_no_object() -> None:
    created = record("x", "s3:BucketCreated:*", source="minio:s3")
    created["s3"]["object"] = {"key": ""}
    assert hear({"Records": [created]}, endpoint_url="http://minio:9000").note


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


# SeaweedFS


def filed(kind: str, path: str, *, old: Any = None, new: Any = None, parent: str = "") -> Any:
    """As SeaweedFS 4.48 sends it."""
    return {"event_type": kind, "key": path, "message": {"old_entry": old, "new_entry": new, "new_parent_path": parent}}


FILE, FOLDER = {"name": "f", "attributes": {"file_size": 1}}, {"name": "d", "is_directory": True}


@pytest.mark.parametrize(
    ("event", "said", "note"),
    [
        (filed("create", f"/buckets/{BUCKET}/a b+%20ü", new=FILE), {"a b+%20ü": ChangeKind.UPDATED}, ""),
        (filed("update", f"/buckets/{BUCKET}/x", old=FILE, new=FILE), {"x": ChangeKind.UPDATED}, ""),
        (filed("delete", f"/buckets/{BUCKET}/x", old=FILE), {"x": ChangeKind.DELETED}, ""),
        (
            filed("rename", f"/buckets/{BUCKET}/x", old=FILE, new=FILE, parent=f"/buckets/{BUCKET}/d"),
            {"x": ChangeKind.DELETED, "d/f": ChangeKind.UPDATED},
            "",
        ),
        (
            filed("rename", f"/buckets/{BUCKET}/x", old=FILE, new=FILE, parent="/buckets/another"),
            {"x": ChangeKind.DELETED},
            "another bucket: 'another'",
        ),
        (filed("delete", f"/buckets/{BUCKET}", old=FOLDER), {"": ChangeKind.SCAN}, ""),
        (filed("create", f"/buckets/{BUCKET}", new=FOLDER), {}, ""),
        (filed("create", f"/buckets/{BUCKET}/d", new=FOLDER), {}, "a folder: what is in it is announced by itself"),
        (filed("create", f"/buckets/{BUCKET}/.uploads/1/0001.part", new=FILE), {}, "a part of an upload that is not finished"),
        (filed("create", "/buckets/another/x", new=FILE), {}, "another bucket: 'another'"),
        (filed("create", "/etc/x", new=FILE), {}, "a file that is in no bucket"),
    ],
)
def test_what_seaweedfs_says(event: Any, said: dict[str, ChangeKind], note: str) -> None:
    heard = hear(event)
    assert (refs(heard), heard.note) == (said, note)


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


NONSENSE: list[str | bytes] = [
    *(b"", b"{", b"\xff\xfe", b"[]", b"1", b"null", b'{"some": "thing"}', b"[" * 100_000, b'{"a":' * 100_000),
    *('{"Records": {}}', '{"Records": [1]}', '{"Records": [{}]}', '{"Records": [{"s3": {"bucket": {}, "object": {}}}]}'),
    *(json.dumps({"Records": [record("")]}), '{"detail-type": "Object Created", "source": "aws.s3"}'),
    *('{"event_type": "create", "key": "/buckets/b/x"}', '{"event_type": "create", "key": 1, "message": {}}'),
    *('{"Type": "Notification", "Message": 1}', '{"Type": "Notification", "Message": "no JSON"}'),
    json.dumps({"Type": "Notification", "Message": json.dumps({"Type": "Notification", "TopicArn": "t", "Message": "{}"})}),
]


@pytest.mark.parametrize("body", NONSENSE)
def test_nonsense_is_refused_by_name(body: str | bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        hear(body if isinstance(body, bytes) else body.encode())
    assert refused.value.field
    assert TOKEN not in str(refused.value)


def test_a_huge_delivery_is_read() -> None:
    heard = hear({"Records": [record(f"doc{number}.txt") for number in range(5_000)]})
    assert len(heard.changes) == 5_000
