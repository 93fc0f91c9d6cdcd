"""GitHub's published example payloads as signed deliveries, and a connector that hears them: small, but with everything that
the way of a real one has.

The same connector proves and reads them in our gateway and in the receiver that it is compared with.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sourcebus.connectors import Connector
from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.payloads import parse_json_object
from sourcebus.connectors.signing import check_hmac
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, Delivery, Extraction, Heard, Subscription

SECRET = "the secret of every repository here"
SOURCES = [f"repository-{at}" for at in range(50)]

_EXAMPLES = Path(__file__).parent / "peers/webhooks/node_modules/@octokit/webhooks-examples/api.github.com/index.json"


@dataclass(frozen=True)
class Example:
    """One delivery: the event's name, and the payload as GitHub sends it, without spaces."""

    event: str
    body: bytes

    def head(self, path: str, delivery_id: str) -> bytes:
        """The request up to its body, with the headers that GitHub sends."""
        proof = hmac.new(SECRET.encode(), self.body, hashlib.sha256).hexdigest()
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "User-Agent: GitHub-Hookshot/044aadd",
            "Accept: */*",
            "Content-Type: application/json",
            f"X-GitHub-Delivery: {delivery_id}",
            f"X-GitHub-Event: {self.event}",
            "X-GitHub-Hook-ID: 292430182",
            "X-GitHub-Hook-Installation-Target-ID: 79929171",
            "X-GitHub-Hook-Installation-Target-Type: repository",
            f"X-Hub-Signature-256: sha256={proof}",
            f"Content-Length: {len(self.body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode()


def missing() -> str | None:
    """Why there are no payloads, None where they are there."""
    return None if _EXAMPLES.exists() else "npm install in benchmarks/peers/webhooks"


def examples(count: int) -> list[Example]:
    """So many payloads, all different: the published ones over and over, each time of another issue and another commit."""
    published = [
        (kind["name"], json.dumps(example, separators=(",", ":")))
        for kind in json.loads(_EXAMPLES.read_text("utf-8"))
        for example in kind["examples"]
    ]
    made: list[Example] = []
    while len(made) < count:
        number = len(made) // len(published)
        made += [Example(event, _varied(text, number)) for event, text in published[: count - len(made)]]
    return made


def requests(count: int) -> list[bytes]:
    """So many whole requests, spread over `SOURCES`, each a delivery of its own."""
    chosen = examples(min(count, 4_000))
    return [
        one.head(f"/hooks/{SOURCES[at % len(SOURCES)]}", str(uuid.UUID(int=at))) + one.body
        for at, one in ((at, chosen[at % len(chosen)]) for at in range(count))
    ]


def _varied(text: str, number: int) -> bytes:
    text = re.sub(r'"number":(?=[1-9])', f'"number":{number or ""}', text)
    return text.replace("README.md", f"docs/{number}/README.md").encode()


class GitHubDeliveries(Connector):
    """Hears pushes and issues by their objects, everything else as a change somewhere in the repository."""

    name = "github_deliveries"

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        refuse_unknown(config, ())
        made = cls()
        made.credentials = Credentials.parse(secret, ("webhook",))
        return made

    credentials: Credentials

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        del cursor, scope
        yield Cursor(None, complete=True)

    def version(self, ref: str) -> str | None:
        del ref
        return None

    def extract(self, ref: str) -> Extraction:
        del ref
        return Extraction((), "1")

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        del subscriptions
        proof = delivery.headers.get("x-hub-signature-256")
        check_hmac(delivery.body, proof, self.credentials.all("webhook"), prefix="sha256=")
        payload = parse_json_object(delivery.body)
        event = delivery.headers.get("x-github-event", "")
        return Heard(_changes(event, payload), delivery_id=delivery.headers.get("x-github-delivery"))


def _changes(event: str, payload: Mapping[str, Any]) -> list[Change]:
    if event == "push":
        touched = [path for commit in payload["commits"] for kind in ("added", "modified") for path in commit[kind]]
        gone = [path for commit in payload["commits"] for path in commit["removed"]]
        return [Change(f"file/{path}") for path in touched] + [Change(f"file/{path}", ChangeKind.DELETED) for path in gone]
    for kind in ("issue", "pull_request"):
        if kind in payload:
            return [Change(f"{kind}/{payload[kind]['number']}")]
    return [Change(str(payload.get("repository", {}).get("full_name", "")), ChangeKind.SCAN)]
