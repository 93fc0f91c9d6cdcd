"""WebSub: subscribing at Flask-WebSub's hub, which is not ours, and every answer that a hub must not get."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from benchmarks.reach_feed import INSTALL, Hub

from sourcebus.connectors.feed import PushedFeedConnector, feed
from sourcebus.errors import InvalidInput, SourcebusError, SourceUnavailable, SubscriptionLost, Throttled, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, Subscription
from sourcebus.testing.providers.feed import FeedSite
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

pytest.importorskip("flask_websub", reason=f"there is no hub to subscribe at: {INSTALL}")

SCAN = [Change(WHOLE_SOURCE, ChangeKind.SCAN)]
PATIENCE_S = 10.0


class Gateway:
    """A hook's address that knows nothing but the source's config and secret, and what it was told to keep."""

    def __init__(self, provider: ProviderServer, connector: PushedFeedConnector) -> None:
        self.connector, self.hook_url = connector, f"{provider.url}/hooks/blog"
        self.living: dict[str, Subscription] = {}
        self.heard: list[Heard] = []
        self.asked: list[Asked] = []
        self.refused: list[SourcebusError] = []
        provider.on("GET", "/hooks/blog", self._answer)
        provider.on("POST", "/hooks/blog", self._answer)

    def _answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        delivery = Delivery(asked.method, asked.headers, asked.body, int(time.time() * 1000), asked.query)
        try:
            heard = self.connector.parse_webhook(delivery, [*self.living.values()])
        except SourcebusError as refused:
            self.refused.append(refused)
            return Answer(401)
        if heard.keep:
            self.living[heard.keep.id] = heard.keep
        for lost in heard.lost:
            self.living.pop(lost, None)
        self.heard.append(heard)
        reply = heard.reply
        return Answer(reply.status, reply.body, {"Content-Type": reply.media_type, **reply.headers}) if reply else Answer(202)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub"), lease_s=600) as hub:
        yield hub


@pytest.fixture
def site(hub: Hub) -> Iterator[FeedSite]:
    hub.denies = ""
    with FeedSite(hub=hub.url, window=5) as site:
        yield site


@pytest.fixture
def gateway(site: FeedSite, hub: Hub) -> Iterator[Gateway]:
    connector = pushed(site, hub)
    with ProviderServer() as provider:
        yield Gateway(provider, connector)
    connector.close()


def pushed(site: FeedSite, hub: Hub, secret: str = "source secret") -> PushedFeedConnector:
    return cast("PushedFeedConnector", feed({"url": site.feed_url, "trusted_hubs": [hub.url]}, secret))


def until(there: Callable[[], object]) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < ends_s, "it does not happen"
        time.sleep(0.005)


# the real hub


def test_a_subscription_is_asked_for_confirmed_and_delivers(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    site.write("old", "text")
    made = gateway.connector.subscribe(gateway.hook_url)
    assert abs(cast("int", made.expires_at_ms) - time.time() * 1000 - 86_400_000) < 10_000  # a day, until it is confirmed
    until(lambda: hub.callbacks(site.feed_url))
    kept = gateway.living[made.id]
    assert (
        abs(cast("int", kept.expires_at_ms) - time.time() * 1000 - 600_000) < 10_000
    )  # what the hub granted, not what was asked
    assert kept.secret == made.secret
    assert str(kept.secret) not in repr(kept)
    assert gateway.heard[0].changes == ()

    ref = site.write("news", "something new")
    hub.publish(site.feed_url)
    until(lambda: len(gateway.heard) == 2)
    assert {change.object_ref for change in gateway.heard[1].changes} == {ref, "tag:example.org,2024:old"}
    named = {change.object_ref: change.version for change in gateway.heard[1].changes}
    assert named[ref] == gateway.connector.version(ref)
    assert "something new" in gateway.connector.extract(ref).documents[0].text
    assert not gateway.refused


def test_the_gateway_needs_no_record_of_the_subscription(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    """The hub may call before `subscribe` has returned, and another process answers it."""
    asker = pushed(site, hub)
    asker.subscribe(gateway.hook_url)
    until(lambda: hub.callbacks(site.feed_url))
    gateway.living.clear()
    site.write("news", "text")
    hub.publish(site.feed_url)
    until(lambda: len(gateway.heard) == 2)
    assert gateway.heard[1].changes
    asker.close()


def test_renewing_keeps_the_subscription(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    made = gateway.connector.subscribe(gateway.hook_url)
    until(lambda: len(gateway.heard) == 1)
    renewed = gateway.connector.renew(made, gateway.hook_url)
    assert (renewed.id, renewed.secret) == (made.id, made.secret)
    until(lambda: len(gateway.heard) == 2)
    assert len(hub.callbacks(site.feed_url)) == 1


def test_a_feed_that_moved_to_another_address_is_subscribed_anew(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    made = gateway.connector.subscribe(gateway.hook_url)
    moved = Subscription(made.id, made.expires_at_ms, made.secret, {**made.state, "topic": "https://elsewhere.example/feed"})
    assert gateway.connector.renew(moved, gateway.hook_url).id != made.id
    with pytest.raises(SubscriptionLost):
        gateway.connector.renew(Subscription("nonsense", state=made.state), gateway.hook_url)


def test_unsubscribing(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    made = gateway.connector.subscribe(gateway.hook_url)
    until(lambda: hub.callbacks(site.feed_url))
    gateway.connector.unsubscribe(made)
    until(lambda: not hub.callbacks(site.feed_url))
    gateway.connector.unsubscribe(made)  # known to nobody any more
    gateway.connector.unsubscribe(Subscription("x"))


def test_a_denied_subscription_is_lost(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    hub.denies = "not for you"
    made = gateway.connector.subscribe(gateway.hook_url)
    until(lambda: gateway.heard)
    assert (gateway.heard[0].lost, "not for you" in gateway.heard[0].note) == ([made.id], True)
    assert not hub.callbacks(site.feed_url)


def test_a_hub_is_not_confirmed_for_what_was_not_asked(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    """Somebody has the hub subscribe this source's hook to a topic of his."""
    with FeedSite(hub=hub.url) as other:
        body = {"hub.mode": "subscribe", "hub.topic": other.feed_url, "hub.callback": gateway.hook_url, "hub.secret": "his"}
        httpx.post(hub.url, data=body).raise_for_status()
        until(lambda: gateway.refused)
        assert isinstance(gateway.refused[0], Unverified)
        assert not hub.callbacks(other.feed_url)


