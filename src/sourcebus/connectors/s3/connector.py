"""The connector itself: the calls of `Connector`, `Costly`, `Hears` and `Watches` on a bucket and its notifications."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.documents import document
from sourcebus.connectors.s3.bucket import CALLS_AT_ONCE, PAGE, Bucket, Stored, fingerprint_of, version_of
from sourcebus.connectors.s3.queue import WAIT_S, QueueWatch
from sourcebus.connectors.s3.records import Reader
from sourcebus.connectors.s3.settings import Settings
from sourcebus.connectors.s3.sns import Topics, is_envelope
from sourcebus.connectors.signing import check_token
from sourcebus.errors import CursorExpired, InvalidInput, ObjectGone, ObjectUnreadable, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, Delivery, Extraction, Heard, Quota, Subscription


class S3Connector(Connector):
    """The objects of a bucket, below a prefix. An `object_ref` is the whole key, a scope what keys begin with."""

    name = "s3"
    recommended = Recommended(
        # S3 allows 5,500 GET or HEAD requests a second per prefix ("Optimizing Amazon S3 performance"). Others read there too.
        quota=Quota(rate=50, burst=100, concurrency=CALLS_AT_ONCE),
        window_ms=5_000,
        poll_interval_s=600.0,
    )

    def __init__(self, settings: Settings, page_keys: int = PAGE) -> None:
        self._settings = settings
        self._bucket, self._reader = Bucket(settings, page_keys), Reader(settings)
        self._topics = Topics(settings.sns_topics, settings.sns_endpoint_url)

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        """See docs/connectors/s3.md. With a queue it is one that watches: an `S3QueueConnector`."""
        settings = Settings.parse(config, secret)
        made = S3QueueConnector if settings.queue_url else S3Connector
        return made(settings)  # pyright: ignore[reportReturnType]  # both are this connector, whichever was asked

    def close(self) -> None:
        self._bucket.close()
        self._topics.close()

    def take_cost(self) -> float:
        """See `Costly`: requests to S3."""
        return self._bucket.take_cost()

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """List everything below `scope`, a page of 1,000 keys at a time; S3 keeps no record of changes.

        `cursor` is a page's place in a pass that was cut, and None again once a pass has ended.
        """
        prefix = self._prefix(scope)
        if prefix is None:
            yield Cursor(None, complete=True)
            return
        token = _place(cursor, prefix)
        while True:
            page = self._bucket.page(prefix, token)
            for stored in page.objects:
                if self._is_object(stored):
                    version = None if self._settings.versioned else stored.etag
                    yield Change(stored.key, version=version, fingerprint=fingerprint_of(stored))
            token = page.next_token
            if token is None:
                yield Cursor(None, complete=True)
                return
            yield Cursor(json.dumps({"prefix": _digest(prefix), "token": token}))

    def version(self, ref: str) -> str | None:
        stored = self._bucket.look(ref) if self._settings.covers(ref) else None
        if stored is None or not self._is_object(stored):
            return None
        version = version_of(stored.etag, stored.version_id, versioned=self._settings.versioned)
        return f"{stored.hindered}:{version}" if stored.hindered else version

    def extract(self, ref: str) -> Extraction:
        if not self._settings.covers(ref):
            raise ObjectGone(f"{ref!r} is no object of this source")
        stored, data = self._bucket.read(ref)
        if not self._is_object(stored):
            raise ObjectGone(f"{ref!r} marks a folder")
        version = version_of(stored.etag, stored.version_id, versioned=self._settings.versioned)
        try:
            found = document(ref.rstrip("/").rpartition("/")[2] or ref, data)
        except ObjectUnreadable as error:
            raise ObjectUnreadable(error.reason, error.detail, version=version, fingerprint=stored.etag) from error
        return Extraction([found], version, stored.etag)

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        """A notification by HTTP: from SNS (proven by its signature), or from whoever knows the source's token."""
        del subscriptions  # they are made at the provider, by a person
        if self._settings.sns_topics and is_envelope(delivery):
            return self._from_sns(delivery)
        check_token(_token(delivery, self._settings.token_header), self._settings.secrets.all("webhook"))
        if is_envelope(delivery) and b'"SubscriptionConfirmation"' in delivery.body:
            raise InvalidInput("config.sns_topics", "does not name this topic, so it is not confirmed", "add its ARN")
        return self._reader.read(delivery.body).heard()

    def _from_sns(self, delivery: Delivery) -> Heard:
        envelope = self._topics.verified(delivery)
        match envelope["Type"]:
            case "SubscriptionConfirmation":
                self._topics.confirm(envelope)
                scan = Change(WHOLE_SOURCE, ChangeKind.SCAN)  # what changed before it is confirmed is not announced
                return Heard([scan], delivery_id=envelope.get("MessageId"), note=f"{envelope['TopicArn']} is confirmed")
            case "UnsubscribeConfirmation":
                return Heard(note=f"{envelope['TopicArn']} was unsubscribed: nothing more comes from it")
            case _:
                return self._reader.read(envelope.get("Message", "")).heard(envelope.get("MessageId"))

    def _prefix(self, scope: str) -> str | None:
        """What to list for a scope; None where nothing of the source can be in it."""
        own = self._settings.prefix
        if scope.startswith(own):
            return scope
        return own if own.startswith(scope) else None

    def _is_object(self, stored: Stored) -> bool:
        """Not an empty object by which browsers of buckets show a folder."""
        return self._settings.covers(stored.key) and not (stored.key.endswith("/") and stored.size == 0)


class S3QueueConnector(S3Connector):
    """`S3Connector` whose notifications wait in an SQS queue. `wait_s` is how long one request waits for them."""

    def __init__(self, settings: Settings, page_keys: int = PAGE, *, wait_s: int = WAIT_S) -> None:
        super().__init__(settings, page_keys)
        self._wait_s = wait_s

    def watch(self, stop: threading.Event, *, step_ms: int) -> Iterator[Sequence[Change]]:
        """As `Watches.watch`. SQS gathers by itself, so `step_ms` adds nothing."""
        del step_ms
        assert self._settings.queue_url is not None
        watch = QueueWatch(self._settings, self._reader, self._settings.queue_url, stop, wait_s=self._wait_s)
        return watch.batches()


def _place(cursor: str | None, prefix: str) -> str | None:
    """The token in a cursor. CursorExpired where it is of another listing: the prefix was changed since."""
    if cursor is None:
        return None
    try:
        place = json.loads(cursor)
        if place["prefix"] == _digest(prefix):
            return str(place["token"])
    except (ValueError, TypeError, KeyError):
        pass
    raise CursorExpired("the cursor belongs to another listing")


def _digest(prefix: str) -> str:
    return hashlib.sha256(prefix.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _token(delivery: Delivery, header: str) -> str | None:
    """The token in its header (``Bearer TOKEN``, ``Basic`` with it as the password, or bare), else in the query."""
    given = delivery.headers.get(header)
    if given is None:
        return delivery.query.get("token")
    scheme, _, rest = given.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            raise Unverified("the Authorization header is no Basic one") from None
    return given.strip()
