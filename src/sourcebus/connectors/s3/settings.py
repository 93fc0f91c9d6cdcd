"""What a source of this connector may say, checked without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.config import flag_at, patterns_at, texts_at
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.patterns import Selection
from sourcebus.errors import InvalidInput

KEYS = (
    *("bucket", "prefix", "endpoint_url", "region", "path_style", "credentials", "include", "exclude", "max_bytes"),
    *("versioned", "token_header", "sns_topics", "sns_endpoint_url", "queue_url"),
)
SECRETS = ("webhook", "access_key", "secret_key", "session_token")

MAX_KEY_BYTES = 1024
"""Longest key of an object, in UTF-8 bytes (Amazon S3, "Object key naming guidelines")."""

DEFAULT_REGION = "us-east-1"
"""What other servers than Amazon's are signed for, as their documentation has it."""

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")

Access = Literal["secret", "chain", "anonymous"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One source's settings. `endpoint_url` None is Amazon itself; `prefix` is "" for the whole bucket.

    `access`: by the source's own secret, by what boto3 finds in the environment, or unsigned.
    """

    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str | None
    path_style: bool
    access: Access
    selection: Selection
    max_bytes: int
    versioned: bool
    token_header: str
    sns_topics: tuple[str, ...]
    sns_endpoint_url: str | None
    queue_url: str | None
    secrets: Credentials = field(repr=False)

    @classmethod
    def parse(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        """Raises `InvalidInput` naming the key; see docs/connectors/s3.md for what each means."""
        refuse_unknown(config, KEYS)
        secrets = Credentials.parse(secret, SECRETS)
        endpoint = _url(config, "endpoint_url")
        region = _text(config, "region") or None
        return cls(
            bucket=_bucket(config),
            prefix=_text(config, "prefix"),
            endpoint_url=endpoint,
            region=region or (DEFAULT_REGION if endpoint else None),
            path_style=flag_at(config, "path_style", default=endpoint is not None),
            access=_access(config, secrets),
            selection=Selection(patterns_at(config, "include"), patterns_at(config, "exclude")),
            max_bytes=_max_bytes(config),
            versioned=flag_at(config, "versioned", default=False),
            token_header=(_text(config, "token_header") or "authorization").lower(),
            sns_topics=_topics(config),
            sns_endpoint_url=_url(config, "sns_endpoint_url"),
            queue_url=_url(config, "queue_url"),
            secrets=secrets,
        )

    def covers(self, key: str) -> bool:
        """Whether an object of this key would be one of the source's."""
        return key.startswith(self.prefix) and is_key(key) and self.selection.selects(key)


def is_key(text: str) -> bool:
    """Whether an object could be called this at all."""
    try:
        return 0 < len(text.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def topic_region(arn: str) -> str:
    """The region in a topic's ARN, which `Settings.parse` has checked."""
    return arn.split(":")[3]


def _bucket(config: Mapping[str, Any]) -> str:
    bucket = _text(config, "bucket")
    if not bucket:
        raise InvalidInput("config.bucket", "is missing", "give the bucket's name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", bucket):
        raise InvalidInput("config.bucket", f"{bucket!r} is no bucket's name", "give the name alone: no ARN, no s3://, no path")
    return bucket


def _access(config: Mapping[str, Any], secrets: Credentials) -> Access:
    access = config.get("credentials", "secret" if secrets.one("access_key") else "chain")
    if access not in ("secret", "chain", "anonymous"):
        raise InvalidInput("config.credentials", f"is {access!r}", "use secret, chain or anonymous")
    if (access == "secret" or secrets.one("access_key")) and not (secrets.one("access_key") and secrets.one("secret_key")):
        raise InvalidInput("secret", "lacks access_key or secret_key", 'send {"access_key": "…", "secret_key": "…"}')
    return access


def _topics(config: Mapping[str, Any]) -> tuple[str, ...]:
    topics = texts_at(config, "sns_topics", 'give a list of ARNs, such as ["arn:aws:sns:eu-west-1:123456789012:changes"]')
    for arn in topics:
        if not _TOPIC.fullmatch(arn):
            raise InvalidInput("config.sns_topics", f"{arn!r} is no topic's ARN", "copy it from the SNS console")
    return tuple(topics)


def _url(config: Mapping[str, Any], key: str) -> str | None:
    """An http(s) URL without user, query or fragment: those would end up in logs."""
    text = _text(config, key)
    if not text:
        return None
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        right = False
    else:
        right = right and not (parts.username or parts.password or parts.query or parts.fragment)
    if not right:
        # not repeated: there may be a password in it
        raise InvalidInput(f"config.{key}", "is no plain http or https URL", "such as https://minio.example.com:9000")
    return text


def _max_bytes(config: Mapping[str, Any]) -> int:
    value = config.get("max_bytes", 20_000_000)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput("config.max_bytes", f"is {value!r}", "give a whole number of bytes, at least 1")
    return value


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key, "")
    if not isinstance(value, str) or "\0" in value:
        raise InvalidInput(f"config.{key}", f"is {value!r}", "give a text")
    return value