def test_a_delivery_of_another_secret_is_refused(gateway: Gateway, site: FeedSite, hub: Hub) -> None:
    made = gateway.connector.subscribe(gateway.hook_url)
    until(lambda: hub.callbacks(site.feed_url))
    stranger = pushed(site, hub, "another secret")
    (callback,) = hub.callbacks(site.feed_url)
    delivery = signed(site.body(), cast("str", made.secret), query_of(callback))
    assert gateway.connector.parse_webhook(delivery, ()).changes == SCAN  # an empty feed says nothing: look
    with pytest.raises(Unverified):
        stranger.parse_webhook(delivery, ())
    stranger.close()


@pytest.mark.parametrize("method", ["sha1", "sha256", "sha384", "sha512"])
def test_the_hub_chooses_how_it_signs(gateway: Gateway, site: FeedSite, hub: Hub, method: str) -> None:
    hub.sign_with(method)
    gateway.connector.subscribe(gateway.hook_url)
    until(lambda: hub.callbacks(site.feed_url))
    ref = site.write("news", "text")
    hub.publish(site.feed_url)
    until(lambda: len(gateway.heard) == 2)
    assert gateway.asked[1].headers["x-hub-signature"].startswith(f"{method}=")
    assert [change.object_ref for change in gateway.heard[1].changes] == [ref]


# proofs, without a hub

HOOK = "https://gateway.example/hooks/blog"
TOPIC = "https://blog.example/feed"


