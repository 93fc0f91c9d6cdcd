"""Throttling and other refusals in every form that S3 and its imitators have, as a server of our own answers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from tests.s3_servers import SECRET

from sourcebus.connectors import create
from sourcebus.errors import CursorExpired, NeedsAuth, ObjectUnreadable, SourceUnavailable, Throttled
from sourcebus.model import Cursor
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.server import Answer, ProviderServer

LISTED = b'<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>'


def refusal(code: str, status: int = 503, headers: Mapping[str, str] = MappingProxyType({})) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>'.encode() if code else b""
    own = {"x-amz-request-id": "1"} if code else dict[str, str]()
    return Answer(status, body, {"Content-Type": "application/xml", **own, **headers})


@pytest.fixture
def stern() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        server.on("GET", "/bbb", lambda _asked: Answer(200, LISTED, {"Content-Type": "application/xml"}))
        yield server


def ask_stern(stern: ProviderServer, answer: Answer, ask: str) -> Any:
    connector = create("s3", {"bucket": "bbb", "endpoint_url": stern.url}, SECRET)
    stern.refuse(answer, times=9)
    try:
        return listing(connector) if ask == "list" else getattr(connector, ask)("doc.txt")
    finally:
        asked = len(stern.asked)
        connector.close()
        assert asked == 1 or not isinstance(answer, Throttled), "a throttled call is not repeated here"


@pytest.mark.parametrize("ask", ["list", "version", "extract"])
@pytest.mark.parametrize(
    ("answer", "wait_ms"),
    [
        (refusal("SlowDown"), None),
        (refusal("SlowDownRead"), None),
        (refusal("ServiceUnavailable"), None),
        (refusal("SlowDown", headers={"Retry-After": "7"}), 7_000),
        (refusal("TooManyRequests", 429), None),
        (refusal("", 429, headers={"Retry-After": "2"}), 2_000),
        (refusal("", 503, headers={"x-amz-request-id": "1"}), None),
    ],
)
def test_every_form_of_throttling_is_recognised(stern: ProviderServer, answer: Answer, wait_ms: int | None, ask: str) -> None:
    with pytest.raises(Throttled) as throttled:
        ask_stern(stern, answer, ask)
    assert throttled.value.retry_after_ms == wait_ms
    assert len(stern.asked) == 1, "it is not repeated here"


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "BandwidthLimitExceeded", "KMS.ThrottlingException"])
def test_throttling_under_another_status(stern: ProviderServer, code: str) -> None:
    with pytest.raises(Throttled):
        ask_stern(stern, refusal(code, 400), "list")


@pytest.mark.parametrize("ask", ["list", "version", "extract"])
@pytest.mark.parametrize("answer", [refusal("", 503), refusal("InternalError", 500), refusal("", 502), Answer(200, b"<html>")])
def test_an_outage_is_an_outage(stern: ProviderServer, answer: Answer, ask: str) -> None:
    """Also a proxy's error page, with whatever status."""
    with pytest.raises(SourceUnavailable):
        ask_stern(stern, answer, ask)


@pytest.mark.parametrize(
    "code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed"]
)
@pytest.mark.parametrize("ask", ["list", "version", "extract"])
def test_refused_credentials(stern: ProviderServer, code: str, ask: str) -> None:
    with pytest.raises(NeedsAuth):
        ask_stern(stern, refusal(code, 400 if code in ("ExpiredToken", "AuthorizationHeaderMalformed") else 403), ask)


def test_an_archived_object_waits_for_its_restore(stern: ProviderServer) -> None:
    """It is looked at again when the listing no longer says so; meanwhile listings leave it alone."""
    entry = (
        "<Contents><Key>doc.txt</Key><ETag>&quot;e1&quot;</ETag><Size>3</Size><StorageClass>GLACIER</StorageClass>%s</Contents>"
    )
    restored = "<RestoreStatus><RestoreExpiryDate>2030-01-01T00:00:00.000Z</RestoreExpiryDate></RestoreStatus>"
    page = [entry % ""]

    def list_page(_asked: object) -> Answer:
        body = f'<?xml version="1.0"?><ListBucketResult><Name>archive</Name>{page[0]}</ListBucketResult>'
        return Answer(200, body.encode(), {"Content-Type": "application/xml"})

    stern.on("GET", "/archive", list_page)
    connector = create("s3", {"bucket": "archive", "endpoint_url": stern.url}, SECRET)
    listed = listing(connector).found["doc.txt"]
    stern.refuse(refusal("InvalidObjectState", 403))
    with pytest.raises(ObjectUnreadable) as refused:
        connector.extract("doc.txt")
    assert (refused.value.reason, refused.value.version) == ("archived", "archived:e1")
    assert refused.value.fingerprint == listed.fingerprint
    page[0] = entry % restored
    assert listing(connector).found["doc.txt"].fingerprint == "e1" != listed.fingerprint
    connector.close()


def test_a_token_that_the_server_does_not_know_any_more_is_an_expired_cursor(stern: ProviderServer) -> None:
    first = "<IsTruncated>true</IsTruncated><NextContinuationToken>t1</NextContinuationToken>"
    body = f'<?xml version="1.0"?><ListBucketResult><Name>long</Name>{first}</ListBucketResult>'
    stern.on("GET", "/long", lambda _asked: Answer(200, body.encode(), {"Content-Type": "application/xml"}))
    connector = create("s3", {"bucket": "long", "endpoint_url": stern.url}, SECRET)
    place = next(iter(connector.changes(None)))
    assert isinstance(place, Cursor)
    stern.refuse(refusal("InvalidArgument", 400))
    with pytest.raises(CursorExpired):
        next(iter(connector.changes(place.value)))
    with pytest.raises(SourceUnavailable):
        list(connector.changes(place.value))  # it gives the same token again: this would go on for ever
    connector.close()
