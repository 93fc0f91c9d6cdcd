"""The connector: refs to the part that knows them, one cursor for all parts, and the repository's webhook."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.github.contents import Contents
from sourcebus.connectors.github.repository import Repository
from sourcebus.connectors.github.settings import CONTENTS, ISSUES, KINDS, PULLS, WIKI, Settings
from sourcebus.connectors.github.threads import Threads
from sourcebus.connectors.github.webhooks import ALWAYS, EVENTS, Webhooks
from sourcebus.connectors.github.wiki import Wiki
from sourcebus.errors import CursorExpired, NeedsAuth, ObjectGone, SubscriptionLost
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

SECRETS = ("token", "webhook")

_THREADS = "threads"
_PARTS = (CONTENTS, _THREADS, WIKI)


class Ref(NamedTuple):
    """`name` is a path, a number's digits or a page's name."""

    kind: str
    name: str

    @classmethod
    def parse(cls, ref: str) -> Ref | None:
        """None for what names no object of this connector."""
        kind, slash, name = ref.partition("/")
        if kind not in KINDS or not slash or not name:
            return None
        if kind in (ISSUES, PULLS) and not re.fullmatch(r"[1-9][0-9]{0,17}", name, re.ASCII):
            return None
        return cls(kind, name)


class GithubConnector(Connector):
    """One repository. See docs/connectors/github.md."""

    name = "github"
    recommended = Recommended(quota=Quota(1.2, 60, 4))

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        token = credentials.one("token")
        self._settings = settings
        self._repository = Repository(settings, token)
        self._contents = Contents(self._repository, settings)
        self._threads = Threads(self._repository, settings)
        self._wiki = Wiki(self._repository, settings, token)
        self._webhooks = Webhooks(settings, credentials.all("webhook"))
        self.recommended = Recommended(quota=_quota(settings, token))

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None = None) -> Self:
        return cls(Settings.parse(config), Credentials.parse(secret, SECRETS))

    def close(self) -> None:
        self._repository.api.close()
        self._wiki.close()

    def take_cost(self) -> float:
        return self._repository.api.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._repository.api.quota_left()

    # listing

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """One part after the other. The cursor holds each part's state, and, within a pass, the part that it is at."""
        states = self._states(cursor)
        full = bool(states.pop("full", cursor is None))
        parts = [part for part in _PARTS if self._covers(part, scope)]
        at = states.pop("at", parts[0] if parts else None)
        for part in parts[parts.index(at) if at in parts else 0 :]:
            for item in self._list(part, states.get(part, {}), scope):
                if isinstance(item, Change):
                    if item.object_ref.startswith(scope):
                        yield item
                    continue
                states[part] = item
                yield Cursor(self._cursor({**states, "at": part, "full": full}))
        yield Cursor(self._cursor(states), complete=full)

    def _covers(self, part: str, scope: str) -> bool:
        kinds = {ISSUES, PULLS} if part == _THREADS else {part}
        return any(scope == WHOLE_SOURCE or scope.startswith(f"{kind}/") for kind in kinds & {*self._settings.kinds})

    def _list(self, part: str, state: JsonObject, scope: str) -> Iterator[Change | JsonObject]:
        if part == CONTENTS:
            return self._contents.list(state, scope)
        return self._threads.list(state, scope) if part == _THREADS else self._wiki.list(state)

    def _cursor(self, states: JsonObject) -> str:
        return json.dumps({**states, "of": self._settings.seal()}, separators=(",", ":"))

    def _states(self, cursor: str | None) -> JsonObject:
        if cursor is None:
            return {}
        try:
            states = json.loads(cursor)
        except ValueError:
            states = None
        if not isinstance(states, dict) or cast("JsonObject", states).pop("of", None) != self._settings.seal():
            raise CursorExpired("the cursor is of other settings: other kinds, branch or patterns")
        return cast("JsonObject", states)

    # one object

    def version(self, ref: str) -> str | None:
        parsed = self._parsed(ref)
        if parsed is None:
            return None
        if parsed.kind == CONTENTS:
            return self._contents.version(parsed.name)
        return self._wiki.version(parsed.name) if parsed.kind == WIKI else self._threads.version(parsed.kind, int(parsed.name))

    def fingerprint(self, ref: str) -> str | None:
        parsed = self._parsed(ref)
        if parsed is None or parsed.kind not in (ISSUES, PULLS):
            return None
        return self._threads.fingerprint(parsed.kind, int(parsed.name))

    def extract(self, ref: str) -> Extraction:
        parsed = self._parsed(ref)
        if parsed is None:
            raise ObjectGone(f"{ref!r} names no object of this source")
        if parsed.kind == CONTENTS:
            return self._contents.extract(parsed.name)
        return self._wiki.extract(parsed.name) if parsed.kind == WIKI else self._threads.extract(parsed.kind, int(parsed.name))

    def _parsed(self, ref: str) -> Ref | None:
        parsed = Ref.parse(ref)
        return parsed if parsed is not None and parsed.kind in self._settings.kinds else None

    # webhooks

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        return self._webhooks.parse(delivery, subscriptions)

    def subscribe(self, hook_url: str) -> Subscription:
        """A webhook of the repository with a secret of its own. Where there is one for this address already, it gets the new
        secret: GitHub allows no second one."""
        secret = secrets.token_hex(32)
        wanted = {"name": "web", "active": True, "events": self._events(), "config": _hook_config(hook_url, secret)}
        try:
            answer = self._repository.send("POST", "hooks", wanted, accept=(422,))
            if answer.status_code == 422:
                answer = self._repository.send("PATCH", f"hooks/{self._existing(hook_url)}", wanted)
        except ObjectGone as error:
            raise NeedsAuth(
                f"the token may not set up webhooks at {self._settings.full_name} ({error}): it needs admin:repo_hook, or the "
                "permission Webhooks: read and write"
            ) from error
        state = {"repository_id": self._repository.home()["id"], "repository": self._settings.full_name}
        return Subscription(str(answer.json()["id"]), secret=secret, state=state)

    def renew(self, subscription: Subscription, hook_url: str) -> Subscription:
        """GitHub's webhooks do not expire: this looks whether it is there, active, and sends what is needed to `hook_url`."""
        path = f"hooks/{subscription.id}"
        try:
            hook = self._repository.read(path).json()
        except ObjectGone as error:
            raise SubscriptionLost(f"GitHub does not know the webhook {subscription.id}") from error
        if not hook["active"]:
            raise SubscriptionLost(f"the webhook {subscription.id} was switched off at GitHub")
        told = {*self._events()} <= {*hook["events"]} or "*" in hook["events"]
        if told and hook["config"].get("url") == hook_url and subscription.secret:
            return subscription
        # GitHub replaces a config as a whole, so the secret has to go with it.
        secret = subscription.secret or secrets.token_hex(32)
        self._repository.send("PATCH", path, {"events": self._events(), "config": _hook_config(hook_url, secret)})
        return replace(subscription, secret=secret)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._repository.send("DELETE", f"hooks/{subscription.id}", accept=(404,))

    def _existing(self, hook_url: str) -> int:
        for hook in self._repository.pages("hooks"):
            if hook["config"].get("url") == hook_url:
                return hook["id"]
        raise SubscriptionLost(f"GitHub refuses a webhook for {urlsplit(hook_url).hostname}: is the address public?")

    def _events(self) -> list[str]:
        return sorted({*ALWAYS, *(event for kind in self._settings.kinds for event in EVENTS[kind])})


def _hook_config(hook_url: str, secret: str) -> dict[str, str]:
    return {"url": hook_url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}


def _quota(settings: Settings, token: str | None) -> Quota:
    """5,000 requests an hour belong to a token, so all sources that use it share one bucket. Without one: 60 per address."""
    host = urlsplit(settings.api).hostname
    if not token:
        return Quota(60 / 3600, 10, 1, bucket=f"github:{host}:anonymous")
    named = hashlib.blake2b(token.encode(), digest_size=8, person=b"github").hexdigest()
    return Quota(1.2, 60, 4, bucket=f"github:{host}:{named}")
