"""The connector: channels one after the other, each from its newest message back; a thread by its replies."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.slack.events import Events
from sourcebus.connectors.slack.settings import Settings
from sourcebus.connectors.slack.threads import NOTICES, Ref, extraction, newest, root_of, shown
from sourcebus.connectors.slack.web import PAGE, ChannelHidden, Web
from sourcebus.errors import CursorExpired, NeedsAuth, ObjectGone, SourceUnavailable
from sourcebus.model import (
    WHOLE_SOURCE,
    Change,
    Cursor,
    Delivery,
    Extraction,
    Heard,
    JsonObject,
    Quota,
    QuotaLeft,
    Subscription,
)

SECRETS = ("token", "signing")

_DAY_S = 86_400.0


class SlackConnector(Connector):
    """The threads of some channels of one workspace. See docs/connectors/slack.md."""

    name = "slack"
    recommended = Recommended(quota=Quota(0.75, 5, 2))

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        token = credentials.one("token")
        self._settings = settings
        self._web = Web(settings.api, token)
        self._events = Events(settings, credentials.all("signing"))
        bucket = "slack:" + hashlib.blake2b((token or "").encode(), digest_size=8, person=b"slack").hexdigest()
        self.recommended = Recommended(quota=Quota(0.75, 5, 2, bucket=bucket))

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None = None) -> Self:
        return cls(Settings.parse(config), Credentials.parse(secret, SECRETS))

    def close(self) -> None:
        self._web.api.close()

    def take_cost(self) -> float:
        return self._web.api.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._web.api.quota_left()

    # listing

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """A pass goes through the channels. The cursor holds how far each was seen (``seen``, Slack's time), and within a pass
        the channel that it is `at`, the message that it got back to (``until``) and the newest one there (``top``), or the
        channel `done` last."""
        state = self._state(cursor)
        full, seen = bool(state.get("full", cursor is None)), cast("dict[str, str]", state.get("seen", {}))
        at, until, top = (state.get(key) for key in ("at", "until", "top"))
        for channel in self._channels(scope):
            if channel < (at or "") or channel <= (state.get("done") or ""):
                continue
            if channel != at:
                until = top = None
            for page in self._history(channel, None if full else seen.get(channel), until):
                newest_here = max((newest(message) for message in page), default=None, key=float)
                top = max((one for one in (top, newest_here) if one), default=None, key=float)
                yield from self._listed(channel, page, None if full else seen.get(channel))
                if page:
                    yield Cursor(self._cursor(full=full, seen=seen, at=channel, until=page[-1]["ts"], top=top))
            seen = {**seen, **({channel: max(top, seen.get(channel, "0"), key=float)} if top else {})}
            yield Cursor(self._cursor(full=full, seen=seen, done=channel))
        yield Cursor(self._cursor(seen=seen), complete=full)

    def _channels(self, scope: str) -> list[str]:
        """Those of the scope, in the order of their ids. A scope is a channel's id and a slash."""
        if self._settings.channels is not None:
            channels = list(self._settings.channels)
        else:
            found = self._web.pages("users.conversations", "channels", types="public_channel,private_channel")
            channels = sorted({str(one["id"]) for one in found})
        return [channel for channel in channels if scope == WHOLE_SOURCE or scope.startswith(f"{channel}/")]

    def _history(self, channel: str, seen: str | None, until: str | None) -> Iterator[list[Any]]:
        """The pages of a channel, newest first, from the message `until` on. Back to the horizon; with `seen` back to what was
        new then, and to the last days, where threads still get replies.

        By the time of the last message instead of Slack's cursors: a pass can be taken up from it whenever that may be.
        """
        oldest = self._horizon_s()
        if seen is not None:
            oldest = max(oldest, min(float(seen), time.time() - self._settings.lookback_days * _DAY_S))
        # Without an end Slack pages forward from `oldest`; with one, back from it. A day more, as clocks differ.
        until = until or f"{time.time() + _DAY_S:.6f}"
        while True:
            try:
                told = self._web.call(
                    "conversations.history",
                    channel=channel,
                    oldest=f"{oldest:.6f}",
                    latest=until,
                    limit=PAGE,
                )
            except ChannelHidden as hidden:
                self._confirm_hidden(channel, hidden)
                return
            page: list[Any] = told["messages"]
            yield page
            if not told.get("has_more"):
                return
            if not page:
                raise SourceUnavailable(f"Slack: conversations.history of {channel}: an empty page that says more follows")
            until = page[-1]["ts"]

    def _listed(self, channel: str, page: Sequence[Any], seen: str | None) -> Iterator[Change]:
        for message in page:
            ref = Ref(channel, root_of(message))
            if message.get("subtype") in NOTICES:
                continue
            if ref.ts != message["ts"] or message.get("reply_count"):
                # What is listed is only the thread's beginning, so it cannot say that nothing changed.
                if seen is None or float(newest(message)) > float(seen):
                    yield Change(str(ref))
            elif messages := shown([message], bot_messages=self._settings.bot_messages):
                yield Change(str(ref), version=extraction(ref, messages).version)

    def _confirm_hidden(self, channel: str, hidden: ChannelHidden) -> None:
        """Returns where a channel that cannot be read is none of the source's: it left a source of "all that the bot is in".
        One that the config names needs a person."""
        if self._settings.channels is not None:
            raise NeedsAuth(
                f"the channel {channel} cannot be read ({hidden}): invite the bot to it, or take it out of config.channels"
            ) from hidden

    def _horizon_s(self) -> float:
        days = self._settings.history_days
        return 0.0 if days is None else time.time() - days * _DAY_S

    def _cursor(self, **state: object) -> str:
        told = {key: value for key, value in state.items() if value not in (None, False)}
        return json.dumps({**told, "of": self._settings.seal()}, separators=(",", ":"))

    def _state(self, cursor: str | None) -> JsonObject:
        if cursor is None:
            return {}
        try:
            state = json.loads(cursor)
        except ValueError:
            state = None
        if not isinstance(state, dict) or cast("JsonObject", state).get("of") != self._settings.seal():
            raise CursorExpired("the cursor is of other settings: other channels, or another reach back")
        return {"full": False, **cast("JsonObject", state)}

    # one object

    def version(self, ref: str) -> str | None:
        read = self._read(ref)
        return read.version if read else None

    def extract(self, ref: str) -> Extraction:
        read = self._read(ref)
        if read is None:
            raise ObjectGone(f"{ref!r} names no thread of this source, or a deleted one")
        return read

    def _read(self, ref: str) -> Extraction | None:
        """The thread, with all its replies. None: Slack says that it is gone, or nothing in it is to be shown."""
        parsed = Ref.parse(ref)
        if parsed is None or not self._settings.has(parsed.channel) or float(parsed.ts) < self._horizon_s():
            return None
        try:
            messages = list(self._web.pages("conversations.replies", "messages", channel=parsed.channel, ts=parsed.ts))
        except ObjectGone:
            return None
        except ChannelHidden as hidden:
            self._confirm_hidden(parsed.channel, hidden)
            return None
        if not messages or messages[0]["ts"] != parsed.ts or root_of(messages[0]) != parsed.ts:
            return None  # the time of a reply is no thread's
        kept = shown(messages, bot_messages=self._settings.bot_messages)
        return extraction(parsed, kept) if kept else None

    # webhooks

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        del subscriptions  # Slack's are set up once, at the app
        return self._events.parse(delivery)
