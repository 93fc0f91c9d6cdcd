"""A subscriber of WebSub (W3C Recommendation of 23 January 2018): asking a hub, answering it, and proving what it sends.

The hub calls back while, or after, it is asked, and it calls the gateway, which has not heard of the subscription yet. So the
address that the hub is given carries all there is to know: when it was made, something random, and a proof, made with the
source's secret, that this source asked for this topic. The secret of the deliveries is derived likewise. Nothing has to be
stored before the hub may call, and nobody else can make such an address.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode

from sourcebus.connectors.signing import check_hmac
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import Delivery, Heard, Reply, Subscription

PARAMETER = "websub"

LEASE_S = 864_000
"""What a hub is asked for: ten days, as the Recommendation suggests (8.2). The hub decides."""

UNCONFIRMED_S = 86_400
"""How long a subscription counts that the hub has not confirmed yet."""

_CONFIRM_WITHIN_S = 3_600
_METHODS = ("sha256", "sha384", "sha512", "sha1")
_PASS = re.compile(r"([0-9a-f]{8})([0-9a-f]{32})\.([0-9a-f]{64})")
_CHALLENGE = re.compile(r"[\x21-\x7e]{1,4096}")
_LONGEST_LEASE_S = 31_536_000


@dataclass(frozen=True, slots=True)
class Pass:
    """What an address that hubs call back carries. `asked_at_s` is in whole Unix seconds."""

    asked_at_s: int
    nonce: str
    proof: str

    @property
    def id(self) -> str:
        """The subscription's."""
        return f"{self.asked_at_s:08x}{self.nonce}"

    def __str__(self) -> str:
        return f"{self.id}.{self.proof}"

    @classmethod
    def of(cls, subscription_id: str, topic: str, key: str) -> Self:
        return cls(int(subscription_id[:8], 16), subscription_id[8:], _derived(key, "callback", subscription_id, topic))

    @classmethod
    def new(cls, topic: str, key: str, at_s: float) -> Self:
        return cls.of(f"{int(at_s):08x}{secrets.token_hex(16)}", topic, key)

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        """Unverified where there is none."""
        found = _PASS.fullmatch(query.get(PARAMETER, ""))
        if found is None:
            raise Unverified("the address has no pass: it is none that this source gave to a hub")
        return cls(int(found[1], 16), found[2], found[3])

    def key(self, topic: str, keys: Sequence[str]) -> str:
        """The one of the source's secrets under which it asked for `topic`; `Unverified` if it did not."""
        right = [key for key in keys if hmac.compare_digest(_derived(key, "callback", self.id, topic), self.proof)]
        if not right:
            raise Unverified("the pass in the address is not for this topic: this source did not ask for it")
        return right[0]


def callback(hook_url: str, pass_: Pass) -> str:
    """The address that the hub is given."""
    return f"{hook_url}{'&' if '?' in hook_url else '?'}{urlencode({PARAMETER: str(pass_)})}"


def delivery_secret(subscription_id: str, key: str) -> str:
    """The ``hub.secret``: 64 characters (the Recommendation allows fewer than 200 bytes)."""
    return _derived(key, "delivery", subscription_id)


def check_content(delivery: Delivery, keys: Sequence[str]) -> None:
    """A content distribution request is signed by the hub that was asked (8.1), else `Unverified`.

    The hub chooses the method. SHA-1 is allowed: many hubs know no other, as a keyed hash it is not broken, and a delivery only
    says where to look; what is indexed is read from the feed itself.
    """
    given = Pass.read(delivery.query)
    method, equals, _ = delivery.headers.get("x-hub-signature", "").partition("=")
    if not equals or method.lower() not in _METHODS:
        raise Unverified(f"X-Hub-Signature is missing, or its method is none of {', '.join(_METHODS)}")
    living = [delivery_secret(given.id, key) for key in keys]
    check_hmac(delivery.body, delivery.headers["x-hub-signature"], living, digest=method.lower(), prefix=f"{method}=")


def answer(delivery: Delivery, keys: Sequence[str], living: Sequence[Subscription]) -> Heard:
    """What follows from a hub's verification of intent (5.3) or denial (5.2). Raises `Unverified`, which refuses."""
    query = delivery.query
    mode, topic = query.get("hub.mode", ""), query.get("hub.topic", "")
    given = Pass.read(query)
    key = given.key(topic, keys)
    known = next((one for one in living if one.id == given.id), None)
    if mode == "denied":
        reason = query.get("hub.reason", "")[:200]
        return Heard(reply=Reply(), lost=[given.id], note=f"the hub denies the subscription: {reason or 'no reason given'}")
    if mode == "unsubscribe":  # nobody but the hub knows the address; if it ends what we want to keep, that is made anew
        return Heard(reply=_echo(query), lost=[given.id] if known else (), note="the hub ends the subscription")
    if mode != "subscribe":
        raise Unverified(f"hub.mode is {mode[:40]!r}")
    age_s = delivery.received_at_ms / 1000 - given.asked_at_s
    if known is None and not -_CONFIRM_WITHIN_S < age_s < _CONFIRM_WITHIN_S:
        raise Unverified("this subscription was asked for long ago and is not wanted any more")
    lease_s = _lease_s(query)
    state = {**(known.state if known else {}), "topic": topic, "confirmed_at_ms": delivery.received_at_ms}
    kept = Subscription(given.id, delivery.received_at_ms + lease_s * 1000, delivery_secret(given.id, key), state)
    return Heard(reply=_echo(query), keep=kept, note=f"the hub confirms the subscription for {lease_s} s")


def _lease_s(query: Mapping[str, str]) -> int:
    text = query.get("hub.lease_seconds", str(LEASE_S))
    if not text.isdecimal() or len(text) > 12 or int(text) == 0:
        raise InvalidInput("query.hub.lease_seconds", f"is {text[:40]!r}", "send seconds")
    return min(int(text), _LONGEST_LEASE_S)


def _echo(query: Mapping[str, str]) -> Reply:
    challenge = query.get("hub.challenge", "")
    if not _CHALLENGE.fullmatch(challenge):
        raise InvalidInput("query.hub.challenge", "is missing or no plain text", "send a random text")
    return Reply(challenge.encode(), headers={"X-Content-Type-Options": "nosniff"})


def _derived(key: str, purpose: str, *parts: str) -> str:
    message = "\0".join((purpose, *parts)).encode("utf-8", "surrogatepass")
    return hmac.new(key.encode(), message, "sha256").hexdigest()
