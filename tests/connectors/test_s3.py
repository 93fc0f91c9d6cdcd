"""The connector `s3` on two S3 servers by other people: the public suite, and what only a bucket has."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.connectors.s3_source import QueuedBucket, ToldBucket, VersionedBucket, under_test
from tests.s3_servers import LISTS_ONLY, SECRET, Line, S3Server, new_name

from sourcebus.connectors import Costly, Hears, Watches, create
from sourcebus.connectors.s3 import S3Connector
from sourcebus.connectors.s3.settings import Settings
from sourcebus.errors import (
    CursorExpired,
    InvalidInput,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
)
from sourcebus.model import Change, Cursor
from sourcebus.testing import ConnectorSuite, SourceUnderTest, WatchingConnectorSuite
from sourcebus.testing.connector_suite import listing

STRANGE_KEYS = (
    *("plain.txt", "a b.txt", "a+b.txt", "a%2Bb.txt", "a%20b.txt", "100%.txt", "Grüße ☃.txt", "e\u0301.txt", "😀.txt"),
    *("new\nline.txt", "q?&=#;.txt", "dir/sub/x.txt", "x" * 200, "'quoted\"", "[a]*.txt", "x\x01y", "<&>.txt"),
)


class TestOnSeaweedfs(ConnectorSuite):
    @pytest.fixture
    def source(self, weed: S3Server) -> Iterator[SourceUnderTest]:
        yield from under_test(ToldBucket, weed)


class TestVersionedOnSeaweedfs(ConnectorSuite):
    """Deletes are delete markers, and a version is the ETag with the version's id."""

    @pytest.fixture
    def source(self, weed: S3Server) -> Iterator[SourceUnderTest]:
        for source in under_test(VersionedBucket, weed, versioned=True):
            source.s3.put_bucket_versioning(Bucket=source.bucket, VersioningConfiguration={"Status": "Enabled"})
            yield source


class TestWithAQueue(WatchingConnectorSuite):
    """S3 → SQS, both moto's."""

    @pytest.fixture
    def source(self, aws: S3Server) -> Iterator[SourceUnderTest]:
        sqs = aws.client("sqs")
        url = sqs.create_queue(QueueName=new_name())["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        source = QueuedBucket(aws, {"queue_url": url})
        told = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        source.s3.put_bucket_notification_configuration(
            Bucket=source.bucket, NotificationConfiguration={"QueueConfigurations": [told]}
        )
        yield source
        source.close()


Connect = Callable[..., S3Connector]


@pytest.fixture(params=["weed", "aws"])
def server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(server: S3Server) -> Iterator[str]:
    name = new_name()
    s3 = server.client()
    s3.create_bucket(Bucket=name)
    yield name


@pytest.fixture
def put(server: S3Server, bucket: str) -> Iterator[Callable[..., None]]:
    s3 = server.client()

    def make(key: str, body: bytes = b"text", **more: Any) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=body, **more)

    yield make


@pytest.fixture
def connect(server: S3Server, bucket: str) -> Iterator[Connect]:
    """`connect(page_keys=…, secret=…, **config)`: a connector on the bucket."""
    made: list[S3Connector] = []

    def make(*, page_keys: int = 1_000, secret: str = SECRET, **config: Any) -> S3Connector:
        made.append(S3Connector(Settings.parse(server.config(bucket) | config, secret), page_keys))
        return made[-1]

    yield make
    for connector in made:
        connector.close()


# keys


def test_any_key_is_listed_read_and_has_a_version(connect: Connect, put: Callable[..., None]) -> None:
    taken: list[str] = []
    for key in STRANGE_KEYS:
        try:
            put(key, f"this is {key!r}".encode())
            taken.append(key)
        except ClientError:
            assert key == "new\nline.txt", "moto alone has no such keys"
    connector = connect()
    found = listing(connector).found
    assert set(found) == set(taken)
    for key in taken:
        extraction = connector.extract(key)
        assert extraction.documents[0].text == f"this is {key!r}"
        assert extraction.version == connector.version(key) == found[key].version


