"""What a notification says, whoever sends it: Amazon's records, EventBridge, SNS envelopes, and SeaweedFS's own words.

All of it is hints. An event of an unknown kind that names an object still means "look at it"; only kinds that are known to
leave the content alone are let go.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sourcebus.connectors.s3.bucket import version_of
from sourcebus.connectors.s3.keys import is_later, keys_of
from sourcebus.connectors.s3.settings import Settings
from sourcebus.errors import InvalidInput
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Heard, JsonObject

_IGNORED = re.compile(
    r"ObjectTagging|ObjectAcl|ObjectAccessed|ObjectAnnotation|Replication|IntelligentTiering|LifecycleTransition"
    r"|ObjectLifecycle:Transition|ObjectTransition|ObjectRestore:(Post|Delete)|Bucket(Created|Removed)|Scanner|TestEvent"
)
"""Event names after which the content is as before (Amazon, MinIO, Ceph)."""

_REMOVED = re.compile(r"ObjectRemoved|LifecycleExpiration|ObjectLifecycle:Expiration")

_IGNORED_DETAIL = frozenset(
    {
        *("Object Restore Initiated", "Object Restore Expired", "Object Storage Class Changed", "Object Access Tier Changed"),
        *("Object ACL Updated", "Object Tags Added", "Object Tags Deleted"),
    }
)
"""Detail types of EventBridge after which the content is as before (S3 User Guide, "Using EventBridge")."""

_WEED_VERSIONS = ".versions"
_FIX = "send S3 event records, EventBridge events, SNS notifications of these, or SeaweedFS's filer events"


@dataclass
class News:
    """What was said: a change for each object, the latest word of each, and what was let go and why."""

    changes: dict[str, Change] = field(default_factory=dict[str, Change])
    let_go: Counter[str] = field(default_factory=Counter[str])
    _sequencers: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, change: Change, sequencer: str = "") -> None:
        known = self._sequencers.get(change.object_ref, "")
        if known and sequencer and is_later(known, sequencer):
            return
        self.changes[change.object_ref] = change
        self._sequencers[change.object_ref] = sequencer

    def heard(self, delivery_id: str | None = None) -> Heard:
        note = ", ".join(f"{why} ({count})" if count > 1 else why for why, count in sorted(self.let_go.items()))
        return Heard([*self.changes.values()], delivery_id=delivery_id, note=note)


class Reader:
    """Reads notifications for one source. Keeps nothing, so several threads may use it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._amazon = settings.endpoint_url is None

    def read(self, body: bytes | str, news: News | None = None) -> News:
        """Raises `InvalidInput` for what is no notification, naming where it goes wrong."""
        message = _object(_parsed(body), "body")
        news = news or News()
        if message.get("Event") == "s3:TestEvent":
            news.let_go["s3:TestEvent: the notification is set up"] += 1
        elif "Records" in message:
            for at, record in enumerate(_list(message["Records"], "Records")):
                self._record(_object(record, f"Records[{at}]"), f"Records[{at}]", news)
        elif "detail-type" in message:
            self._bridged(message, news)
        elif message.get("Type") == "Notification" and "Message" in message:
            self._enveloped(message, news)
        elif "event_type" in message and "key" in message:
            self._filed(message, news)
        else:
            raise InvalidInput("body", "is no notification that is known: " + ", ".join([*message][:8])[:200], _FIX)
        return news

    def _record(self, record: Mapping[str, Any], where: str, news: News) -> None:
        name = str(record.get("eventName", "")).removeprefix("s3:")
        s3 = _object(record.get("s3"), f"{where}.s3")
        if not self._ours(_name(s3.get("bucket"), f"{where}.s3.bucket"), news):
            return
        if _IGNORED.match(name):
            news.let_go[f"{name}: the content is as before"] += 1
            return
        stored = _object(s3.get("object"), f"{where}.s3.object")
        key = _text(stored.get("key"), f"{where}.s3.object.key")
        sender = str(record.get("eventSource", ""))
        encoded = sender.startswith("minio:") or (self._amazon and sender == "aws:s3")
        kind = ChangeKind.DELETED if _REMOVED.match(name) else ChangeKind.UPDATED
        self._say(keys_of(key, encoded=encoded), kind, stored, news)

    def _bridged(self, event: Mapping[str, Any], news: News) -> None:
        """Its ``id`` is not used: not every bus of events gives each its own."""
        kind_of = str(event["detail-type"])
        if event.get("source") != "aws.s3":
            news.let_go[f"not from S3 but {str(event.get('source'))[:80]}"] += 1
            return
        detail = _object(event.get("detail"), "detail")
        stored = _object(detail.get("object"), "detail.object")
        key = _text(stored.get("key"), "detail.object.key")
        if not self._ours(_name(detail.get("bucket"), "detail.bucket"), news):
            return
        if kind_of in _IGNORED_DETAIL:
            news.let_go[f"{kind_of}: the content is as before"] += 1
            return
        kind = ChangeKind.DELETED if kind_of == "Object Deleted" else ChangeKind.UPDATED
        self._say((key,), kind, stored, news)  # EventBridge writes keys as they are

    def _enveloped(self, envelope: Mapping[str, Any], news: News) -> None:
        inner = _text(envelope["Message"], "Message")
        if '"Type"' in inner and '"TopicArn"' in inner and _object(_parsed(inner), "Message").get("Type") == "Notification":
            raise InvalidInput("Message", "is an SNS notification inside another one", _FIX)
        self.read(inner, news)

    def _filed(self, event: Mapping[str, Any], news: News) -> None:
        """SeaweedFS's filer tells of its files: ``/buckets/BUCKET/KEY``, keys as they are. Seen with 4.48."""
        message = _object(event.get("message"), "message")
        old, new = (_object(message.get(name) or {}, f"message.{name}") for name in ("old_entry", "new_entry"))
        path = _text(event["key"], "key")
        moved = f"{message.get('new_parent_path', '')}/{new.get('name', '')}" if event["event_type"] == "rename" else None
        said = [(path, new or old, not new or moved is not None), *([(moved, new, False)] if moved else [])]
        for where, entry, removed in said:
            self._file(where, entry, removed, news)

    def _file(self, path: str, entry: Mapping[str, Any], removed: bool, news: News) -> None:
        if not path.startswith("/buckets/"):
            news.let_go["a file that is in no bucket"] += 1
            return
        bucket, _, inside = path.removeprefix("/buckets/").partition("/")
        if not self._ours(bucket, news):
            return
        if not inside:
            if removed:
                news.add(Change(WHOLE_SOURCE, ChangeKind.SCAN))
            return
        if inside == ".uploads" or inside.startswith(".uploads/"):
            news.let_go["a part of an upload that is not finished"] += 1
            return
        extended = cast("dict[str, Any]", entry.get("extended") or {})
        if entry.get("is_directory"):
            if inside.endswith(_WEED_VERSIONS) and not removed:
                self._say((inside.removesuffix(_WEED_VERSIONS),), ChangeKind.UPDATED, {}, news)
            else:
                news.let_go["a folder: what is in it is announced by itself"] += 1
            return
        folder = inside.rpartition("/")[0]
        if folder.endswith(_WEED_VERSIONS) and "Seaweed-X-Amz-Version-Id" in extended:
            self._say((folder.removesuffix(_WEED_VERSIONS),), ChangeKind.UPDATED, {}, news)
            return
        etag = _plain(extended.get("Seaweed-X-Amz-ETag"))
        self._say((inside,), ChangeKind.DELETED if removed else ChangeKind.UPDATED, {"etag": etag}, news)

    def _say(self, keys: tuple[str, ...], kind: ChangeKind, stored: Mapping[str, Any], news: News) -> None:
        version = (
            _version(stored, versioned=self._settings.versioned) if kind is ChangeKind.UPDATED and len(keys) == 1 else None
        )
        covered = [key for key in keys if self._settings.covers(key) and not key.endswith("/")]
        for key in covered:
            news.add(Change(key, kind, version), str(stored.get("sequencer") or ""))
        if not covered:
            news.let_go["an object that the source leaves out"] += 1

    def _ours(self, name: str, news: News) -> bool:
        if name != self._settings.bucket:
            news.let_go[f"another bucket: {name[:80]!r}"] += 1
            return False
        return True


