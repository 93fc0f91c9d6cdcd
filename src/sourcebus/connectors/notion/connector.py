"""The connector `notion`: the pages that an integration may see, through Notion's API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.http import Api
from sourcebus.connectors.notion.answers import Tokens, judge
from sourcebus.connectors.notion.config import Settings, parse
from sourcebus.connectors.notion.feed import ROWS, Feed
from sourcebus.connectors.notion.hooks import hear
from sourcebus.connectors.notion.pages import is_ref, is_trashed
from sourcebus.connectors.notion.reader import Read, Reader, State
from sourcebus.connectors.same_look import SameLook
from sourcebus.errors import InvalidInput, ObjectGone, ObjectUnreadable
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Delivery, Extraction, Heard, Quota, QuotaLeft, Subscription

RATE_PER_S, BURST, CONCURRENCY = 2.5, 30.0, 3
"""Of the 180 requests per minute that a connection has, some are left for others; larger plans have 600."""

API_VERSION = "2025-09-03"

_USUAL_UNITS = 2.0
"""A page's state, and its content."""

_REUSE_S = 5.0
"""Longer than elsewhere: the content of a long page takes several answers."""

_FORBIDDEN = "forbidden"


class NotionConnector(Connector):
    """See docs/connectors/notion.md. Also `Hears`, `Metered` and `Costly` (in requests). Notion has no call that subscribes."""

    name = "notion"

    needs_secret_path = True
    """The handshake is not signed: it has to come to an address that nobody can guess."""

    webhook_media_types = ("application/json",)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        quota = Quota(RATE_PER_S, BURST, CONCURRENCY, bucket=settings.bucket)
        self.recommended = Recommended(quota=quota, window_ms=30_000, poll_interval_s=600.0, cost=_USUAL_UNITS)
        self._api = Api(
            settings.notion_url,
            headers={"Notion-Version": API_VERSION},
            auth=Tokens(settings.tokens),
            judge=judge,
            timeout_s=60.0,  # as long as Notion itself takes for a long page
        )
        self._feed = Feed(self._api)
        self._reader = Reader(self._api, max_bytes=settings.max_bytes)
        self._look: SameLook[State, Read] = SameLook(self._state, _REUSE_S)

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        return cls(parse(config, secret))

    def close(self) -> None:
        self._api.close()

    # listing

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        if scope == WHOLE_SOURCE:
            return self._feed.changes(cursor)
        if scope.startswith(ROWS):
            return self._feed.rows(scope)
        raise InvalidInput("object_ref", f"{scope[:200]!r} is no scope of this source", 'scan the whole source: ""')

    # one object

    def fingerprint(self, ref: str) -> str | None:
        state = self._look.ask("fingerprint", ref).found
        return None if state is None else state.fingerprint

    def version(self, ref: str) -> str | None:
        looked = self._look.ask("version", ref)
        if looked.found is None:
            return None
        looked.made = self._reader_of(looked.found)
        return looked.made.version

    def extract(self, ref: str) -> Extraction:
        looked = self._look.ask("extract", ref)
        if looked.found is None:
            raise ObjectGone(f"Notion has no page {ref[:200]!r} for this integration")
        read = looked.made or self._reader_of(looked.found)
        return Extraction([read.document], read.version, looked.found.fingerprint)

    def _reader_of(self, state: State) -> Read:
        try:
            return self._reader.read(state)
        except ObjectUnreadable as error:
            version = f"{error.reason}|{state.page.get('last_edited_time')}"
            raise ObjectUnreadable(error.reason, error.detail, version=version, fingerprint=state.fingerprint) from error

    def _state(self, ref: str) -> State | None:
        """None: Notion says that there is no such page, that it is in the trash, or that it is not shared with us."""
        if not is_ref(ref):
            return None
        try:
            state = self._reader.state(ref)
        except ObjectGone:
            return None
        except ObjectUnreadable as error:
            raise ObjectUnreadable(error.reason, error.detail, version=_FORBIDDEN) from error
        return None if is_trashed(state.page) else state

    # webhooks

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        return hear(delivery, self._settings.verification, self._settings.webhook, subscriptions)

    # quota

    def take_cost(self) -> float:
        return self._api.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._api.quota_left()