@pytest.fixture
def asked() -> Iterator[tuple[PushedFeedConnector, Subscription, dict[str, str], ProviderServer]]:
    """A connector, the subscription it made, the query of its callback, and the hub that was asked (which answers nothing)."""
    with ProviderServer() as provider:
        body = f'<feed xmlns="http://www.w3.org/2005/Atom"><id>x</id><link rel="self" href="{TOPIC}"/></feed>'
        link = {"Link": f'<{provider.url}/hub?a=1>; rel="hub"'}
        provider.on("GET", "/feed", lambda _asked: Answer(200, body.encode(), link))
        provider.on("POST", "/hub", lambda _asked: Answer(202))
        config = {"url": f"{provider.url}/feed", "trusted_hubs": [provider.url]}
        connector = cast("PushedFeedConnector", feed(config, '{"websub": ["new", "old"], "token": "for the feed only"}'))
        made = connector.subscribe(HOOK)
        yield connector, made, query_of(fields(provider.asked[-1])["hub.callback"]), provider
        connector.close()


Made = tuple[PushedFeedConnector, Subscription, dict[str, str], ProviderServer]


def fields(asked: Asked) -> dict[str, str]:
    return dict(parse_qsl(asked.body.decode()))


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def signed(body: bytes, secret: str, query: Mapping[str, str], method: str = "sha256") -> Delivery:
    signature = hmac.new(secret.encode(), body, method).hexdigest()
    return Delivery("POST", {"x-hub-signature": f"{method}={signature}"}, body, int(time.time() * 1000), query)


def question(query: Mapping[str, str], later_s: float = 0, /, **changed: str | None) -> Delivery:
    full = {"hub.mode": "subscribe", "hub.topic": TOPIC, "hub.challenge": "ch4llenge", "hub.lease_seconds": "600", **query}
    full |= {f"hub.{name}": value for name, value in changed.items() if value is not None}
    for name in [name for name, value in changed.items() if value is None]:
        del full[f"hub.{name}"]
    return Delivery("GET", {}, b"", int((time.time() + later_s) * 1000), full)


def test_what_a_hub_is_asked(asked: Made) -> None:
    _connector, made, query, provider = asked
    request = provider.asked[-1]
    body = fields(request)
    assert request.query == {"a": "1"}  # the hub's own
    assert (body["hub.mode"], body["hub.topic"], body["hub.lease_seconds"]) == ("subscribe", TOPIC, "864000")
    assert (body["hub.secret"], len(body["hub.secret"].encode()) < 200) == (made.secret, True)
    assert "authorization" not in request.headers
    assert "authorization" in provider.asked[0].headers
    assert "new" not in f"{query} {made.secret} {made.state}"


def test_a_question_is_answered_byte_for_byte(asked: Made) -> None:
    connector, made, query, _provider = asked
    heard = connector.parse_webhook(question(query), ())
    assert heard.reply is not None
    assert (heard.reply.status, heard.reply.body, heard.reply.media_type) == (200, b"ch4llenge", "text/plain")
    assert heard.keep is not None
    assert heard.keep.id == made.id
    kept = connector.parse_webhook(question(query, lease_seconds=None), [made]).keep
    assert kept is not None
    assert kept.state["hub"] == made.state["hub"]  # what is known stays known


@pytest.mark.parametrize(
    "changed",
    [
        {"topic": "https://evil.example/feed"},
        {"topic": TOPIC + "/"},
        {"topic": ""},
        {"mode": "publish"},
        {"mode": ""},
        {"mode": None},
    ],
)
def test_a_question_about_something_else_is_refused(asked: Made, changed: dict[str, str | None]) -> None:
    connector, made, query, _provider = asked
    with pytest.raises(Unverified):
        connector.parse_webhook(question(query, **changed), [made])