def _version(stored: Mapping[str, Any], *, versioned: bool) -> str | None:
    """The hint: Amazon's records say ``eTag`` and ``versionId``, its EventBridge ``etag`` and ``version-id``."""
    etag = str(stored.get("eTag") or stored.get("etag") or "").strip('"')
    version_id = stored.get("versionId") or stored.get("version-id")
    known_id = version_id if isinstance(version_id, str) and version_id != "null" else None
    return version_of(etag, known_id, versioned=versioned) if etag else None


def _parsed(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        raise InvalidInput("body", "is nested too deeply", _FIX) from None
    except ValueError:  # of its bytes as well: they are not UTF-8
        raise InvalidInput("body", "is no JSON", _FIX) from None


def _object(value: Any, where: str) -> JsonObject:
    if not isinstance(value, dict):
        raise InvalidInput(where, "is missing" if value is None else "is no object", _FIX)
    return cast("JsonObject", value)


def _name(bucket: Any, where: str) -> str:
    return _text(_object(bucket, where).get("name"), f"{where}.name")


def _list(value: Any, where: str) -> Iterator[Any]:
    if not isinstance(value, list):
        raise InvalidInput(where, "is no list", _FIX)
    return iter(cast("list[Any]", value))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(where, "is missing or no text", _FIX)
    return value


def _plain(value: Any) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("ascii") if isinstance(value, str) else ""
    except (binascii.Error, ValueError):
        return ""
