"""Asking the bucket: one page of its listing, one object's state, one object's bytes. Each call is made once and counted."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader
from botocore.session import Session

from sourcebus.connectors.s3.meaning import code_of, headers_of, meaning, status_of
from sourcebus.connectors.s3.settings import Settings
from sourcebus.errors import CursorExpired, ObjectGone, ObjectUnreadable, SourceUnavailable

PAGE = 1_000
"""Keys in a page of the listing: the most that S3 gives."""

_AROUND = 100
"""Keys asked for when a listing stands in for one object: it is among the first that begin with its key."""

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")

CALLS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as the bucket describes it. `etag` is without its quotes; `version_id` None where there is none to tell.

    `hindered` is why it cannot be read now (``archived``, ``forbidden``, ``refused``), "" where nothing is known to.
    """

    key: str
    etag: str
    size: int
    version_id: str | None = None
    hindered: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    objects: Sequence[Stored]
    next_token: str | None


class Bucket:
    """One bucket, from any thread. Opens nothing before the first call; `close` lets go of connections.

    `page_keys` is how many keys a page of the listing may have.
    """

    def __init__(self, settings: Settings, page_keys: int = PAGE) -> None:
        self._settings, self._page_keys = settings, page_keys
        self._lock = threading.Lock()
        self._made: Any = None
        self._spent = threading.local()

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def take_cost(self) -> float:
        """See `Costly`. Every request is one unit, as Amazon counts them."""
        spent = getattr(self._spent, "units", 0.0)
        self._spent.units = 0.0
        return spent

    def page(self, prefix: str, token: str | None = None, most: int | None = None) -> Page:
        """The objects below `prefix`, from where `token` points. CursorExpired where the server does not know the token."""
        more = {"ContinuationToken": token} if token else {}
        try:
            answer = self._call(
                "list_objects_v2",
                Prefix=prefix,
                MaxKeys=most or self._page_keys,
                OptionalObjectAttributes=["RestoreStatus"],
                **more,
            )
        except ClientError as error:
            if token and code_of(error) == "InvalidArgument":
                raise CursorExpired(f"list {self._settings.bucket}: {code_of(error)}") from error
            raise meaning(error, f"list {self._settings.bucket}") from error
        following = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        if answer.get("IsTruncated") and (not following or following == token):
            raise SourceUnavailable(f"list {self._settings.bucket}: there is more, and no way to go on")
        return Page([_listed(entry) for entry in answer.get("Contents", [])], following)

    def look(self, key: str) -> Stored | None:
        """The object's state now, None if the bucket says that it is not there. What stands in the way is in `hindered`."""
        try:
            answer = self._call("head_object", Key=key)
        except ClientError as error:
            if headers_of(error).get("x-amz-delete-marker") == "true":
                return None
            status = status_of(error)
            if status == 429 or not 300 <= status < 500:
                raise meaning(error, f"look at {key!r}") from error
            return self._from_listing(key, "forbidden" if status == 403 else "refused")
        return _described(key, answer)

    def read(self, key: str) -> tuple[Stored, bytes]:
        """The object's bytes, and the state of exactly these: one GET answers with both, so no ``If-Match`` is needed.

        Raises `ObjectGone`, and `ObjectUnreadable` (``too_large``, ``archived``, ``forbidden``, ``refused``, ``broken``).
        """
        try:
            answer = self._call("get_object", Key=key)
        except ClientError as error:
            raise self._not_read(key, error) from error
        stored, body = _described(key, answer), answer["Body"]
        try:
            return stored, self._bytes(stored, body, answer.get("ContentEncoding", ""))
        except BotoCoreError as error:
            raise meaning(error, f"read {key!r}") from error
        finally:
            body.close()

    def _not_read(self, key: str, error: ClientError) -> Exception:
        code, status = code_of(error), status_of(error)
        if code == "NoSuchKey" or headers_of(error).get("x-amz-delete-marker") == "true":
            return ObjectGone(f"{key!r}: {code}")
        if code == "NoSuchBucket" or status == 429 or not 300 <= status < 500:
            return meaning(error, f"read {key!r}")
        reason = {"InvalidObjectState": "archived"}.get(code) or ("forbidden" if status == 403 else "refused")
        stored = self._from_listing(key, reason)
        if stored is None:
            return ObjectGone(f"{key!r}: {code}, and it is not listed")
        return self._unreadable(stored, reason, f"the bucket answers {code or status}")

    def _from_listing(self, key: str, hindered: str) -> Stored | None:
        """What the listing says of an object that does not answer for itself.

        An answer to HEAD has no body: 404 may be the object or the whole bucket, 403 this object or every one. The listing
        tells them apart, by raising for the bucket.
        """
        try:
            listed = self.page(key, most=_AROUND).objects
        except SourceUnavailable as error:
            if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) in ("InvalidRequest", "KeyTooLongError"):
                return None  # it does not take this for a key at all
            raise
        found = next((stored for stored in listed if stored.key == key), None)
        return found and replace(found, hindered=hindered)

    def _bytes(self, stored: Stored, body: Any, encoding: str) -> bytes:
        most = self._settings.max_bytes
        if stored.size > most:
            raise self._unreadable(stored, "too_large", f"is {stored.size} bytes long, more than {most}")
        data = cast("bytes", body.read())
        return self._unpacked(stored, data) if "gzip" in encoding.lower() else data

    def _unpacked(self, stored: Stored, data: bytes) -> bytes:
        """An object that is kept compressed for browsers. Never more than `max_bytes` of it."""
        most = self._settings.max_bytes
        try:
            text = zlib.decompressobj(wbits=31).decompress(data, most + 1)
        except zlib.error as error:
            raise self._unreadable(stored, "broken", f"says it is gzip and is not: {error}") from error
        if len(text) > most:
            raise self._unreadable(stored, "too_large", f"unpacks to more than {most} bytes")
        return text

    def _unreadable(self, stored: Stored, reason: str, detail: str) -> ObjectUnreadable:
        """Names the state that was looked at. What may become readable without a new version counts as another one."""
        version = version_of(stored.etag, stored.version_id, versioned=self._settings.versioned)
        if reason in ("too_large", "broken"):
            return ObjectUnreadable(reason, detail, version=version, fingerprint=stored.etag)
        # a permission comes back without a trace, so only of archived objects does the listing prove that nothing changed
        mark = fingerprint_of(replace(stored, hindered=reason)) if reason == "archived" else None
        return ObjectUnreadable(reason, detail, version=f"{reason}:{version}", fingerprint=mark)

    def _call(self, operation: str, **arguments: Any) -> Any:
        self._spent.units = getattr(self._spent, "units", 0.0) + 1.0
        try:
            return getattr(self._client(), operation)(Bucket=self._settings.bucket, **arguments)
        except BotoCoreError as error:
            raise meaning(error, operation.replace("_", " ")) from error

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                style = "path" if self._settings.path_style else "auto"
                self._made = client(self._settings, "s3", self._settings.endpoint_url, s3={"addressing_style": style})
            return self._made


