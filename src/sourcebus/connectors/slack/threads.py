"""What a thread shows as a document, and the version of exactly that.

The version is the time of the newest reply or edit, the number of messages, and a hash of what is shown: the times alone do not
tell a deleted reply, or an unfurled link.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sourcebus.model import Document, Extraction, JsonObject

NOTICES = frozenset(
    {
        "bot_add", "bot_remove", "channel_archive", "channel_convert_to_private", "channel_join", "channel_leave",
        "channel_name", "channel_posting_permissions", "channel_purpose", "channel_topic", "channel_unarchive",
        "group_archive", "group_join", "group_leave", "group_name", "group_purpose", "group_topic", "group_unarchive",
        "huddle_thread", "pinned_item", "reminder_add", "sh_room_created", "unpinned_item",
    }
)  # fmt: skip
"""Subtypes of messages that Slack itself writes about the channel: they are no documents."""

_MARK = re.compile(r"<([^<>]*)>")


class Ref(NamedTuple):
    """``C123/1699999999.000100``: a channel and the time of the message that a thread begins with, which is its id."""

    channel: str
    ts: str

    def __str__(self) -> str:
        return f"{self.channel}/{self.ts}"

    @classmethod
    def parse(cls, ref: str) -> Ref | None:
        channel, _, ts = ref.partition("/")
        return cls(channel, ts) if channel and re.fullmatch(r"[0-9]{1,12}\.[0-9]{6}", ts, re.ASCII) else None


def root_of(message: JsonObject) -> str:
    """The time of the message that this one's thread begins with: its own, if it is none's reply."""
    return str(message.get("thread_ts") or message["ts"])


def newest(message: JsonObject) -> str:
    """The last sign of life that a listed message gives of its thread."""
    edited: JsonObject = message.get("edited") or {}
    return max(str(message["ts"]), str(message.get("latest_reply") or ""), str(edited.get("ts") or ""), key=_seconds)


def shown(messages: Sequence[Any], *, bot_messages: bool) -> list[JsonObject]:
    """Those that people wrote (and bots, if wanted): no notices, nothing deleted."""
    return [
        message
        for message in messages
        if message.get("subtype") not in NOTICES
        and message.get("subtype") != "tombstone"
        and (bot_messages or not is_bots(message))
    ]


def is_bots(message: JsonObject) -> bool:
    return message.get("subtype") == "bot_message" or "bot_id" in message


def extraction(ref: Ref, messages: Sequence[JsonObject]) -> Extraction:
    """The document of a thread, whose messages (at least one) are all there is to show, oldest first."""
    entries = [f"{_author(message)} ({_date(message)}):\n{text_of(message)}" for message in messages]
    first = text_of(messages[0]).strip()
    title = (first.splitlines() or ["thread"])[0][:120]
    metadata = {"channel": ref.channel, "ts": ref.ts, "messages": len(messages), "author": _author(messages[0])}
    told = json.dumps([title, entries, metadata], sort_keys=True)
    latest = max((newest(message) for message in messages), key=_seconds)
    # A reply's count and time stand in the first message too, but not in a listing of one that has none.
    version = f"{latest}-{len(messages)}-{hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}"
    document = Document(
        "\n\n".join(entries).replace("\0", ""), title.replace("\0", ""), media_type="text/plain", metadata=metadata
    )
    return Extraction([document], version)


def text_of(message: JsonObject) -> str:
    """The message's text as one reads it, with the texts of its attachments and the names of its files."""
    attached: list[JsonObject] = message.get("attachments") or []
    files: list[JsonObject] = message.get("files") or []
    parts = [message.get("text")]
    for one in attached:
        parts += [one.get("title"), one.get("text") or one.get("fallback")]
    parts += [one.get("title") or one.get("name") for one in files]
    return "\n".join(plain(str(part)) for part in parts if part)


def plain(text: str) -> str:
    """Without Slack's marks: ``<https://…|label>`` becomes label and address, ``<@U1>`` @U1, ``<#C1|name>`` #name."""

    def read(found: re.Match[str]) -> str:
        target, _, label = found[1].partition("|")
        if target.startswith("#"):
            return "#" + (label or target[1:])
        if target.startswith("!"):
            return label or "@" + target[1:].partition("^")[0]
        if target.startswith("@"):
            return "@" + (label or target[1:])
        return f"{label} ({target})" if label and label != target else target

    return html.unescape(_MARK.sub(read, text))


def _author(message: JsonObject) -> str:
    return str(message.get("user") or message.get("username") or message.get("bot_id") or "unknown")


def _date(message: JsonObject) -> str:
    return datetime.fromtimestamp(float(message["ts"]), UTC).strftime("%Y-%m-%d %H:%M")


def _seconds(ts: str) -> float:
    return float(ts or 0)
