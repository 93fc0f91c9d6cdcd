"""Deliveries of Slack's Events API: proven, mapped to threads, and checked against slack_sdk and the published vector."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Generator
from typing import Any

import pytest
from slack_sdk.signature import Clock, SignatureVerifier
from tests.connectors.fuzzing import check_parsing, spoiled

from sourcebus.connectors.slack import SlackConnector
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import Change, ChangeKind, Delivery, Heard
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer
from sourcebus.testing.providers.slack import APP, BOT_USER, SIGNING_SECRET, TEAM, TOKEN, SlackServer, headers_of

C1, C2 = "C0ONE", "C0TWO"
AT_MS = 1_531_420_618_000


def connector(*signing: str, **config: object) -> SlackConnector:
    return SlackConnector.create(config, json.dumps({"token": TOKEN, "signing": [*(signing or (SIGNING_SECRET,))]}))


def delivery(payload: object, *, secret: str = SIGNING_SECRET, at_ms: int = AT_MS, sent_s: float | None = None) -> Delivery:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = headers_of(body, secret, at_ms / 1000 if sent_s is None else sent_s)
    return Delivery("POST", {name.lower(): value for name, value in headers.items()}, body, at_ms)


def heard(payload: object, *, of: SlackConnector | None = None) -> Heard:
    parser = of or connector()
    try:
        return parser.parse_webhook(delivery(payload), ())
    finally:
        parser.close()


def callback(event: dict[str, Any], **outer: Any) -> dict[str, Any]:
    authorizations = [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True}]
    told = {"type": "event_callback", "team_id": TEAM, "api_app_id": APP, "event_id": "Ev1", "authorizations": authorizations}
    return {**told, "event": event, **outer}


# proofs


class Then(Clock):
    def now(self) -> float:
        return AT_MS / 1000


VECTOR = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121."
    b"803a0bc887a14d10d2c447fce8b6703c"
)


def test_the_published_vector() -> None:
    """docs.slack.dev, "Verifying requests from Slack"."""
    signed = headers_of(VECTOR, SIGNING_SECRET, 1_531_420_618)
    assert signed["X-Slack-Signature"] == "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    with pytest.raises(InvalidInput, match="JSON"):
        heard(VECTOR)  # proven, and no event


def test_slack_sdk_believes_what_the_simulator_signs_and_we_believe_what_slack_sdk_signs() -> None:
    body = json.dumps(callback({"type": "message", "channel": C1, "ts": "1.000100", "text": "ü"})).encode()
    verifier = SignatureVerifier(SIGNING_SECRET, Then())
    assert verifier.is_valid_request(body, headers_of(body, SIGNING_SECRET, AT_MS / 1000))
    assert not verifier.is_valid_request(body + b" ", headers_of(body, SIGNING_SECRET, AT_MS / 1000))
    stamp = str(AT_MS // 1000)
    signature = verifier.generate_signature(timestamp=stamp, body=body)
    assert signature is not None
    parser = connector()
    theirs = Delivery("POST", {"x-slack-request-timestamp": stamp, "x-slack-signature": signature}, body, AT_MS)
    assert parser.parse_webhook(theirs, ()).changes == [Change(f"{C1}/1.000100", ChangeKind.CREATED)]
    parser.close()


def test_forged_old_and_rotated() -> None:
    payload = callback({"type": "message", "channel": C1, "ts": "1.000100"})
    parser = connector("new", "old")
    for secret in ("new", "old"):
        for late_s in (-299, 0, 299):
            assert parser.parse_webhook(delivery(payload, secret=secret, sent_s=AT_MS / 1000 - late_s), ()).changes
    good = delivery(payload, secret="new")
    bad = [
        delivery(payload, secret="guessed"),
        delivery(payload, secret="new", sent_s=AT_MS / 1000 - 301),
        delivery(payload, secret="new", sent_s=AT_MS / 1000 + 301),
        *(Delivery("POST", {**good.headers, **changed}, good.body, AT_MS) for changed in (
            {"x-slack-signature": ""},
            {"x-slack-signature": "v0="},
            {"x-slack-signature": good.headers["x-slack-signature"].replace("v0=", "v1=")},
            {"x-slack-request-timestamp": ""},
            {"x-slack-request-timestamp": "nan"},
            {"x-slack-request-timestamp": "1٣"},
            {"x-slack-request-timestamp": str(AT_MS // 1000 + 1)},
        )),
        Delivery("POST", {}, good.body, AT_MS),
        Delivery("POST", good.headers, good.body + b" ", AT_MS),
    ]  # fmt: skip
    for one in bad:
        with pytest.raises(Unverified) as refused:
            parser.parse_webhook(one, ())
        assert "new" not in str(refused.value)
    parser.close()
    without = SlackConnector.create({}, TOKEN)
    with pytest.raises(Unverified, match="no webhook secret"):
        without.parse_webhook(good, ())
    without.close()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[" * 100_000, b"[]", b"\xff", {}, {"type": "url_verification"}, {"type": "url_verification", "challenge": 5},
        {"type": "event_callback", "event_id": "Ev1"}, callback({}), callback({"type": "message"}),
        callback({"type": "message", "channel": C1}), callback({"type": "message", "channel": C1, "ts": "../../x"}),
        callback({"type": "message", "channel": 5, "ts": "1.000100"}),
        callback({"type": "message", "channel": C1, "ts": "1.000100", "subtype": "message_changed"}),
        {"type": "event_callback", "event": {"type": "message"}, "authorizations": 7},
    ],
)  # fmt: skip
def test_a_proven_body_that_makes_no_sense(body: object) -> None:
    with pytest.raises(InvalidInput):
        heard(body)


# what an event means


def test_the_challenge_is_answered_with_itself() -> None:
    said = heard({"type": "url_verification", "challenge": "3eZbrw1a", "token": "legacy"})
    assert said.reply is not None
    assert (said.reply.status, said.reply.body, said.changes) == (200, b"3eZbrw1a", ())


ROOT, REPLY = "1699999999.000100", "1700000000.000200"
SCAN, SCAN_2 = [Change(f"{C1}/", ChangeKind.SCAN)], Change(f"{C2}/", ChangeKind.SCAN)
GONE_REPLY = {"ts": REPLY, "thread_ts": ROOT}
UPDATED = [Change(f"{C1}/{ROOT}", ChangeKind.UPDATED)]


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        ({"type": "message", "ts": ROOT}, [Change(f"{C1}/{ROOT}", ChangeKind.CREATED)]),
        ({"type": "app_mention", "ts": ROOT}, [Change(f"{C1}/{ROOT}", ChangeKind.CREATED)]),
        ({"type": "message", "ts": ROOT, "subtype": "file_share"}, [Change(f"{C1}/{ROOT}", ChangeKind.CREATED)]),
        ({"type": "message", "ts": REPLY, "thread_ts": ROOT}, UPDATED),
        ({"type": "message", "ts": REPLY, "thread_ts": ROOT, "subtype": "thread_broadcast"}, UPDATED),
        ({"type": "message", "ts": REPLY, "thread_ts": ROOT, "bot_id": "B1"}, UPDATED),
        ({"type": "message", "subtype": "message_changed", "message": {"ts": ROOT}}, UPDATED),
        ({"type": "message", "subtype": "message_changed", "message": {"ts": REPLY, "thread_ts": ROOT}}, UPDATED),
        ({"type": "message", "subtype": "message_replied", "message": {"ts": ROOT, "thread_ts": ROOT}}, UPDATED),
        ({"type": "message", "subtype": "message_deleted", "deleted_ts": ROOT}, [Change(f"{C1}/{ROOT}", ChangeKind.DELETED)]),
        ({"type": "message", "subtype": "message_deleted", "deleted_ts": REPLY, "previous_message": GONE_REPLY}, UPDATED),
        ({"type": "message", "ts": ROOT, "subtype": "bot_message", "bot_id": "B1"}, []),
        ({"type": "message", "ts": ROOT, "subtype": "channel_join"}, []),
        ({"type": "channel_deleted"}, SCAN),
        ({"type": "channel_left"}, SCAN),
        ({"type": "group_left"}, SCAN),
        ({"type": "channel_history_changed", "latest": ROOT}, SCAN),
        ({"type": "member_joined_channel", "user": BOT_USER}, SCAN),
        ({"type": "member_joined_channel", "user": "U0OTHER"}, []),
        ({"type": "member_left_channel", "user": BOT_USER}, SCAN),
        ({"type": "channel_rename", "channel": {"id": C1, "name": "new"}}, []),
        ({"type": "channel_id_changed", "old_channel_id": C1, "new_channel_id": C2}, [*SCAN, SCAN_2]),
        ({"type": "reaction_added", "item": {"channel": C1, "ts": ROOT}}, []),
        ({"type": "tokens_revoked", "tokens": {}}, [Change("", ChangeKind.SCAN)]),
        ({"type": "app_uninstalled"}, [Change("", ChangeKind.SCAN)]),
        ({"type": "never_heard_of"}, []),
    ],
)  # fmt: skip
def test_events(event: dict[str, Any], changes: list[Change]) -> None:
    said = heard(callback({"channel": C1, **event}))
    assert list(said.changes) == changes
    assert said.delivery_id == "Ev1"
    assert said.changes or said.note


@pytest.mark.parametrize("seed", range(4))
def test_spoiled_payloads_are_refused_or_understood(seed: int) -> None:
    chance, source = random.Random(seed), connector(channels=[C1], team=TEAM)
    events = [
        {"type": "message", "channel": C1, "ts": REPLY, "thread_ts": ROOT, "text": "x"},
        {"type": "message", "channel": C1, "subtype": "message_changed", "message": {"ts": ROOT, "edited": {"ts": REPLY}}},
        {"type": "message", "channel": C1, "subtype": "message_deleted", "deleted_ts": REPLY, "previous_message": GONE_REPLY},
        {"type": "member_joined_channel", "channel": C1, "user": BOT_USER},
        {"type": "channel_id_changed", "old_channel_id": C1, "new_channel_id": C2},
    ]
    understood = 0
    for _ in range(500):
        bad = spoiled(callback(chance.choice(events)), chance)
        understood += check_parsing(lambda body: source.parse_webhook(delivery(body), ()), bad)
    assert 0 < understood < 500
    source.close()


def test_whose_it_is() -> None:
    """An app in several workspaces has one address for all; what is not ours is answered, and nothing follows."""
    event = {"type": "message", "channel": C1, "ts": ROOT}
    ours = connector(team=TEAM, app=APP, channels=[C1])
    assert ours.parse_webhook(delivery(callback(event)), ()).changes
    shared = callback(event, team_id="T0OTHER")  # a channel shared with another workspace; the authorization is ours
    assert ours.parse_webhook(delivery(shared), ()).changes
    foreign = {"team_id": "T0OTHER", "authorizations": [{"team_id": "T0OTHER", "user_id": "U1"}]}
    for other in (
        callback(event, **foreign),
        callback(event, api_app_id="A0OTHER"),
        callback({**event, "channel": C2}),
        callback({**event, "channel": "D0DIRECT"}),
        {"type": "app_rate_limited", "team_id": "T0OTHER", "api_app_id": APP},
    ):
        said = ours.parse_webhook(delivery(other), ())
        assert not said.changes
        assert said.note
    ours.close()


def test_left_out_events_are_a_scan() -> None:
    said = heard({"type": "app_rate_limited", "team_id": TEAM, "api_app_id": APP, "minute_rate_limited": 1})
    assert said.changes == [Change("", ChangeKind.SCAN)]


# the simulator's deliveries


@pytest.fixture
def slack() -> Generator[SlackServer]:
    with SlackServer(pace=1000) as server:
        server.channel(C1)
        yield server


class Receiver(ProviderServer):
    """Somebody's address: answers the challenge and takes deliveries."""

    def __init__(self) -> None:
        super().__init__()
        self.parser = connector()
        self.heard: list[Heard] = []
        self.on("POST", "/hook", self._take)

    def _take(self, asked: Asked) -> Answer:
        said = self.parser.parse_webhook(Delivery("POST", asked.headers, asked.body, round(time.time() * 1000)), ())
        self.heard.append(said)
        return Answer(said.reply.status, said.reply.body) if said.reply else Answer(202)

    def close(self) -> None:
        self.parser.close()
        super().close()


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with Receiver() as server:
        yield server


