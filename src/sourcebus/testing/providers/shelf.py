"""A provider that does not exist, with all that providers have: pages, a change feed whose cursors expire, quotas, webhooks
that name an object or only say that something changed, and subscriptions that end. For tests of the core; `Shelf` holds
the objects and `ShelfConnector` reads them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Self
from urllib.parse import quote

from sourcebus.connectors import Connector, Recommended
from sourcebus.connectors.http import Api
from sourcebus.connectors.signing import check_hmac
from sourcebus.errors import CursorExpired, ObjectGone, SubscriptionLost
from sourcebus.model import (
    WHOLE_SOURCE,
    Change,
    ChangeKind,
    Cursor,
    Delivery,
    Document,
    Extraction,
    Heard,
    Quota,
    QuotaLeft,
    Subscription,
)
from sourcebus.testing.providers.courier import Courier
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

LIST_COST = 2.0
"""Units of a page of a listing; every other call costs 1."""


@dataclass
class _Sub:
    url: str
    secret: str
    expires_at_ms: int


class Shelf(ProviderServer):
    """Holds texts by reference. `courier` sends the webhooks; None: nothing is sent.

    `thin`: webhooks only say that something changed. `life_s` is how long a subscription lives.
    """

    def __init__(self, courier: Courier | None = None, *, thin: bool = False, life_s: float = 3600.0) -> None:
        super().__init__()
        self.courier, self.thin, self.life_s = courier, thin, life_s
        self.objects: dict[str, tuple[int, str]] = {}
        self.log: list[tuple[int, str]] = []
        self.oldest = 0
        self.subscriptions: dict[str, _Sub] = {}
        self._seq, self._numbers = count(1), count(1)
        self.on("GET", "/list", self._list)
        self.on("GET", "/changes", self._changes)
        self.on("GET", "/objects/(.+)", self._read)
        self.on("HEAD", "/objects/(.+)", self._read)
        self.on("POST", "/subscriptions", self._subscribe)
        self.on("PATCH", "/subscriptions/(.+)", self._renew)
        self.on("DELETE", "/subscriptions/(.+)", self._cancel)

    def put(self, ref: str, text: str) -> None:
        """Create or replace an object."""
        with self.lock:
            self.objects[ref] = (self._told(ref), text)

    def remove(self, ref: str) -> None:
        with self.lock:
            del self.objects[ref]
            self._told(ref)

    def forget_feed(self) -> None:
        """Every cursor given out so far has expired."""
        with self.lock:
            self.oldest = next(self._seq)

    def _told(self, ref: str) -> int:
        seq = next(self._seq)
        self.log.append((seq, ref))
        body = json.dumps({"changed": True} if self.thin else {"ref": ref, "seq": seq}).encode()
        for sub in self.subscriptions.values() if self.courier else ():
            if sub.expires_at_ms > time.time() * 1000:
                assert self.courier is not None
                self.courier.post(sub.url, body, {"x-shelf-signature": _signature(sub.secret, body)})
        return seq

    def _list(self, asked: Asked) -> Answer:
        size, after = int(asked.query.get("size", "100")), asked.query.get("after", "")
        found = sorted(ref for ref in self.objects if ref > after)
        page = found[:size]
        items = [{"ref": ref, "rev": self.objects[ref][0]} for ref in page]
        return Answer(200, {"items": items, "seq": self._newest(), "after": page[-1] if len(found) > size else None})

    def _changes(self, asked: Asked) -> Answer:
        size, since = int(asked.query.get("size", "100")), int(asked.query["since"])
        if since < self.oldest:
            return Answer(410, {"error": "that long ago is forgotten"})
        found = [(seq, ref) for seq, ref in self.log if seq > since]
        items = [{"ref": ref, "rev": self.objects[ref][0] if ref in self.objects else None} for _seq, ref in found[:size]]
        more = len(found) > size
        return Answer(200, {"items": items, "seq": found[size - 1][0] if more else self._newest(), "more": more})

    def _newest(self) -> int:
        return max(self.log[-1][0] if self.log else 0, self.oldest)

    def _read(self, asked: Asked) -> Answer:
        if asked.args[0] not in self.objects:
            return Answer(404, {"error": "no such object"})
        rev, text = self.objects[asked.args[0]]
        return Answer(200, text.encode(), {"ETag": f'"{rev}"'})

    def _subscribe(self, asked: Asked) -> Answer:
        wanted = asked.json()
        sub_id = f"sub-{next(self._numbers)}"
        self.subscriptions[sub_id] = _Sub(wanted["url"], wanted["secret"], self._end_ms())
        return Answer(201, {"id": sub_id, "expires_at_ms": self.subscriptions[sub_id].expires_at_ms})

    def _renew(self, asked: Asked) -> Answer:
        sub = self.subscriptions.get(asked.args[0])
        if sub is None or sub.expires_at_ms <= time.time() * 1000:
            return Answer(404, {"error": "no such subscription"})
        sub.expires_at_ms = self._end_ms()
        return Answer(200, {"id": asked.args[0], "expires_at_ms": sub.expires_at_ms})

    def _cancel(self, asked: Asked) -> Answer:
        self.subscriptions.pop(asked.args[0], None)
        return Answer(204)

    def _end_ms(self) -> int:
        return round((time.time() + self.life_s) * 1000)


class ShelfConnector(Connector):
    """Reads a `Shelf`. `config`: url, page (objects per page), feed (False: it can only list everything), rate and burst."""

    name = "shelf"

    def __init__(self, config: Mapping[str, Any], secret: str | None) -> None:
        quota = Quota(config.get("rate"), config.get("burst", 1.0), bucket=config.get("bucket"))
        self.recommended = Recommended(
            quota=quota,
            window_ms=config.get("window_ms", 0),
            poll_interval_s=config.get("poll_interval_s", 0.0),
            reconcile_interval_s=config.get("reconcile_interval_s", 21_600.0),
        )
        self._api = Api(config["url"])
        self._page, self._feed, self._secret = config.get("page", 100), config.get("feed", True), secret or "no secret"
        self.cursor_version = config.get("cursor_version", 1)

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        return cls(config, secret)

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        kind, _, rest = (cursor or "list::").partition(":")
        return self._delta(int(rest), scope) if kind == "since" else self._everything(rest, scope)

    def _everything(self, rest: str, scope: str) -> Iterator[Change | Cursor]:
        seq, _, after = rest.partition(":")
        while True:
            page = self._api.json("GET", "/list", params={"size": self._page, "after": after}, cost=LIST_COST)
            seq = seq or str(page["seq"])  # what changes while it is being listed is told by the feed from here
            for item in page["items"]:
                if item["ref"].startswith(scope):
                    yield Change(item["ref"], version=str(item["rev"]))
            if page["after"] is None:
                break
            after = page["after"]
            yield Cursor(f"list:{seq}:{after}")
        yield Cursor(f"since:{seq}" if self._feed else None, complete=True)

    def _delta(self, since: int, scope: str) -> Iterator[Change | Cursor]:
        more = True
        while more:
            query = {"since": since, "size": self._page}
            try:
                page = self._api.json("GET", "/changes", params=query, cost=LIST_COST)
            except ObjectGone as error:
                raise CursorExpired(str(error)) from error
            since, more = page["seq"], page["more"]
            for item in page["items"]:
                if not item["ref"].startswith(scope):
                    continue
                gone = item["rev"] is None
                kind = ChangeKind.DELETED if gone else ChangeKind.UPDATED
                yield Change(item["ref"], kind, version=None if gone else str(item["rev"]))
            yield Cursor(f"since:{since}")

    def version(self, ref: str) -> str | None:
        try:
            answer = self._api.call("HEAD", f"/objects/{quote(ref, safe='')}")
        except ObjectGone:
            return None
        return answer.headers["etag"].strip('"')

    def extract(self, ref: str) -> Extraction:
        answer = self._api.call("GET", f"/objects/{quote(ref, safe='')}")
        return Extraction([Document(answer.text, title=ref)], answer.headers["etag"].strip('"'))

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        secrets = [sub.secret for sub in subscriptions if sub.secret] or [self._secret]
        check_hmac(delivery.body, delivery.headers.get("x-shelf-signature"), secrets)
        told = json.loads(delivery.body)
        if "lost" in told:
            return Heard(lost=[told["lost"]])
        if "ref" in told:
            return Heard([Change(told["ref"], version=None)], delivery_id=str(told["seq"]))
        return Heard([Change(WHOLE_SOURCE, ChangeKind.SCAN)])

    def subscribe(self, hook_url: str) -> Subscription:
        asked = {"url": hook_url, "secret": self._secret}
        made = self._call_subscriptions("POST", "/subscriptions", asked)
        return Subscription(made["id"], made["expires_at_ms"], self._secret)

    def renew(self, subscription: Subscription, hook_url: str) -> Subscription:
        del hook_url
        try:
            made = self._call_subscriptions("PATCH", f"/subscriptions/{subscription.id}", {})
        except ObjectGone as error:
            raise SubscriptionLost(str(error)) from error
        return Subscription(made["id"], made["expires_at_ms"], subscription.secret)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._api.call("DELETE", f"/subscriptions/{subscription.id}")

    def _call_subscriptions(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        return self._api.json(method, path, json=dict(body))

    def take_cost(self) -> float:
        return self._api.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._api.quota_left()

    def close(self) -> None:
        self._api.close()


def _signature(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
