"""The connector itself: a feed's entries as objects."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import urljoin

import httpx

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.documents import document
from sourcebus.connectors.feed.asking import Look, cursor_of, links, refusal, validators_in, validators_of
from sourcebus.connectors.feed.entries import Entry, parse
from sourcebus.connectors.feed.settings import SECRETS, FeedSettings, authorization
from sourcebus.connectors.http import Api
from sourcebus.connectors.rounds import Rounds
from sourcebus.errors import ConnectorError, ObjectGone, SourceUnavailable, Throttled
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, Document, Extraction, Quota, QuotaLeft

_ACCEPT = "application/atom+xml, application/rss+xml, application/rdf+xml;q=0.9, application/xml;q=0.8, */*;q=0.1"

_MOST_SEEN = 1_000


class FeedConnector(Connector):
    """The entries that a feed shows. An `object_ref` is an entry's id, a version a hash of the entry.

    A feed is a window on the newest entries: what is not in it any more is not gone, so that a listing is never complete and
    only a tombstone deletes. Of an entry that was never seen nothing can be said at all.
    """

    name = "feed"
    # No feed publishes a quota; a request a second to one server disturbs nobody.
    recommended = Recommended(
        quota=Quota(rate=1.0, burst=30.0, concurrency=4), window_ms=1_000, poll_interval_s=900.0, cost=0.1
    )

    def __init__(self, settings: FeedSettings, credentials: Credentials) -> None:
        self._settings = settings
        self._api = Api(
            settings.url,
            headers={
                "Accept": _ACCEPT,
                "Cache-Control": "no-cache",  # a delivery may be here sooner than caches on the way know of it
                **authorization(credentials),
            },
            judge=refusal,
            timeout_s=settings.timeout_s,
            max_bytes=settings.max_bytes,
        )
        self._pages = Api(settings.url, timeout_s=settings.timeout_s, max_bytes=settings.max_bytes)
        self._latest: Look | None = None
        self._rounds = Rounds(self._ask)
        self._seen: OrderedDict[str, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = threading.local()

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None = None) -> Self:
        """See docs/connectors/feed.md for the settings and the names in the secret."""
        return cls(FeedSettings.check(config), Credentials.parse(secret, SECRETS))

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """Every entry that the feed shows, with its version, or none if the server says that it is as at the cursor."""
        look = self._rounds.now() if cursor is None or self._latest is not None else self._first(cursor)
        if look is None:
            yield Cursor(cursor)
            return
        for ref, entry in look.feed.entries.items():
            if ref.startswith(scope):
                yield Change(ref, version=self._version_of(entry))
        yield from (Change(ref, ChangeKind.DELETED) for ref in sorted(look.feed.deleted) if ref.startswith(scope))
        yield Cursor(cursor_of(look, self._settings.full_text))

    def version(self, ref: str) -> str | None:
        try:
            return self._version_of(self._entry(ref))
        except ObjectGone:
            return None

    def extract(self, ref: str) -> Extraction:
        entry = self._entry(ref)
        found = self._page(entry) if self._settings.full_text and entry.link else entry.document()
        return Extraction([found], self._version_of(entry))

    def begin_batch(self) -> None:
        self._thread.began_s = time.monotonic()

    def take_cost(self) -> float:
        return self._api.take_cost() + self._pages.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._api.quota_left()

    def look(self) -> Look:
        """What the feed shows now."""
        return self._rounds.now()

    def close(self) -> None:
        self._api.close()
        self._pages.close()

    def _entry(self, ref: str) -> Entry:
        """The entry as the feed shows it now, or as it was last seen. ObjectGone where the feed holds its tombstone."""
        look = self._rounds.now(getattr(self._thread, "began_s", None))
        if ref in look.feed.deleted:
            raise ObjectGone(f"the feed says that {ref!r} was deleted")
        with self._lock:
            entry = look.feed.entries.get(ref) or self._seen.get(ref)
        if entry is None:
            raise ConnectorError(
                "is not in the feed (yet, or any more): a feed shows its newest entries, and nothing says that it is gone"
            )
        return entry

    def _version_of(self, entry: Entry) -> str:
        return f"{entry.version}+page" if self._settings.full_text else entry.version

    def _first(self, cursor: str) -> Look | None:
        """What the feed shows; None if it is as it was when `cursor` was made, in another process or before a restart."""
        response = self._get(validators_in(cursor, self._settings.full_text))
        return None if response.status_code == 304 else self._take(response)

    def _ask(self) -> Look:
        known = self._latest
        response = self._get(known.validators if known else {})
        return known if response.status_code == 304 and known is not None else self._take(response)

    def _take(self, response: httpx.Response) -> Look:
        feed = parse(response.content)
        look = Look(feed, validators_of(response.headers), tuple(links(response)))
        with self._lock:
            self._latest = look
            for ref, entry in feed.entries.items():
                self._seen[ref] = entry
                self._seen.move_to_end(ref)
            for ref in feed.deleted:
                self._seen.pop(ref, None)
            while len(self._seen) > max(_MOST_SEEN, 2 * len(feed.entries)):
                self._seen.popitem(last=False)
        return look

    def _get(self, validators: Mapping[str, str]) -> httpx.Response:
        return self._api.call("GET", self._settings.url, headers=validators, accept=(304,) if validators else ())

    def _page(self, entry: Entry) -> Document:
        """The page that the entry links to; what the feed itself has of it where the page cannot be read."""
        own, address = entry.document(), urljoin(self._settings.url, entry.link)
        try:
            response = self._pages.call("GET", address, headers={"Accept": "text/html, */*;q=0.5"})
            page = document("page" + _suffix_of(response.headers.get("content-type", "")), response.content)
        except ConnectorError as error:
            inside = isinstance(error.__cause__, httpx.UnsupportedProtocol)  # a link that the guard does not follow
            if isinstance(error, Throttled | SourceUnavailable) and not inside:
                raise ConnectorError(f"its page does not answer: {error}") from error  # that server's trouble, not the feed's
            return Document(own.text, own.title, metadata={**own.metadata, "page": f"not read: {error}"[:300]})
        return Document(page.text, own.title, media_type=page.media_type, metadata={**own.metadata, "page": str(response.url)})


def _suffix_of(content_type: str) -> str:
    return ".html" if content_type.split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml", "") else ""
