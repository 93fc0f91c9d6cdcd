"""What a delivery of Slack's Events API says.

Sources: docs.slack.dev, "Verifying requests from Slack", "The Events API", and the pages of each event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from sourcebus.connectors.signing import check_age, check_hmac
from sourcebus.connectors.slack.settings import Settings
from sourcebus.connectors.slack.threads import NOTICES, Ref, is_bots, root_of
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, JsonObject, Reply

WINDOW_S = 300.0
"""How old a delivery may be. Each attempt of a retry is signed anew."""

_WHOLE_CHANNEL = frozenset(
    {
        "channel_archive", "channel_deleted", "channel_history_changed", "channel_left", "channel_unarchive",
        "group_archive", "group_deleted", "group_history_changed", "group_left", "group_unarchive",
    }
)  # fmt: skip
_OURS_ONLY = frozenset({"member_joined_channel", "member_left_channel"})
_CUT_OFF = frozenset({"app_uninstalled", "tokens_revoked"})


class Events:
    """Reads deliveries for one source. Talks to nobody."""

    def __init__(self, settings: Settings, secrets: Sequence[str]) -> None:
        self._settings, self._secrets = settings, tuple(secrets)

    def parse(self, delivery: Delivery) -> Heard:
        """See `Hears.parse_webhook`."""
        self._prove(delivery)
        told = _payload(delivery.body)
        try:
            return self._read(told)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise InvalidInput("body", f"is no payload of the Events API ({type(error).__name__}: {error})") from error

    def _prove(self, delivery: Delivery) -> None:
        sent_s = delivery.headers.get("x-slack-request-timestamp", "")
        if not (sent_s.isascii() and sent_s.isdecimal()):
            raise Unverified("the timestamp is missing or no number")
        message = b"v0:" + sent_s.encode() + b":" + delivery.body
        check_hmac(message, delivery.headers.get("x-slack-signature"), self._secrets, prefix="v0=")
        check_age(sent_s, delivery.received_at_ms, WINDOW_S)

    def _read(self, told: JsonObject) -> Heard:
        kind = told["type"]
        if kind == "url_verification":
            challenge = told["challenge"]
            if not isinstance(challenge, str):
                raise InvalidInput("challenge", "is no text")
            return Heard(reply=Reply(challenge.encode()), note="url_verification")
        if not self._is_ours(told):
            return Heard(delivery_id=str(told.get("event_id")), note="of another workspace or app than the source's")
        if kind == "app_rate_limited":
            # Slack sends nothing more for the rest of that minute, and nothing of it later.
            return Heard([Change(WHOLE_SOURCE, ChangeKind.SCAN)], note="app_rate_limited: events were left out")
        if kind != "event_callback":
            return Heard(note=f"{kind}: of no interest")
        event = cast("JsonObject", told["event"])
        changes, note = self._changes(event, told)
        return Heard(changes, delivery_id=str(told["event_id"]), note=note)

    def _is_ours(self, told: JsonObject) -> bool:
        """An app that is installed in several workspaces has one address for all of them. In a channel shared between
        workspaces the event's team may be the other one; the authorization then names ours."""
        teams = {told.get("team_id"), told.get("context_team_id")}
        teams |= {one.get("team_id") for one in cast("list[JsonObject]", told.get("authorizations") or [])}
        return self._settings.team in (None, *teams) and self._settings.app in (None, told.get("api_app_id"))

    def _changes(self, event: JsonObject, told: JsonObject) -> tuple[list[Change], str]:
        kind = str(event["type"])
        if kind in _CUT_OFF:
            # Reading fails now, which calls for a person.
            return [Change(WHOLE_SOURCE, ChangeKind.SCAN)], kind
        if kind == "channel_id_changed":
            ids = [str(event["old_channel_id"]), str(event["new_channel_id"])]
            return [Change(f"{one}/", ChangeKind.SCAN) for one in ids if self._settings.has(one)], kind
        channel = event.get("channel")
        channel = channel.get("id") if isinstance(channel, dict) else channel  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  some events hold the whole channel
        if kind not in {"message", "app_mention", *_WHOLE_CHANNEL, *_OURS_ONLY}:
            return [], f"{kind}: of no interest"
        if not isinstance(channel, str):
            raise KeyError("channel")
        if not self._settings.has(channel):
            return [], f"{kind}: in {channel}, which is not one of the source's channels"
        if kind in _WHOLE_CHANNEL or (kind in _OURS_ONLY and event.get("user") in _bots(told)):
            return [Change(f"{channel}/", ChangeKind.SCAN)], kind
        if kind in _OURS_ONLY:
            return [], f"{kind}: somebody else"
        change = self._message(channel, event)
        return ([], f"message {event.get('subtype', '')}: nothing to index") if change is None else ([change], kind)

    def _message(self, channel: str, event: JsonObject) -> Change | None:
        subtype = event.get("subtype")
        if subtype in NOTICES:
            return None
        if subtype == "message_deleted":
            before: JsonObject = event.get("previous_message") or {}
            gone = str(event["deleted_ts"])
            root = str(before.get("thread_ts") or gone)
            return _change(channel, root, ChangeKind.DELETED if root == gone else ChangeKind.UPDATED)
        if subtype in ("message_changed", "message_replied"):
            inner = cast("JsonObject", event["message"])
            return None if inner.get("subtype") in NOTICES else _change(channel, root_of(inner), ChangeKind.UPDATED)
        root = root_of(event)
        if root != event["ts"]:
            return _change(channel, root, ChangeKind.UPDATED)
        if is_bots(event) and not self._settings.bot_messages:
            return None
        return _change(channel, root, ChangeKind.CREATED)


def _change(channel: str, ts: str, kind: ChangeKind) -> Change:
    ref = Ref.parse(f"{channel}/{ts}")
    if ref is None:
        raise KeyError(f"{ts!r} is no message's time")
    return Change(str(ref), kind)


def _bots(told: JsonObject) -> set[str]:
    """The users that this app is in the workspace."""
    return {str(one["user_id"]) for one in cast("list[JsonObject]", told.get("authorizations") or []) if "user_id" in one}


def _payload(body: bytes) -> JsonObject:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("body", f"is no JSON ({type(error).__name__})", "is this Slack's Events API?") from error
    if not isinstance(told, dict):
        raise InvalidInput("body", "is no JSON object")
    return cast("JsonObject", told)