@cache
def _descriptions() -> Any:
    """botocore's descriptions of the services, read once per process: a tenth of a second that no further source pays."""
    return Loader()


def client(settings: Settings, service: str, endpoint_url: str | None, **more: Any) -> Any:
    """A botocore client that tries once: retries are the bus's work, and it has the whole source in view."""
    own = settings.access == "secret"
    secrets = settings.secrets
    session: Any = Session()
    session.register_component("data_loader", _descriptions())
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=CALLS_AT_ONCE,
        retries={"total_max_attempts": 1},
        response_checksum_validation="when_required",  # what other servers than Amazon's send is not always right
        user_agent_extra="sourcebus",
        signature_version=UNSIGNED if settings.access == "anonymous" else None,
        **more,
    )
    try:
        return session.create_client(
            service,
            endpoint_url=endpoint_url,
            region_name=settings.region,
            config=config,
            aws_access_key_id=secrets.one("access_key") if own else None,
            aws_secret_access_key=secrets.one("secret_key") if own else None,
            aws_session_token=secrets.one("session_token") if own else None,
        )
    except BotoCoreError as error:
        raise meaning(error, f"connect to {urlsplit(endpoint_url or '').hostname or service}") from error


def version_of(etag: str, version_id: str | None, *, versioned: bool) -> str:
    """The object's strong version: its ETag, and in a versioned bucket (if the source says so) which version it is."""
    return f"{etag} {version_id}" if versioned and version_id else etag


def fingerprint_of(stored: Stored) -> str:
    """What the listing tells of an object: its ETag, and that it is archived, which ends without a new ETag."""
    return f"archived:{stored.etag}" if stored.hindered == "archived" else stored.etag


def _listed(entry: dict[str, Any]) -> Stored:
    archived = entry.get("StorageClass") in _ARCHIVES and not entry.get("RestoreStatus", {}).get("RestoreExpiryDate")
    return Stored(entry["Key"], _etag(entry), entry.get("Size", 0), hindered="archived" if archived else "")


def _described(key: str, answer: dict[str, Any]) -> Stored:
    version_id = answer.get("VersionId")
    return Stored(key, _etag(answer), answer.get("ContentLength", 0), version_id if version_id != "null" else None)


def _etag(answer: dict[str, Any]) -> str:
    etag = str(answer.get("ETag", "")).strip('"')
    if not etag:
        raise SourceUnavailable("the server gives no ETag, so a change could not be told from none")
    return etag
