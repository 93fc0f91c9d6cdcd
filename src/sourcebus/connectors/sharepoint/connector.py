"""The connector `sharepoint`: a library, a site's libraries, or a OneDrive, through Microsoft Graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.documents import document
from sourcebus.connectors.http import Api
from sourcebus.connectors.same_look import SameLook
from sourcebus.connectors.sharepoint.answers import judge
from sourcebus.connectors.sharepoint.config import Settings, is_graph_id, parse
from sourcebus.connectors.sharepoint.drives import Drives
from sourcebus.connectors.sharepoint.feed import FOLDER, Feed
from sourcebus.connectors.sharepoint.items import JsonItem, fingerprint_of, is_file, path_of, version_of
from sourcebus.connectors.sharepoint.notices import Subscriptions, hear
from sourcebus.connectors.sharepoint.signin import sign_in
from sourcebus.errors import ConnectorError, InvalidInput, NeedsAuth, ObjectGone, ObjectUnreadable
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Delivery, Document, Extraction, Heard, Quota, QuotaLeft, Subscription

RATE_PER_S, BURST, CONCURRENCY = 15.0, 40.0, 8
"""Three quarters of what the smallest tenants have: 1,200 resource units per app, tenant and minute."""

_USUAL_UNITS = 2.0
"""Of one changed file: its item, and its download."""

_REUSE_S = 2.0
_FORBIDDEN = "forbidden"


class SharePointConnector(Connector):
    """See docs/connectors/sharepoint.md. Also `Hears`, `Subscribes`, `Metered` and `Costly` (in resource units)."""

    name = "sharepoint"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        app, agent = settings.app, {"User-Agent": settings.user_agent}
        quota = Quota(RATE_PER_S, BURST, CONCURRENCY, bucket=app.bucket)
        self.recommended = Recommended(quota=quota, window_ms=30_000, poll_interval_s=600.0, cost=_USUAL_UNITS)
        self._api = Api(app.graph_url, headers=agent, auth=sign_in(app), judge=judge)
        # Download addresses prove themselves and lead to other hosts: this client has no token that it could send there.
        self._files = Api(app.graph_url, headers=agent, judge=judge, max_bytes=settings.max_bytes)
        self._drives = Drives(self._api, settings.place)
        self._feed = Feed(self._api, self._drives)
        self._subscriptions = Subscriptions(self._api)
        self._look: SameLook[JsonItem, None] = SameLook(self._fetch, _REUSE_S)

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
        if scope.startswith(FOLDER):
            return self._feed.folder(scope)
        raise InvalidInput("object_ref", f"{scope[:200]!r} is no scope of this source", 'scan the whole source: ""')

    # one object

    def fingerprint(self, ref: str) -> str | None:
        item = self._look.ask("fingerprint", ref).found
        return None if item is None else fingerprint_of(item)

    def version(self, ref: str) -> str | None:
        item = self._look.ask("version", ref).found
        return None if item is None else version_of(item)

    def extract(self, ref: str) -> Extraction:
        item = self._look.ask("extract", ref).found
        if item is None:
            raise ObjectGone(f"Graph has no item {ref!r}")
        version, fingerprint = version_of(item), fingerprint_of(item)
        try:
            return Extraction([self._read(item, ref)], version, fingerprint)
        except ObjectUnreadable as error:
            raise ObjectUnreadable(error.reason, error.detail, version=version, fingerprint=fingerprint) from error

    def _read(self, item: JsonItem, ref: str) -> Document:
        """The text now. It may be newer than `item`, never older: then the change that made it so is told, and read again."""
        if "malware" in item:
            raise ObjectUnreadable("malware", "SharePoint found malware in it and does not hand it out")
        if int(item.get("size") or 0) > self._settings.max_bytes:
            raise ObjectUnreadable("too_large", f"is {item['size']} bytes long, more than {self._settings.max_bytes}")
        made = document(str(item.get("name", "")), self._download(item, ref))
        place = {"path": path_of(item), "url": item.get("webUrl"), "modified_at": item.get("lastModifiedDateTime")}
        return replace(made, metadata={**made.metadata, **place})

    def _download(self, item: JsonItem, ref: str) -> bytes:
        url = item.get("@microsoft.graph.downloadUrl")
        try:
            if isinstance(url, str):
                agent = {"User-Agent": self._settings.user_agent}
                return self._files.call("GET", url, headers=agent, cost=1.0).content
            return self._api.call("GET", f"{self._path(ref)}/content", cost=1.0).content
        except (ObjectGone, NeedsAuth) as error:  # of the address, not of the object: Graph has just said that it is there
            raise ConnectorError(f"the download address is not good any more: {error}") from error
        except ObjectUnreadable as error:
            if error.reason == "too_large":
                raise
            raise ConnectorError(f"the download was refused: {error.detail}") from error

    def _fetch(self, ref: str) -> JsonItem | None:
        """The file's item; None: Graph confirms that there is no such file in this source."""
        path = self._path(ref)
        if path is None:
            return None
        try:
            item: JsonItem = self._api.json("GET", path, cost=1.0)
        except ObjectGone:
            self._drives.check(path.split("/")[1])
            return None
        except ObjectUnreadable as error:
            self._drives.check(path.split("/")[1])
            raise ObjectUnreadable(_FORBIDDEN, error.detail, version=_FORBIDDEN) from error
        return item if is_file(item) and "deleted" not in item else None

    def _path(self, ref: str) -> str | None:
        """Where Graph has it; None for what cannot be of this source."""
        drive_id, _, item_id = ref.rpartition("/") if self._drives.many else ("", "", ref)
        ids = self._drives.ids()
        drive_id = drive_id or ids[0]
        if not is_graph_id(item_id) or drive_id not in ids:
            return None
        return f"drives/{quote(drive_id, safe='!')}/items/{quote(item_id, safe='!')}"

    # webhooks

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        return hear(delivery, subscriptions)

    def subscribe(self, hook_url: str) -> Subscription:
        return self._subscriptions.create(self._drives.ids(fresh=True), hook_url)

    def renew(self, subscription: Subscription, hook_url: str) -> Subscription:
        return self._subscriptions.renew(subscription, self._drives.ids(fresh=True), hook_url)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.cancel(subscription)

    # quota

    def take_cost(self) -> float:
        return self._api.take_cost() + self._files.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._api.quota_left()