def test_folder_markers_are_no_objects(connect: Connect, put: Callable[..., None]) -> None:
    put("folder/", b"")
    put("folder/inside.txt")
    connector = connect()
    assert set(listing(connector).found) == {"folder/inside.txt"}
    assert connector.version("folder/") is None
    with pytest.raises(ObjectGone):
        connector.extract("folder/")


def test_prefix_and_patterns_decide_what_is_an_object(connect: Connect, put: Callable[..., None]) -> None:
    for key in ("docs/a.md", "docs/b.tmp", "docs/deep/c.md", "docs-old/d.md", "other.md"):
        put(key)
    connector = connect(prefix="docs/", include=["*.md"], exclude=["deep/"])
    assert set(listing(connector).found) == {"docs/a.md"}
    assert connector.version("docs/a.md")
    for key in ("docs/b.tmp", "docs/deep/c.md", "docs-old/d.md", "other.md"):
        assert connector.version(key) is None
        with pytest.raises(ObjectGone):
            connector.extract(key)


@pytest.mark.parametrize(
    ("scope", "found"),
    [("docs/x/", {"docs/x/1"}), ("docs/", {"docs/x/1", "docs/y/2"}), ("do", {"docs/x/1", "docs/y/2"}), ("else/", set[str]())],
)
def test_a_scope_is_what_keys_begin_with(connect: Connect, put: Callable[..., None], scope: str, found: set[str]) -> None:
    for key in ("docs/x/1", "docs/y/2", "else/3"):
        put(key)
    result = listing(connect(prefix="docs/"), scope=scope)
    assert set(result.found) == found
    assert result.complete


# versions


def test_the_version_is_the_etag_also_of_an_upload_in_parts(
    connect: Connect, put: Callable[..., None], server: S3Server, bucket: str
) -> None:
    put("small.txt", b"abc")
    connector = connect()
    assert connector.version("small.txt") == "900150983cd24fb0d6963f7d28e17f72"  # MD5 of abc, RFC 1321
    s3 = server.client()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big.txt")["UploadId"]
    part = {"Bucket": bucket, "Key": "big.txt", "UploadId": upload}
    etags = [s3.upload_part(**part, PartNumber=n, Body=body)["ETag"] for n, body in ((1, b"x" * (5 << 20)), (2, b"end"))]
    parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
    s3.complete_multipart_upload(**part, MultipartUpload={"Parts": parts})
    version = connector.version("big.txt")
    assert version is not None
    assert re.fullmatch(r"[0-9a-f]{32}-2", version)
    assert listing(connector).found["big.txt"].version == connector.extract("big.txt").version == version


