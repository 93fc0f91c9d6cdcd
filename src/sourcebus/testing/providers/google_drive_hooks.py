"""Notification channels as Google keeps them: messages of headers alone, numbered, and none after a channel's end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sourcebus.testing.providers.courier import Courier, Sent
from sourcebus.testing.providers.server import Answer

_LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(slots=True)
class SimChannel:
    """One channel on the changes of a shared drive (`drive_id`), or of a user's own files (None)."""

    id: str
    resource_id: str
    drive_id: str | None
    user: str
    address: str
    token: str
    ends_s: float
    number: int = 0


class Channels:
    """Not locked: the server's lock guards it."""

    def __init__(self, courier: Courier, longest_s: float) -> None:
        self.living: dict[str, SimChannel] = {}
        self._courier, self._longest_s = courier, longest_s

    def open(self, asked: Mapping[str, Any], drive_id: str | None, user: str) -> Answer:
        address, channel_id = str(asked.get("address", "")), str(asked.get("id", ""))
        parts = urlsplit(address)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            return _refusal("push.webhookUrlNotHttps", f"WebHook callback must be HTTPS: {address}")
        if channel_id in self.living:
            return _refusal("channelIdNotUnique", f"Channel id {channel_id} not unique")
        if asked.get("type") not in ("web_hook", "webhook"):
            return _refusal("push.unsupportedType", "Unknown channel type")
        wanted_s = int(asked.get("expiration", 0)) / 1000 or time.time() + 3_600
        ends_s = min(wanted_s, time.time() + self._longest_s)
        made = SimChannel(channel_id, secrets.token_urlsafe(20), drive_id, user, address, str(asked.get("token", "")), ends_s)
        self.living[channel_id] = made
        self.say(made, "sync")
        told = {
            "kind": "api#channel",
            "id": channel_id,
            "resourceId": made.resource_id,
            "expiration": str(round(ends_s * 1000)),
        }
        return Answer(body=told | {"token": made.token})

    def stop(self, channel_id: str, resource_id: str) -> bool:
        """Whether there was such a channel."""
        if channel_id not in self.living or self.living[channel_id].resource_id != resource_id:
            return False
        del self.living[channel_id]
        return True

    def changed(self, drive_id: str | None, readers: Collection[str]) -> None:
        """Something in a shared drive, or in a drive of a user's that `readers` see, has changed."""
        for channel in list(self.living.values()):
            if channel.ends_s < time.time():
                del self.living[channel.id]
            elif channel.drive_id == drive_id and channel.user in readers:
                self.say(channel, "change")

    def say(self, channel: SimChannel, state: str) -> Sent:
        """One message. Numbers grow, but not by one (Google: "not sequential")."""
        channel.number += 1 if state == "sync" else 1 + secrets.randbelow(900)
        return self._courier.post(channel.address, b"", self.headers(channel, state))

    def headers(self, channel: SimChannel, state: str) -> dict[str, str]:
        return {
            "X-Goog-Channel-ID": channel.id,
            "X-Goog-Channel-Token": channel.token,
            "X-Goog-Channel-Expiration": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(channel.ends_s)),
            "X-Goog-Resource-ID": channel.resource_id,
            "X-Goog-Resource-URI": "https://www.googleapis.com/drive/v3/changes?alt=json",
            "X-Goog-Resource-State": state,
            "X-Goog-Message-Number": str(channel.number),
        }


def _refusal(reason: str, message: str) -> Answer:
    return Answer(400, {"error": {"code": 400, "message": message, "errors": [{"domain": "global", "reason": reason}]}})