SPOILT: list[Callable[[str], str]] = [
    lambda _: "",
    lambda _: "\0",
    lambda text: text * 9,
    lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
    lambda text: ("0" if text[0] != "0" else "1") + text[1:],
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_an_address_of_somebody_elses_making_is_refused(asked: Made, spoil: Callable[[str], str]) -> None:
    connector, made, query, _provider = asked
    wrong = {"websub": spoil(query["websub"])}
    for mode in ("subscribe", "unsubscribe", "denied"):
        with pytest.raises(Unverified):
            connector.parse_webhook(question(wrong, mode=mode), [made])
    with pytest.raises(Unverified):
        connector.parse_webhook(Delivery("GET", {}, b"", 0, {}), [made])


@pytest.mark.parametrize(
    "changed",
    [
        {"challenge": None},
        {"challenge": ""},
        {"challenge": "<script>\n"},
        {"challenge": "x" * 5_000},
        {"lease_seconds": "0"},
        {"lease_seconds": "-1"},
        {"lease_seconds": "soon"},
        {"lease_seconds": "9" * 400},
    ],
)
def test_a_question_that_makes_no_sense_is_named(asked: Made, changed: dict[str, str | None]) -> None:
    connector, made, query, _provider = asked
    with pytest.raises(InvalidInput, match=r"query\.hub"):
        connector.parse_webhook(question(query, **changed), [made])


def test_an_old_question_is_only_answered_for_a_living_subscription(asked: Made) -> None:
    connector, made, query, _provider = asked
    assert connector.parse_webhook(question(query, 7 * 86_400), [made]).keep
    with pytest.raises(Unverified, match="long ago"):
        connector.parse_webhook(question(query, 7 * 86_400), ())


def test_an_end_that_the_hub_wants_is_noticed(asked: Made) -> None:
    """Ours has been taken off already when its end is confirmed; one that lives is made anew."""
    connector, made, query, _provider = asked
    assert connector.parse_webhook(question(query, mode="unsubscribe"), [made]).lost == [made.id]
    assert not connector.parse_webhook(question(query, mode="unsubscribe"), ()).lost


def test_a_secret_may_be_replaced(asked: Made) -> None:
    connector, made, query, provider = asked
    config = {"url": f"{provider.url}/feed", "trusted_hubs": [provider.url]}
    replaced = cast("PushedFeedConnector", feed(config, '{"websub": ["newer", "new"]}'))
    gone = cast("PushedFeedConnector", feed(config, "newer"))
    delivery = signed(b"anything", cast("str", made.secret), query)
    assert replaced.parse_webhook(delivery, ()).changes == SCAN
    kept = replaced.parse_webhook(question(query), ()).keep
    assert kept is not None
    assert kept.secret == made.secret
    with pytest.raises(Unverified):
        gone.parse_webhook(delivery, ())
    del connector
    replaced.close()
    gone.close()


UNSIGNED = [None, "", "sha256", "sha256=", "sha256=00", f"md5={'0' * 32}", f"sha1={'0' * 40}", "=x", "SHA256=\N{SNOWMAN}"]


@pytest.mark.parametrize("signature", UNSIGNED)
def test_content_that_is_not_signed_is_refused(asked: Made, signature: str | None) -> None:
    connector, made, query, _provider = asked
    headers = {} if signature is None else {"x-hub-signature": signature}
    with pytest.raises(Unverified):
        connector.parse_webhook(Delivery("POST", headers, b"<feed/>", 0, query), [made])
    right = signed(b"<feed/>", cast("str", made.secret), query)
    for wrong in (Delivery("POST", right.headers, b"<feed />", 0, query), Delivery("POST", right.headers, b"<feed/>", 0, {})):
        with pytest.raises(Unverified):
            connector.parse_webhook(wrong, [made])


def atom(count: int, more: str = "") -> bytes:
    entries = "".join(f"<entry><id>tag:{number}</id><title>{number}</title></entry>" for number in range(count))
    spaces = 'xmlns="http://www.w3.org/2005/Atom" xmlns:at="http://purl.org/atompub/tombstones/1.0"'
    return f"<feed {spaces}><id>x</id>{entries}{more}</feed>".encode()


def test_what_is_distributed_names_its_entries(asked: Made) -> None:
    connector, made, query, _provider = asked
    secret = cast("str", made.secret)
    gone = '<at:deleted-entry ref="tag:old" when="2024-01-01T00:00:00Z"/>'
    changes = connector.parse_webhook(signed(atom(2, gone), secret, query), [made]).changes
    assert [(change.object_ref, change.change_kind) for change in changes] == [
        ("tag:0", ChangeKind.UPDATED),
        ("tag:1", ChangeKind.UPDATED),
        ("tag:old", ChangeKind.DELETED),
    ]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\0\xff", atom(0), atom(11), atom(1) + b" " * 200_001, b"<!ENTITY", b"/etc/passwd", b"<a>" * 2_000]
)
def test_what_cannot_be_read_or_is_much_means_look(asked: Made, body: bytes) -> None:
    connector, made, query, _provider = asked
    for method in ("sha256", "sha1", "sha384", "sha512"):
        assert connector.parse_webhook(signed(body, cast("str", made.secret), query, method), [made]).changes == SCAN