def test_a_versioned_bucket_shows_its_newest_version_and_forgets_deleted_objects(
    connect: Connect, server: S3Server, bucket: str, put: Callable[..., None]
) -> None:
    s3 = server.client()
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="doc.txt", Body=b"one")["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="doc.txt", Body=b"two")["VersionId"]
    plain, versioned = connect(), connect(versioned=True)
    assert versioned.version("doc.txt") == f"{plain.version('doc.txt')} {second}"
    listed = listing(versioned).found["doc.txt"]
    assert listed.version is None, "a listing does not tell the version's id"
    assert listed.fingerprint == versioned.extract("doc.txt").fingerprint == plain.version("doc.txt")
    marker = s3.delete_object(Bucket=bucket, Key="doc.txt")["VersionId"]
    assert versioned.version("doc.txt") is None
    assert not listing(versioned).found
    s3.delete_object(Bucket=bucket, Key="doc.txt", VersionId=marker)
    assert versioned.version("doc.txt") is not None, "without its delete marker the object is back"
    s3.delete_object(Bucket=bucket, Key="doc.txt", VersionId=second)
    assert versioned.extract("doc.txt").documents[0].text == "one"
    assert versioned.version("doc.txt") == f"{plain.version('doc.txt')} {first}"


# a pass in pages


def test_a_pass_that_was_cut_goes_on_where_it_was(connect: Connect, put: Callable[..., None]) -> None:
    """With a new connector, as another worker has it; together both parts have listed everything once."""
    keys = {f"{folder}{number}" for folder in ("", "a b/", "a/", "é/") for number in range(4)}
    for key in keys:
        put(key)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(100):
        part = take_one_page(connect(page_keys=3), cursor)
        seen += [item.object_ref for item in part if isinstance(item, Change)]
        last = part[-1]
        assert isinstance(last, Cursor)
        if last.complete:
            assert last.value is None, "the next pass begins anew"
            break
        assert last.value is not None
        cursor = last.value
    assert sorted(seen) == sorted(keys)


def take_one_page(connector: S3Connector, cursor: str | None) -> list[Change | Cursor]:
    part: list[Change | Cursor] = []
    for item in connector.changes(cursor):
        part.append(item)
        if isinstance(item, Cursor):
            break
    return part


def test_a_listing_that_fails_half_way_is_not_complete(server: S3Server, bucket: str, put: Callable[..., None]) -> None:
    for number in range(5):
        put(f"doc{number}")
    line = Line(server.url)
    connector = S3Connector(Settings.parse({"bucket": bucket, "endpoint_url": line.url}, SECRET), 2)
    items: list[Change | Cursor] = []
    with pytest.raises(SourceUnavailable):
        for item in connector.changes(None):
            items.append(item)
            if isinstance(item, Cursor):
                line.cut()
    assert [item.complete for item in items if isinstance(item, Cursor)] == [False]
    line.mend()
    rest = listing(connector, [item.value for item in items if isinstance(item, Cursor)][-1])
    assert rest.complete
    assert {item.object_ref for item in items if isinstance(item, Change)} | set(rest.found) == {f"doc{n}" for n in range(5)}
    connector.close()
    line.close()


@pytest.mark.parametrize("cursor", ["", "{}", "[1]", "no JSON", json.dumps({"prefix": "0123456789abcdef", "token": "x"})])
def test_the_cursor_of_another_listing_has_expired(connect: Connect, cursor: str) -> None:
    with pytest.raises(CursorExpired):
        next(connect().changes(cursor))


# what cannot be read


def test_an_object_over_the_limit_is_not_read(connect: Connect, put: Callable[..., None]) -> None:
    put("big.txt", b"x" * 1001)
    put("just.txt", b"x" * 1000)
    connector = connect(max_bytes=1000)
    assert len(connector.extract("just.txt").documents[0].text) == 1000
    with pytest.raises(ObjectUnreadable) as refused:
        connector.extract("big.txt")
    assert refused.value.reason == "too_large"
    assert refused.value.version == connector.version("big.txt") == listing(connector).found["big.txt"].version


def test_a_binary_object_is_recorded_under_its_version(connect: Connect, put: Callable[..., None]) -> None:
    put("image.png", b"\x89PNG\0\0\0")
    connector = connect()
    with pytest.raises(ObjectUnreadable) as refused:
        connector.extract("image.png")
    assert (refused.value.reason, refused.value.version) == ("binary", connector.version("image.png"))


def test_an_object_kept_compressed_is_unpacked_within_the_limit(connect: Connect, put: Callable[..., None]) -> None:
    put("page.txt", gzip.compress(b"unpacked"), ContentEncoding="gzip")
    put("bomb.txt", gzip.compress(b"x" * 50_000), ContentEncoding="gzip")
    put("lie.txt", b"plain", ContentEncoding="gzip")
    connector = connect(max_bytes=10_000)
    assert connector.extract("page.txt").documents[0].text == "unpacked"
    for key, reason in (("bomb.txt", "too_large"), ("lie.txt", "broken")):
        with pytest.raises(ObjectUnreadable) as refused:
            connector.extract(key)
        assert refused.value.reason == reason


def test_a_bucket_that_is_not_there_is_an_outage(connect: Connect) -> None:
    """Neither empty nor a reason to delete: HEAD answers 404 for it too."""
    connector = connect(bucket=new_name())
    for ask in (lambda: listing(connector), lambda: connector.version("doc"), lambda: connector.extract("doc")):
        with pytest.raises(SourceUnavailable):
            ask()


def test_an_object_that_may_not_be_read_is_not_gone(weed: S3Server) -> None:
    s3, bucket = weed.client(), new_name()
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="doc.txt", Body=b"secret")
    lists_only = create("s3", weed.config(bucket), json.dumps({"access_key": LISTS_ONLY, "secret_key": LISTS_ONLY}))
    etag = listing(lists_only).found["doc.txt"].version
    with pytest.raises(ObjectUnreadable) as refused:
        lists_only.extract("doc.txt")
    assert (refused.value.reason, refused.value.fingerprint) == ("forbidden", None)
    assert refused.value.version == lists_only.version("doc.txt") == f"forbidden:{etag}", "until the permission is back"
    assert lists_only.version("no-such-object") is None
    lists_only.close()


