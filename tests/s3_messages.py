"""Notifications of S3 as senders write them, and connectors that hear them."""

from __future__ import annotations

import json
import time
from typing import Any

from sourcebus.connectors import Connector, Hears, create
from sourcebus.model import ChangeKind, Delivery, Heard
from tests.s3_servers import SECRET, TOKEN

BUCKET = "amzn-s3-demo-bucket"

_made: list[Connector] = []


def close_connectors() -> None:
    """What `hearing` made in a test, at its end."""
    while _made:
        _made.pop().close()


def hearing(secret: str | None = SECRET, **config: Any) -> Hears:
    connector = create("s3", {"bucket": BUCKET, **config}, secret)
    _made.append(connector)
    assert isinstance(connector, Hears)
    return connector


def delivery(body: Any, *, headers: dict[str, str] | None = None, query: dict[str, str] | None = None) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"authorization": f"Bearer {TOKEN}"} if headers is None else headers
    return Delivery("POST", given, raw, time.time_ns() // 1_000_000, query or {})


def hear(body: Any, **config: Any) -> Heard:
    return hearing(**config).parse_webhook(delivery(body), [])


def record(key: str, name: str = "ObjectCreated:Put", *, source: str = "aws:s3", bucket: str = BUCKET, **stored: Any) -> Any:
    """One of Amazon's records, as in the S3 User Guide, "Event message structure" (version 2.1)."""
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "awsRegion": "us-west-2",
        "eventTime": "1970-01-01T00:00:00.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "172.16.0.1"},
        "responseElements": {
            "x-amz-request-id": "C3D13FE58DE4C810",
            "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JR",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "testConfigRule",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A3NL1KOZZKExample"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", **stored},
        },
    }


def refs(heard: Heard) -> dict[str, ChangeKind]:
    return {change.object_ref: change.change_kind for change in heard.changes}
