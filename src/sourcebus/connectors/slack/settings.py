"""What a source's config says, checked without asking Slack."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.config import flag_at
from sourcebus.errors import InvalidInput

_KEYS = ("channels", "team", "app", "bot_messages", "history_days", "lookback_days", "api")
_CHANNEL = re.compile(r"[CG][A-Z0-9]{2,20}")


@dataclass(frozen=True, slots=True)
class Settings:
    """`channels` None: all that the bot is in. `history_days` None: as far back as Slack keeps messages."""

    channels: tuple[str, ...] | None
    team: str | None
    app: str | None
    bot_messages: bool
    history_days: float | None
    lookback_days: float
    api: str

    def has(self, channel: str) -> bool:
        return bool(_CHANNEL.fullmatch(channel)) and (self.channels is None or channel in self.channels)

    def seal(self) -> str:
        """Changes with everything that decides which objects there are: a cursor made under another one is of no use."""
        told = json.dumps([self.channels, self.bot_messages, self.history_days, self.api])
        return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Settings:
        """Raises `InvalidInput` naming the key."""
        refuse_unknown(config, _KEYS)
        return cls(
            channels=_channels(config),
            team=_id(config, "team", "T"),
            app=_id(config, "app", "A"),
            bot_messages=flag_at(config, "bot_messages", default=False),
            history_days=_days(config, "history_days", None),
            lookback_days=_days(config, "lookback_days", 3.0) or 0.0,
            api=_url(config),
        )


def _channels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = config.get("channels")
    if value is None:
        return None
    given = cast("list[Any]", value) if isinstance(value, list | tuple) else []
    if not given or not all(isinstance(one, str) and _CHANNEL.fullmatch(one) for one in given):
        fix = (
            'give ids, such as ["C0123456789"]: a channel\'s details show it; leave it out for all channels that the bot is in'
        )
        raise InvalidInput("config.channels", f"is {value!r}", fix)
    return tuple(sorted(set(cast("list[str]", given))))


def _id(config: Mapping[str, Any], key: str, letter: str) -> str | None:
    value = config.get(key)
    if value is not None and not (isinstance(value, str) and re.fullmatch(rf"{letter}[A-Z0-9]{{2,20}}", value)):
        raise InvalidInput(f"config.{key}", f"is {value!r}", f"give the id, which begins with {letter}")
    return value


def _days(config: Mapping[str, Any], key: str, default: float | None) -> float | None:
    value = config.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 36_500:
        raise InvalidInput(f"config.{key}", f"is {value!r}", "give a number of days, more than 0")
    return float(value)


def _url(config: Mapping[str, Any]) -> str:
    value = config.get("api", "https://slack.com/api")
    parts = urlsplit(value if isinstance(value, str) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise InvalidInput("config.api", f"is {value!r}", "give a URL such as https://slack.com/api")
    return cast("str", value).rstrip("/")
