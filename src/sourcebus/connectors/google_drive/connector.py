"""The connector `google_drive`: a shared drive, My Drive, or folders of either, through the Drive API v3."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.documents import document
from sourcebus.connectors.google_drive.answers import judge
from sourcebus.connectors.google_drive.bounds import DOWNLOAD_UNITS, GET_UNITS, Bounds
from sourcebus.connectors.google_drive.channels import Channels, hear
from sourcebus.connectors.google_drive.config import Settings, is_file_id, parse
from sourcebus.connectors.google_drive.feed import IN_FOLDER, Feed
from sourcebus.connectors.google_drive.items import (
    EXPORTS,
    JsonFile,
    fingerprint_of,
    is_exported,
    is_object,
    is_trashed,
    version_of,
    version_of_bytes,
    version_of_text,
    version_unread,
    without_pictures,
)
from sourcebus.connectors.google_drive.signin import sign_in
from sourcebus.connectors.http import Api
from sourcebus.connectors.same_look import SameLook
from sourcebus.errors import ConnectorError, InvalidInput, ObjectGone, ObjectUnreadable
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Delivery, Document, Extraction, Heard, Quota, QuotaLeft, Subscription

RATE_PER_S, BURST, CONCURRENCY = 4_000.0, 20_000.0, 16
"""Three quarters of what Google allows one user of one project: 325,000 units a minute (projects since 2026-05)."""

_USUAL_UNITS = GET_UNITS + DOWNLOAD_UNITS
_REUSE_S = 2.0
_FORBIDDEN = "forbidden"


class GoogleDriveConnector(Connector):
    """See docs/connectors/google_drive.md. Also `Hears`, `Subscribes`, `Batched`, `Metered` and `Costly` (in quota units)."""

    name = "google_drive"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        auth = sign_in(settings.account)
        quota = Quota(RATE_PER_S, BURST, CONCURRENCY, bucket=settings.account.bucket)
        self.recommended = Recommended(quota=quota, window_ms=30_000, poll_interval_s=600.0, cost=_USUAL_UNITS)
        self._api = Api(settings.drive_url, auth=auth, judge=judge, cost=GET_UNITS)
        self._files = Api(settings.drive_url, auth=auth, judge=judge, cost=DOWNLOAD_UNITS, max_bytes=settings.max_bytes)
        self._bounds = Bounds(self._api, settings.place)
        self._feed = Feed(self._api, self._bounds)
        self._channels = Channels(self._api, self._bounds, self._feed)
        self._thread = threading.local()
        self._look: SameLook[JsonFile, Document] = SameLook(self._fetch, _REUSE_S)

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        return cls(parse(config, secret))

    def close(self) -> None:
        self._api.close()
        self._files.close()

    # listing

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        if scope == WHOLE_SOURCE:
            return self._feed.changes(cursor)
        if scope.startswith(IN_FOLDER):
            return self._feed.folder(scope)
        raise InvalidInput("object_ref", f"{scope[:200]!r} is no scope of this source", 'scan the whole source: ""')

    # one object

    def begin_batch(self) -> None:
        """The folders above the objects of a batch are asked for once."""
        self._thread.parents = {}

    def fingerprint(self, ref: str) -> str | None:
        file = self._look.ask("fingerprint", ref).found
        return None if file is None else fingerprint_of(file)

    def version(self, ref: str) -> str | None:
        looked = self._look.ask("version", ref)
        if looked.found is None:
            return None
        if not is_exported(looked.found):
            return version_of(looked.found)
        looked.made = self._export(looked.found)
        return version_of_text(looked.found, looked.made)

    def extract(self, ref: str) -> Extraction:
        looked = self._look.ask("extract", ref)
        file = looked.found
        if file is None:
            raise ObjectGone(f"Drive has no file {ref[:200]!r} in this source")
        if is_exported(file):
            made = looked.made or self._export(file)
            version = version_of_text(file, made)
        else:
            data = self._download(file)
            version, made = version_of_bytes(file, data), self._made(file, str(file.get("name", "")), data)
        place = {"url": file.get("webViewLink"), "modified_at": file.get("modifiedTime")}
        return Extraction([replace(made, metadata={**made.metadata, **place})], version, fingerprint_of(file))

    def _export(self, file: JsonFile) -> Document:
        """One of Google's own documents as text. Raises `ObjectUnreadable` (``too_large`` beyond 10 MB: Google's limit)."""
        media_type, suffix = EXPORTS[file["mimeType"]]
        name = str(file.get("name", ""))
        data = self._fetch_bytes(file, f"files/{file['id']}/export", {"mimeType": media_type})
        made = self._made(file, name + suffix, data)
        title = name if made.title == name + suffix else made.title
        return replace(made, text=without_pictures(made.text) if suffix == ".md" else made.text, title=title)

    def _download(self, file: JsonFile) -> bytes:
        size = str(file.get("size") or "0")
        if size.isdecimal() and int(size) > self._settings.max_bytes:
            detail = f"is {size} bytes long, more than {self._settings.max_bytes}"
            raise ObjectUnreadable("too_large", detail, version=version_of(file), fingerprint=fingerprint_of(file))
        if size == "0" and "size" in file:
            return b""
        return self._fetch_bytes(file, f"files/{file['id']}", {"alt": "media", "supportsAllDrives": "true"})

    def _fetch_bytes(self, file: JsonFile, path: str, params: Mapping[str, str]) -> bytes:
        try:
            return self._files.call("GET", path, params=params, cost=DOWNLOAD_UNITS).content
        except ObjectGone as error:  # of the content: Drive has just said that the file is there
            raise ConnectorError(f"the content is not there, though the file is: {error}") from error
        except ObjectUnreadable as error:
            version = version_of(file) or version_unread(file, error.reason)
            raise ObjectUnreadable(error.reason, error.detail, version=version, fingerprint=fingerprint_of(file)) from error

    def _made(self, file: JsonFile, name: str, data: bytes) -> Document:
        try:
            return document(name, data)
        except ObjectUnreadable as error:
            version = version_of_bytes(file, data) if not is_exported(file) else version_unread(file, error.reason)
            raise ObjectUnreadable(error.reason, error.detail, version=version, fingerprint=fingerprint_of(file)) from error

    def _fetch(self, ref: str) -> JsonFile | None:
        """The file; None: Drive confirms that this source has no such file (any more)."""
        if not is_file_id(ref):
            return None
        try:
            file = self._bounds.get(ref)
        except ObjectGone:
            self._bounds.check()
            return None
        except ObjectUnreadable as error:
            self._bounds.check()
            raise ObjectUnreadable(_FORBIDDEN, error.detail, version=_FORBIDDEN) from error
        if is_trashed(file) or not is_object(file) or not self._bounds.holds(file, getattr(self._thread, "parents", {})):
            return None
        return file

    # webhooks

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        return hear(delivery, subscriptions)

    def subscribe(self, hook_url: str) -> Subscription:
        return self._channels.open(hook_url)

    def renew(self, subscription: Subscription, hook_url: str) -> Subscription:
        """A successor; the old channel goes on until its own end, so that nothing falls between the two."""
        del subscription
        return self._channels.open(hook_url)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._channels.stop(subscription)

    # quota

    def take_cost(self) -> float:
        return self._api.take_cost() + self._files.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._api.quota_left()
