"""Buckets for the connector suite: on SeaweedFS, which tells of changes, and on moto with a queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.connectors.test_s3_refusals import refusal
from tests.s3_servers import SECRET, Line, S3Server, new_name

from sourcebus.connectors import Connector, create
from sourcebus.connectors.s3 import S3QueueConnector
from sourcebus.connectors.s3.settings import Settings
from sourcebus.model import Delivery
from sourcebus.testing import Hook, SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import PATIENCE_S
from sourcebus.testing.providers.server import Answer, ProviderServer


class BucketUnderTest(SourceUnderTest):
    """A bucket of its own. Its outage is the line to the server, cut."""

    def __init__(self, server: S3Server, settings: dict[str, Any]) -> None:
        self.server, self.line, self.s3, self.bucket = server, Line(server.url), server.client(), new_name()
        self.settings, self.stern = settings, ProviderServer().__enter__()
        self.s3.create_bucket(Bucket=self.bucket)

    def connect(self) -> Connector:
        return create("s3", {"bucket": self.bucket, "endpoint_url": self.line.url, **self.settings}, SECRET)

    def write(self, name: str, text: str) -> str:
        self.s3.put_object(Bucket=self.bucket, Key=f"{name}.txt", Body=text.encode())
        return f"{name}.txt"

    def delete(self, ref: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=ref)

    def rename(self, ref: str, name: str) -> str:
        self.s3.copy_object(Bucket=self.bucket, Key=f"{name}.txt", CopySource={"Bucket": self.bucket, "Key": ref})
        self.delete(ref)
        return f"{name}.txt"

    def break_off(self) -> None:
        self.line.cut()

    def break_half_way(self) -> None:
        not_applicable("a dozen objects are one page")

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        forms = {
            "503 SlowDown": refusal("SlowDown"),
            "503 SlowDownRead": refusal("SlowDownRead"),
            "503 ServiceUnavailable": refusal("ServiceUnavailable"),
            "429 TooManyRequests": refusal("TooManyRequests", 429),
            "429 without words": refusal("", 429, {"Retry-After": "2"}),
        }
        return {form: lambda answer=answer: self.answer_instead(answer) for form, answer in forms.items()}

    def answer_instead(self, answer: Answer) -> None:
        self.stern.refuse(answer, times=1000)
        self.line.lead_to(self.stern.url)

    def revoke(self) -> None:
        self.answer_instead(refusal("InvalidAccessKeyId", 403))

    def mend(self) -> None:
        self.stern.accept_again()
        self.line.mend()

    def close(self) -> None:
        self.line.close()
        self.stern.close()


class ToldBucket(BucketUnderTest):
    """`BucketUnderTest` on SeaweedFS, which tells one receiver of the changes in all buckets, one delivery for each."""

    def __init__(self, server: S3Server, settings: dict[str, Any]) -> None:
        super().__init__(server, settings)
        self.untold = Counter[str]()

    def write(self, name: str, text: str) -> str:
        ref = super().write(name, text)
        self.untold[ref] += 1
        return ref

    def delete(self, ref: str) -> None:
        super().delete(ref)
        self.untold[ref] += 1

    def listen(self, hook: Hook) -> None:
        """SeaweedFS tells of everything from its beginning on."""

    def settle(self, hook: Hook) -> None:
        while +self.untold:
            self.hand_on(hook)

    def hand_on(self, hook: Hook) -> bytes:
        """The next delivery that SeaweedFS has sent, of whatever bucket."""
        delivery = self.server.receiver.deliveries.get(timeout=PATIENCE_S)
        self.untold.subtract(change.object_ref for change in hook.hear(delivery).changes)
        hook.take(delivery)
        return delivery.body

    def forged(self, delivery: Delivery) -> Sequence[Delivery]:
        """SeaweedFS signs nothing: a bearer token proves it."""
        headers = {name: value for name, value in delivery.headers.items() if name != "authorization"}
        return [replace(delivery, headers={**headers, **more}) for more in ({}, {"authorization": "Bearer guessed"})]

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        other = new_name()
        self.s3.create_bucket(Bucket=other)
        self.s3.put_object(Bucket=other, Key="doc.txt", Body=b"text")
        while other.encode() not in self.hand_on(hook):
            pass
        return hook.ignored


class VersionedBucket(BucketUnderTest):
    def listen(self, hook: Hook) -> None:
        not_applicable("SeaweedFS tells of one change in several deliveries here; other tests hear them")


def under_test(kind: type[BucketUnderTest], server: S3Server, **settings: Any) -> Iterator[BucketUnderTest]:
    source = kind(server, settings)
    yield source
    source.close()


class QueuedBucket(BucketUnderTest):
    """`BucketUnderTest` with a queue that is asked in short turns, so that tests end soon."""

    def connect(self) -> Connector:
        config = {"bucket": self.bucket, "endpoint_url": self.line.url, **self.settings}
        return S3QueueConnector(Settings.parse(config, SECRET), wait_s=0)