# discovery


@pytest.mark.parametrize(
    ("link", "inside", "hub", "topic"),
    [
        ('<{u}/hub>; rel="hub", <https://t.example/>; rel="self"', "", "{u}/hub", "https://t.example/"),
        ("<{u}/hub>;rel=hub", "", "{u}/hub", "{u}/feed"),
        ('<{u}/hub>; title="a, b; rel=x"; rel="alternate HUB"', "", "{u}/hub", "{u}/feed"),
        ("</hub>; rel=hub", '<link rel="self" href="/other"/>', "{u}/hub", "{u}/other"),
        ('<{u}/first>; rel="hub"', '<link rel="hub" href="{u}/second"/>', "{u}/first", "{u}/feed"),
        (
            "",
            '<link rel="hub" href="{u}/second"/><link rel="self" href="https://t.example/"/>',
            "{u}/second",
            "https://t.example/",
        ),
        ("", '<link rel="hub" href="http://untrusted.example/"/><link rel="hub" href="{u}/second"/>', "{u}/second", "{u}/feed"),
        ('<{u}/x>; rel="next"', "", None, None),
        ("", '<link rel="hub" href="http://untrusted.example/"/>', None, None),
        ("garbage,,;<>", "", None, None),
    ],
)
def test_hub_and_topic_are_found(link: str, inside: str, hub: str | None, topic: str | None) -> None:
    with ProviderServer() as provider:
        body = f'<feed xmlns="http://www.w3.org/2005/Atom"><id>x</id>{inside.format(u=provider.url)}</feed>'.encode()
        headers = {"Link": link.format(u=provider.url)} if link else {}
        provider.on("GET", "/feed", lambda _asked: Answer(200, body, headers))
        provider.on("POST", ".*", lambda _asked: Answer(202))
        connector = cast("PushedFeedConnector", feed({"url": f"{provider.url}/feed", "trusted_hubs": [provider.url]}, "secret"))
        if hub is None:
            with pytest.raises(SourceUnavailable, match="no hub"):
                connector.subscribe(HOOK)
        else:
            made = connector.subscribe(HOOK + "?own=1")
            assert (made.state["hub"], made.state["topic"]) == (hub.format(u=provider.url), str(topic).format(u=provider.url))
            assert query_of(fields(provider.asked[-1])["hub.callback"])["own"] == "1"
        connector.close()


@pytest.mark.parametrize(
    ("answer", "error"), [(Answer(400), SourceUnavailable), (Answer(500), SourceUnavailable), (Answer(429), Throttled)]
)
def test_a_hub_that_refuses(asked: Made, answer: Answer, error: type[SourcebusError]) -> None:
    connector, made, _query, provider = asked
    provider.refuse(answer, path="/hub")
    with pytest.raises(error) as refused:
        connector.renew(made, HOOK)
    assert cast("str", made.secret) not in str(refused.value)


def test_a_hub_inside_the_network_is_not_asked() -> None:
    """A feed can name any address; only its own server, public ones and trusted ones are asked."""
    with ProviderServer() as internal, ProviderServer() as provider:
        body = f'<feed xmlns="http://www.w3.org/2005/Atom"><id>x</id><link rel="hub" href="{internal.url}/admin"/></feed>'
        provider.on("GET", "/feed", lambda _asked: Answer(200, body.encode()))
        connector: Any = feed({"url": f"{provider.url}/feed"}, "secret")
        with pytest.raises(SourceUnavailable):
            connector.subscribe(HOOK)
        assert not internal.asked
        connector.close()


def test_derived_secrets_differ_and_are_hashes(asked: Made) -> None:
    connector, made, _query, _provider = asked
    again = connector.subscribe(HOOK)
    assert again.id != made.id
    assert again.secret != made.secret
    assert len(cast("str", again.secret)) == hashlib.sha256().digest_size * 2
