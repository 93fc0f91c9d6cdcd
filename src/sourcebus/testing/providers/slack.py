"""Slack on loopback: the Web API of one workspace for one app, and its Events API.

Facts: providers.json of the design, docs.slack.dev. A delivery that is refused comes again at once, after 1 and after 5
minutes, each attempt signed anew with the time of the attempt.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from sourcebus.testing.providers.courier import Courier, Faults, Sent
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

TOKEN = "xoxb-simulated"
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
TEAM, APP, BOT_USER = "T0SIM", "A0SIM", "U0BOT"

_RETRY_S = (0.0, 60.0, 300.0)

Message = dict[str, Any]


@dataclass
class Channel:
    """`messages` are by time, replies among them."""

    id: str
    name: str
    private: bool = False
    bot_is_in: bool = True
    messages: dict[str, Message] = field(default_factory=dict[str, Message])


class SlackServer(ProviderServer):
    """A workspace. `page_limit` is the most that a page holds, whatever is asked for; `pace` divides the waits of retries."""

    def __init__(self, *, faults: Faults | None = None, pace: float = 1.0, page_limit: int = 999) -> None:
        super().__init__()
        self.tokens = {TOKEN}
        self.page_limit = page_limit
        self.signing_secret = SIGNING_SECRET
        self.now: Callable[[], float] = time.time
        self.courier = Courier(faults=faults, retry_s=_RETRY_S, pace=pace, timeout_s=3.0)
        self.delivered: list[tuple[dict[str, Any], Sent]] = []
        self._channels: dict[str, Channel] = {}
        self._request_url: str | None = None
        self._last_ts = 0.0
        for method, route in {
            "users.conversations": self._conversations,
            "conversations.history": self._history,
            "conversations.replies": self._replies,
        }.items():
            self.on("GET", f"/api/{method}", self._for_bots(route))

    @property
    def api(self) -> str:
        return f"{self.url}/api"

    def close(self) -> None:
        self.courier.close()
        super().close()

    # the workspace

    def reset(self) -> None:
        """An empty workspace again, that refuses nothing, knows the token and sends no events."""
        with self.lock:
            self._channels.clear()
            self.tokens, self.page_limit, self._request_url = {TOKEN}, 999, None
        self.accept_again()

    def channel(self, channel_id: str, *, private: bool = False) -> Channel:
        """A new channel that the bot is in."""
        with self.lock:
            made = self._channels[channel_id] = Channel(channel_id, channel_id.lower(), private)
            return made

    def messages(self, channel: str) -> dict[str, Message]:
        """What is in a channel now, by time, replies among it."""
        with self.lock:
            return dict(self._channels[channel].messages)

    def post(self, channel: str, text: str, *, thread: str | None = None, at: float | None = None, **more: Any) -> str:
        """A message; `thread` is the first message's time where it is a reply. Returns its time. `more` are fields of it."""
        with self.lock:
            ts = self._time(at)
            message: Message = {"type": "message", "user": "U0MONA", "text": text, "ts": ts, **more}
            if message.get("subtype") == "bot_message":
                del message["user"]
            held = self._channels[channel].messages
            if thread is not None:
                message["thread_ts"] = held[thread]["thread_ts"] = thread
            held[ts] = message
            self._announce({**message, "channel": channel, "channel_type": "channel", "event_ts": ts})
            return ts

    def edit(self, channel: str, ts: str, text: str) -> None:
        with self.lock:
            message = self._channels[channel].messages[ts]
            before = dict(message)
            message |= {"text": text, "edited": {"user": message.get("user", ""), "ts": self._time(None)}}
            self._announce_about(channel, "message_changed", message=dict(message), previous_message=before)

    def unfurl(self, channel: str, ts: str, text: str) -> None:
        """What Slack adds to a message with a link, some time later and without calling it an edit."""
        with self.lock:
            message = self._channels[channel].messages[ts]
            before = dict(message)
            message["attachments"] = [{"title": "A page", "text": text}]
            self._announce_about(channel, "message_changed", message=dict(message), previous_message=before)

    def delete(self, channel: str, ts: str) -> None:
        """Remove a message. The first one of a thread with replies leaves a tombstone behind, as at Slack."""
        with self.lock:
            held = self._channels[channel].messages
            before = held.pop(ts)
            if any(one.get("thread_ts") == ts for one in held.values()):
                stone = {"type": "message", "subtype": "tombstone", "user": "USLACKBOT", "text": "This message was deleted."}
                held[ts] = {**stone, "ts": ts, "thread_ts": ts, "hidden": True}
                self._announce_about(channel, "message_changed", message=held[ts], previous_message=before)
            else:
                self._announce_about(channel, "message_deleted", deleted_ts=ts, previous_message=before)

    def remove_bot(self, channel: str) -> None:
        with self.lock:
            self._channels[channel].bot_is_in = False
            self._announce({"type": "channel_left", "channel": channel, "actor_id": "U0MONA"})

    def expire_before(self, channel: str, ts: str) -> None:
        """The workspace's retention: older messages go, and nothing tells of each."""
        with self.lock:
            held = self._channels[channel].messages
            for old in [one for one in held if float(one) < float(ts)]:
                del held[old]
            self._announce({"type": "channel_history_changed", "channel": channel, "latest": ts})

    # the Events API

    def set_request_url(self, url: str) -> httpx.Response:
        """As a person enters it at the app's settings: it has to answer the challenge. Returns its answer."""
        challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
        body = json.dumps({"token": "legacy", "challenge": challenge, "type": "url_verification"}).encode()
        answer = self.courier.now(url, body, headers_of(body, self.signing_secret, self.now()))
        if answer.status_code == 200 and challenge in answer.text:
            self._request_url = url
        return answer

    def rate_limit_events(self) -> None:
        """What Slack sends instead of the events over 30,000 an hour."""
        told = {
            "token": "legacy",
            "type": "app_rate_limited",
            "team_id": TEAM,
            "minute_rate_limited": int(self.now()),
            "api_app_id": APP,
        }
        self._send(told)

    def announce(self, event: Mapping[str, Any], **outer: Any) -> None:
        """Send any event; `outer` are fields around it."""
        with self.lock:
            self._announce(event, **outer)

    def _announce_about(self, channel: str, subtype: str, **more: Any) -> None:
        ts = self._time(None)
        self._announce(
            {"type": "message", "subtype": subtype, "channel": channel, "ts": ts, "event_ts": ts, "hidden": True, **more}
        )

    def _announce(self, event: Mapping[str, Any], **outer: Any) -> None:
        told = {
            "token": "legacy",
            "team_id": TEAM,
            "api_app_id": APP,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{len(self.delivered):010}",
            "event_time": int(self.now()),
            "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True}],
            **outer,
        }
        self._send(told)

    def _send(self, told: dict[str, Any]) -> None:
        if self._request_url is None:
            return
        body = json.dumps(told).encode()
        sent = self.courier.post(
            self._request_url, body, lambda attempt: headers_of(body, self.signing_secret, self.now(), attempt=attempt)
        )
        self.delivered.append((told, sent))

    def _time(self, at: float | None) -> str:
        """A time of its own for each message: Slack's are unique within a channel."""
        ts = max(self.now(), self._last_ts + 0.000001) if at is None else at
        self._last_ts = max(self._last_ts, ts)
        return f"{ts:.6f}"

    # the Web API

    def limited(self, retry_after_s: int = 30, *, status: int = 429) -> Answer:
        """Rate limited, in the form of most methods (429), or of some (200)."""
        return Answer(status, {"ok": False, "error": "ratelimited"}, {"Retry-After": str(retry_after_s)})

    def failing(self, error: str, **more: Any) -> Answer:
        return Answer(200, {"ok": False, "error": error, **more})

    def _for_bots(self, route: Callable[[Asked], Answer]) -> Callable[[Asked], Answer]:
        def checked(asked: Asked) -> Answer:
            token = asked.headers.get("authorization", "").removeprefix("Bearer ")
            return route(asked) if token in self.tokens else self.failing("invalid_auth" if token else "not_authed")

        return checked

    def _conversations(self, asked: Asked) -> Answer:
        mine = [{"id": one.id, "name": one.name, "is_member": True} for one in self._channels.values() if one.bot_is_in]
        return self._page(asked, "channels", mine)

    def _history(self, asked: Asked) -> Answer:
        channel = self._seen(asked)
        if isinstance(channel, Answer):
            return channel
        oldest, latest = float(asked.query.get("oldest", 0)), float(asked.query.get("latest", "inf"))
        inside = [
            self._listed(channel, one)
            for ts, one in channel.messages.items()
            if oldest < float(ts) < latest and (one.get("thread_ts") in (None, ts) or one.get("subtype") == "thread_broadcast")
        ]
        # A page beginning with the newest, if an end was given; the quirk is Slack's.
        inside.sort(key=lambda one: float(one["ts"]))
        size = self._size(asked)
        page = inside[-size:] if "latest" in asked.query else inside[:size]
        return _ok(messages=page[::-1], has_more=len(inside) > len(page))

    def _replies(self, asked: Asked) -> Answer:
        channel = self._seen(asked)
        if isinstance(channel, Answer):
            return channel
        ts = asked.query["ts"]
        if ts not in channel.messages:
            return self.failing("thread_not_found")
        thread = [self._listed(channel, one) for at, one in channel.messages.items() if ts in (at, one.get("thread_ts"))]
        return self._page(asked, "messages", sorted(thread, key=lambda one: float(one["ts"])))

    def _seen(self, asked: Asked) -> Channel | Answer:
        channel = self._channels.get(asked.query.get("channel", ""))
        if channel is None or (channel.private and not channel.bot_is_in):
            return self.failing("channel_not_found")
        return channel if channel.bot_is_in else self.failing("not_in_channel")

    def _listed(self, channel: Channel, message: Message) -> Message:
        """With what Slack tells of a thread at its first message."""
        replies = [ts for ts, one in channel.messages.items() if one.get("thread_ts") == message["ts"] != ts]
        if not replies:
            return {key: value for key, value in message.items() if key != "thread_ts" or value != message["ts"]}
        return {**message, "reply_count": len(replies), "latest_reply": max(replies, key=float)}

    def _page(self, asked: Asked, key: str, items: list[Any]) -> Answer:
        start, size = int(asked.query.get("cursor") or 0), self._size(asked)
        after = str(start + size) if start + size < len(items) else ""
        return _ok(**{key: items[start : start + size]}, has_more=bool(after), response_metadata={"next_cursor": after})

    def _size(self, asked: Asked) -> int:
        return min(int(asked.query.get("limit", 100)), self.page_limit)


def headers_of(body: bytes, secret: str, now_s: float, *, attempt: int = 0) -> dict[str, str]:
    """The headers of one attempt at a delivery, signed over its time and the raw body."""
    sent = str(int(now_s))
    signature = hmac.new(secret.encode(), b"v0:" + sent.encode() + b":" + body, hashlib.sha256).hexdigest()
    again = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": "http_error"} if attempt else {}
    return {
        "Content-Type": "application/json",
        "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
        "X-Slack-Request-Timestamp": sent,
        "X-Slack-Signature": f"v0={signature}",
        **again,
    }


def _ok(**told: Any) -> Answer:
    return Answer(200, {"ok": True, **told})