@pytest.mark.parametrize(
    "secret", [{"access_key": "unknown", "secret_key": "x"}, {"access_key": "an-access-key", "secret_key": "x"}]
)
def test_wrong_credentials_call_for_a_person(weed: S3Server, secret: dict[str, str]) -> None:
    connector = create("s3", weed.config(new_name()), json.dumps(secret))
    for ask in (lambda: listing(connector), lambda: connector.version("doc"), lambda: connector.extract("doc")):
        with pytest.raises(NeedsAuth):
            ask()
    connector.close()


# costs, and what the connector is


def test_each_request_is_one_unit(connect: Connect, put: Callable[..., None]) -> None:
    for number in range(5):
        put(f"doc{number}")
    connector = connect(page_keys=2)
    assert isinstance(connector, Costly)
    for ask, cost in (
        (lambda: listing(connector), 3),
        (lambda: connector.version("doc0"), 1),
        (lambda: connector.extract("doc0"), 1),
        (lambda: connector.version("gone"), 2),  # HEAD, and a listing that proves that the bucket is there
        (lambda: connector.version("x" * 1025), 0),
    ):
        connector.take_cost()
        ask()
        assert connector.take_cost() == cost
    assert connector.take_cost() == 0


def test_only_with_a_queue_does_it_watch() -> None:
    plain = create("s3", {"bucket": "some-bucket"}, None)
    queued = create(
        "s3", {"bucket": "some-bucket", "queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/changes"}, None
    )
    assert isinstance(plain, Hears)
    assert not isinstance(plain, Watches)
    assert isinstance(queued, Watches)


@pytest.mark.parametrize(
    ("config", "secret", "field"),
    [
        ({}, None, "config.bucket"),
        ({"bucket": "s3://name/path"}, None, "config.bucket"),
        ({"bucket": "arn:aws:s3:::name"}, None, "config.bucket"),
        ({"bucket": 1}, None, "config.bucket"),
        ({"bucket": "name", "endpoint_url": "minio:9000"}, None, "config.endpoint_url"),
        ({"bucket": "name", "endpoint_url": "http://user:pass@minio:9000"}, None, "config.endpoint_url"),
        ({"bucket": "name", "endpoint_url": "http://minio:port"}, None, "config.endpoint_url"),
        ({"bucket": "name", "queue_url": "changes"}, None, "config.queue_url"),
        ({"bucket": "name", "path_style": "yes"}, None, "config.path_style"),
        ({"bucket": "name", "max_bytes": 0}, None, "config.max_bytes"),
        ({"bucket": "name", "max_bytes": True}, None, "config.max_bytes"),
        ({"bucket": "name", "include": "*.md"}, None, "config.include"),
        ({"bucket": "name", "exclude": ["[z-a]"]}, None, "config.exclude"),
        ({"bucket": "name", "sns_topics": ["changes"]}, None, "config.sns_topics"),
        ({"bucket": "name", "credentials": "root"}, None, "config.credentials"),
        ({"bucket": "name", "credentials": "secret"}, None, "secret"),
        ({"bucket": "name"}, '{"access_key": "a"}', "secret"),
        ({"bucket": "name"}, '{"password": "a"}', "secret"),
        ({"bucket": "name", "prefx": "docs/"}, None, "config.prefx"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, Any], secret: str | None, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        create("s3", config, secret)
    assert refused.value.field == field
    assert "user:pass" not in str(refused.value)