def test_from_the_handshake_to_every_change(slack: SlackServer, receiver: Receiver) -> None:
    assert slack.set_request_url(f"{receiver.url}/hook").status_code == 200
    root = slack.post(C1, "question")
    slack.courier.settle()
    reply = slack.post(C1, "answer", thread=root)
    slack.courier.settle()
    slack.edit(C1, reply, "better answer")
    slack.delete(C1, root)  # leaves a tombstone
    slack.rate_limit_events()
    slack.courier.settle()
    told = [list(said.changes) for said in receiver.heard[1:]]
    assert told[:2] == [[Change(f"{C1}/{root}", ChangeKind.CREATED)], [Change(f"{C1}/{root}", ChangeKind.UPDATED)]]
    edited = deleted = [Change(f"{C1}/{root}", ChangeKind.UPDATED)]
    assert sorted(told[2:], key=str) == sorted([edited, deleted, [Change("", ChangeKind.SCAN)]], key=str)


def test_an_address_that_does_not_answer_the_challenge_is_not_taken(slack: SlackServer) -> None:
    with ProviderServer() as deaf:
        deaf.on("POST", "/hook", lambda _asked: Answer(200, b"hello"))
        slack.set_request_url(f"{deaf.url}/hook")
        slack.post(C1, "nobody hears this")
    assert slack.delivered == []


def test_a_refused_delivery_comes_again_under_its_name(slack: SlackServer, receiver: Receiver) -> None:
    """At once, after a minute and after five (a thousand times faster here): each attempt signed anew, three at most."""
    slack.set_request_url(f"{receiver.url}/hook")
    receiver.refuse(Answer(500), times=4)
    slack.post(C1, "never taken")
    slack.courier.settle()
    assert slack.delivered[-1][1].statuses == [500] * 4
    receiver.refuse(Answer(503), times=2)
    slack.post(C1, "taken at last")
    slack.courier.settle()
    told, sent = slack.delivered[-1]
    assert sent.statuses == [503, 503, 202]
    last = receiver.asked[-1].headers
    assert (last["x-slack-retry-num"], last["x-slack-retry-reason"]) == ("2", "http_error")
    assert receiver.heard[-1].delivery_id == told["event_id"]
