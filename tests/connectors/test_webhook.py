"""The generic connectors: who may deliver, what a payload says, and where a reference may lead."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import http as ce_http
from cloudevents.core.v1.event import CloudEvent
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from standardwebhooks.webhooks import Webhook

from sourcebus.connectors.webhook import CloudEventsConnector, WebhookConnector
from sourcebus.errors import InvalidInput, ObjectGone, SourceUnavailable, Throttled, Unverified
from sourcebus.model import Change, ChangeKind, Delivery, Heard
from sourcebus.testing import MemoryDepot
from sourcebus.testing.providers.server import Answer, ProviderServer

NOW_MS = 1_700_000_000_000
BODY = b'{"id": "page-7"}'
CHANGED = (Change("page-7"),)
INLINE = {"text": "text"}

GITHUB = {"kind": "hmac", "header": "X-Hub-Signature-256", "prefix": "sha256="}
SLACK = {
    "kind": "hmac",
    "header": "X-Slack-Signature",
    "prefix": "v0=",
    "template": "v0:{timestamp}:{body}",
    "timestamp_header": "X-Slack-Request-Timestamp",
}


def connector(secret: Any = "s3cret", **config: Any) -> WebhookConnector:
    settings = {"proof": GITHUB, "ref": "id", "read": {"url": "https://cms.example/{ref}"}, **config}
    return WebhookConnector.create(settings, secret if isinstance(secret, str | None) else json.dumps(secret))


def hear(
    made: WebhookConnector, body: bytes = BODY, method: str = "POST", query: dict[str, str] | None = None, **headers: Any
) -> Heard:
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return made.parse_webhook(Delivery(method, named, body, NOW_MS, query or {}, "https://hooks.example/hooks/cms"), [])


def hub(body: bytes, secret: str = "s3cret") -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


# --- proofs: published vectors (providers' own documentation), libraries of others, and forgeries


def test_github_s_published_vector() -> None:
    made = connector("It's a Secret to Everybody", items="id")
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    with pytest.raises(InvalidInput, match="no JSON"):  # proven, but what was proven is a greeting
        hear(made, b"Hello, World!", X_Hub_Signature_256=signature)
    with pytest.raises(Unverified):
        hear(made, b"Hello, World?", X_Hub_Signature_256=signature)


def test_slack_s_published_vector() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
        b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
        b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
        b".803a0bc887a14d10d2c447fce8b6703c"
    )
    made = connector("8f742231b10e8888abcd99yyyzzz85a5", proof=SLACK, ref="channel_id")
    headers = {
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        "x-slack-request-timestamp": "1531420618",
        "content-type": "application/x-www-form-urlencoded",
    }
    then = Delivery("POST", headers, body, 1_531_420_700_000)
    assert made.parse_webhook(then, []).changes == [Change("G8PSS9T3V")]
    later = Delivery("POST", headers, body, 1_531_421_618_001)
    with pytest.raises(Unverified, match="1000 s ago"):
        made.parse_webhook(later, [])


def test_standard_webhooks_as_their_library_signs() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    sent = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    signature = Webhook(secret).sign("msg_1", sent, BODY.decode())
    headers: dict[str, Any] = {"webhook_id": "msg_1", "webhook_timestamp": str(NOW_MS // 1000)}
    for secrets in (secret, {"webhook": ["whsec_" + base64.b64encode(b"newer").decode(), secret]}):
        heard = hear(
            connector(secrets, proof={"kind": "standard-webhooks"}), **headers, webhook_signature=f"v1,bm8= {signature}"
        )
        assert heard.changes == list(CHANGED)
        assert heard.delivery_id == "msg_1"
    wrong: dict[str, Any]
    for wrong in ({"webhook_id": "msg_2"}, {"webhook_timestamp": str(NOW_MS // 1000 - 301)}, {"webhook_timestamp": "soon"}):
        with pytest.raises(Unverified):
            hear(connector(secret, proof={"kind": "standard-webhooks"}), **({**headers, **wrong}), webhook_signature=signature)


def test_standard_webhooks_with_a_public_key() -> None:
    key = Ed25519PrivateKey.generate()
    public = "whpk_" + base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    sent = str(NOW_MS // 1000)
    signature = "v1a," + base64.b64encode(key.sign(f"msg_1.{sent}.".encode() + BODY)).decode()
    made = connector(public, proof={"kind": "standard-webhooks"})
    assert hear(made, webhook_id="msg_1", webhook_timestamp=sent, webhook_signature=signature).changes == list(CHANGED)
    with pytest.raises(Unverified):
        hear(made, BODY + b" ", webhook_id="msg_1", webhook_timestamp=sent, webhook_signature=signature)


def test_a_symmetric_signature_made_of_the_public_key_proves_nothing() -> None:
    """The public key is public: taken for an HMAC key it would let anybody in."""
    public = "whpk_" + base64.b64encode(bytes(32)).decode()
    sent = str(NOW_MS // 1000)
    forged = base64.b64encode(hmac.new(bytes(32), f"m.{sent}.".encode() + BODY, hashlib.sha256).digest()).decode()
    with pytest.raises(Unverified):
        hear(
            connector(public, proof={"kind": "standard-webhooks"}),
            webhook_id="m",
            webhook_timestamp=sent,
            webhook_signature=f"v1,{forged}",
        )


def test_a_template_of_method_url_body_and_time_in_base64() -> None:
    proof = {
        "kind": "hmac",
        "header": "X-Sig",
        "encoding": "base64",
        "template": "{method}{url}{body}{timestamp}",
        "timestamp_header": "X-Time",
    }
    sent = str(NOW_MS // 1000)
    message = b"POSThttps://hooks.example/hooks/cms" + BODY + sent.encode()
    signature = base64.b64encode(hmac.new(b"s3cret", message, hashlib.sha256).digest()).decode()
    assert hear(connector(proof=proof), X_Sig=signature, X_Time=sent).changes == list(CHANGED)
    with pytest.raises(Unverified, match="X-Time"):
        hear(connector(proof=proof), X_Sig=signature)


def test_tokens() -> None:
    bearer, header = connector(proof={"kind": "bearer"}), connector(proof={"kind": "header", "header": "X-Gitlab-Token"})
    assert hear(bearer, Authorization="Bearer s3cret").changes == list(CHANGED)
    assert hear(header, X_Gitlab_Token="s3cret").changes == list(CHANGED)
    for wrong in ("", "Bearer", "Bearer S3cret", "Basic s3cret", "s3cret", "Bearer s3cret\udcff"):
        with pytest.raises(Unverified):
            hear(bearer, Authorization=wrong)
    with pytest.raises(Unverified):
        hear(header)


def test_every_living_secret_proves_and_a_dead_one_does_not() -> None:
    made = connector({"webhook": ["new", "old"]})
    assert hear(made, X_Hub_Signature_256=hub(BODY, "new")).changes == hear(made, X_Hub_Signature_256=hub(BODY, "old")).changes
    with pytest.raises(Unverified):
        hear(made, X_Hub_Signature_256=hub(BODY, "older"))


@pytest.mark.parametrize("signature", ["", "sha256=", "sha1=" + "0" * 40, "sha256=" + "é" * 64, "757107ea", hub(b"other")])
def test_a_forgery_is_refused_before_anything_is_parsed(signature: str) -> None:
    with pytest.raises(Unverified) as refused:
        hear(connector(), b"{" * 100_000, X_Hub_Signature_256=signature)
    assert "s3cret" not in str(refused.value)


def test_without_a_secret_nothing_is_proven() -> None:
    with pytest.raises(InvalidInput, match="secret"):
        connector(None)
    assert connector(None, proof={"kind": "path"}).needs_secret_path
    assert not connector().needs_secret_path


# --- handshakes


def test_a_query_field_is_echoed_as_plain_text_only() -> None:
    made = connector(handshake={"echo_query": "challenge"})
    reply = hear(made, method="GET", query={"challenge": "<script>"}).reply
    assert reply is not None
    assert (reply.status, reply.body, reply.media_type) == (200, b"<script>", "text/plain")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    for query in ({}, {"challenge": "x" * 5_000}):
        with pytest.raises(InvalidInput):
            hear(made, method="GET", query=query)


def test_a_body_field_is_echoed_once_it_is_proven_unless_it_cannot_be() -> None:
    body = b'{"type": "url_verification", "challenge": "abc"}'
    proven = connector(handshake={"echo_field": "challenge"})
    assert (reply := hear(proven, body, X_Hub_Signature_256=hub(body)).reply) is not None
    assert reply.body == b"abc"
    with pytest.raises(Unverified):
        hear(proven, body)
    unsigned = connector(handshake={"echo_field": "challenge", "unsigned": True})
    assert hear(unsigned, body).reply == reply
    with pytest.raises(Unverified):  # only the handshake is excused
        hear(unsigned)


# --- what a payload says


def said(payload: Any, **config: Any) -> Heard:
    body = json.dumps(payload).encode()
    return hear(connector(**config), body, X_Hub_Signature_256=hub(body))


def test_one_or_many_objects_their_kinds_and_versions() -> None:
    payload = {
        "events": [
            {"what": "page.edited", "page": {"id": 7, "rev": 3}},
            {"what": "page.removed", "page": {"id": "a/ü", "rev": None}},
            {"what": "comment.added", "page": {"id": 9}},
            {"what": "space.moved", "page": {"id": ""}},
        ]
    }
    heard = said(
        payload,
        items="events",
        ref="page.id",
        kind="what",
        kinds={"page.removed": "deleted", "comment.added": "ignore", "space.moved": "scan"},
        version="page.rev",
    )
    assert heard.changes == [
        Change("7", version="3"),
        Change("a/ü", ChangeKind.DELETED),
        Change("", ChangeKind.SCAN),
    ]
    assert heard.note == "1 of no interest"


def test_an_item_may_name_several_objects() -> None:
    heard = said({"changed": ["a", "b"], "by": "me"}, ref="changed")
    assert [change.object_ref for change in heard.changes] == ["a", "b"]
    assert said({"changed": []}, ref="changed").note == "names no object"


@pytest.mark.parametrize("ref", [None, "", {}, True, [["a"]]])
def test_what_names_no_object_is_refused_by_the_setting_s_name(ref: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        said({"id": ref})
    assert refused.value.field == "config.ref"


def test_an_expression_that_does_not_fit_is_the_delivery_s_fault() -> None:
    with pytest.raises(InvalidInput, match=r"config\.version"):
        said({"id": "a", "n": None}, version="join('-', n)")


def test_a_delivery_is_named_by_a_header_or_a_field() -> None:
    assert said({"id": "a", "event": 17}, delivery_id="event").delivery_id == "17"
    made = connector(delivery_header="X-Delivery")
    assert hear(made, X_Hub_Signature_256=hub(BODY), X_Delivery="d-1").delivery_id == "d-1"


def test_a_delivery_of_too_many_objects_asks_for_a_scan() -> None:
    with pytest.raises(InvalidInput, match="10000"):
        said({"id": [str(number) for number in range(10_001)]})


def test_contents_go_by_their_order_not_by_their_arrival() -> None:
    made = WebhookConnector.create(
        {
            "proof": GITHUB,
            "ref": "id",
            "kind": "what",
            "order": "seq",
            "version": "seq",
            "inline": {"text": "text", "title": "name"},
        },
        "s3cret",
    )
    depot = MemoryDepot()
    made.use_depot(depot)

    def post(seq: int, what: str, text: str | None = None) -> None:
        body = json.dumps({"id": "a", "seq": seq, "what": what, "text": text, "name": "The page"}).encode()
        depot.put(hear(made, body, X_Hub_Signature_256=hub(body)).contents)

    post(1, "created", "first")
    post(3, "updated", "third")
    post(2, "updated", "second")
    assert [(one.title, one.text) for one in made.extract("a").documents] == [("The page", "third")]
    post(5, "deleted")
    post(4, "updated", "fourth")
    assert made.version("a") is None
    with pytest.raises(ObjectGone):
        made.extract("a")
    with pytest.raises(InvalidInput, match=r"config\.inline\.text"):
        post(6, "updated", None)


# --- configuration


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"ref": "id["}, "config.ref"),
        ({"proof": {"kind": "hmac"}}, "config.proof"),
        ({"proof": {"kind": "hmac", "header": "X", "template": "{timestamp}"}}, "config.proof"),
        ({"proof": {"kind": "magic"}}, "config.proof.kind"),
        ({"proof": {"kind": "header", "header": "X\r\nY"}}, "config.proof.header"),
        ({"read": {"url": "file:///etc/{ref}"}}, "config.read.url"),
        ({"read": {"url": "https://cms.example/all"}}, "config"),
        ({"inline": INLINE}, "config"),
        ({"kinds": {"x": "exploded"}}, "config.kinds.x"),
        ({"list": {"url": "https://cms.example/pages"}}, "config.list.ref"),
        ({"reff": "id"}, "config.reff"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        connector(**config)
    assert refused.value.field == field
    assert "value error" not in str(refused.value)  # pydantic's own words


def test_a_page_that_is_saved_twice_is_not_stale_for_half_a_minute() -> None:
    """The dedup window is how long a second change may wait; a CMS has no quota that asks for more than a few seconds."""
    assert connector().recommended.window_ms <= 5_000


# --- reading


def test_a_reference_stays_in_its_place_of_the_url() -> None:
    with ProviderServer() as server:
        server.on("GET", "/pages/(.*)", lambda asked: Answer(200, asked.args[0].encode(), {"Content-Type": "text/plain"}))
        by_ref = connector(read={"url": server.url + "/pages/{ref}"})
        by_path = connector(read={"url": server.url + "/pages/{path}"})
        for ref in ("a b", "a/b", "../x", "?x=1#y", "@evil.example/", "%2e%2e", "ü"):
            assert by_ref.extract(ref).documents[0].text == ref
        assert by_path.extract("a/b c").documents[0].text == "a/b c"
        for ref in ("../x", "a/../../x", "a//b", "./a", "", "..", "\udcff"):
            with pytest.raises(ObjectGone):
                by_path.extract(ref)
        by_ref.close()
        by_path.close()


def test_a_reference_that_is_a_url_leads_to_public_addresses_only() -> None:
    made = connector(read={"url": "{ref}"})
    for inside in (
        "http://127.0.0.1:1/",
        "http://localhost/",
        "http://[::1]/",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
    ):
        with pytest.raises(SourceUnavailable, match="not a public address"):
            made.extract(inside)
    with pytest.raises(ObjectGone):
        made.extract("ftp://cms.example/a")


def test_json_is_read_by_expressions_and_weak_etags_are_not_believed() -> None:
    page: dict[str, Any] = {"rev": 3, "name": "Title", "body": "Some text"}
    with ProviderServer() as server:
        server.on("GET", "/p/1", lambda _asked: Answer(200, page, {"ETag": 'W/"1"'}))
        read = {"url": server.url + "/p/{ref}", "text": "body", "title": "name"}
        hashed, versioned = connector(read=read), connector(read={**read, "version": "rev"})
        assert versioned.version("1") == "3"
        assert versioned.extract("1").documents[0].title == "Title"
        first = hashed.version("1")
        assert first == hashed.extract("1").version
        page["body"] = "Other text"
        assert hashed.version("1") not in (first, 'W/"1"')
        assert [asked.method for asked in server.asked].count("HEAD") > 0
        hashed.close()
        versioned.close()


def test_what_a_provider_says_of_waiting_and_of_quota_is_understood() -> None:
    with ProviderServer() as server:
        server.on("GET", "/p/1", lambda _asked: Answer(200, b"text", {"RateLimit-Remaining": "3", "RateLimit-Reset": "10"}))
        made = connector(read={"url": server.url + "/p/{ref}", "version_header": None})
        made.extract("1")
        assert made.take_cost() == 1
        assert (left := made.quota_left()) is not None
        assert (left.units, left.left_ms) == (3, 10_000)
        server.refuse(Answer(429, b"", {"Retry-After": "7"}))
        with pytest.raises(Throttled) as wait:
            made.extract("1")
        assert wait.value.retry_after_ms == 7_000
        made.close()


def test_a_listing_that_breaks_off_is_no_short_listing() -> None:
    with ProviderServer() as server:
        server.on("GET", "/list", lambda _asked: Answer(200, {"items": [{"id": "a"}], "next": "/list2"}))
        made = connector(
            read={"url": server.url + "/{ref}"},
            list={"url": server.url + "/list", "items": "items", "ref": "id", "next": "next"},
        )
        listing = made.changes(None)
        assert next(listing) == Change("a")
        with pytest.raises(SourceUnavailable):  # the second page is 404: of the listing, not of an object
            next(listing)
        made.close()


# --- CloudEvents


def clouds(**config: Any) -> CloudEventsConnector:
    return CloudEventsConnector.create({"proof": {"kind": "bearer"}, "inline": INLINE, **config}, "s3cret")


def event(**attributes: Any) -> CloudEvent:
    given = {"id": "1", "source": "/cms", "type": "page.updated", "specversion": "1.0", "subject": "wiki/ü 7", **attributes}
    return CloudEvent(given, {"text": "hello"})


@pytest.mark.parametrize("mode", [ce_http.to_binary_event, ce_http.to_structured_event])
def test_events_as_the_sdk_writes_them(mode: Any) -> None:
    message = mode(event())
    heard = hear(clouds(inline={"text": "data.text"}), message.body, Authorization="Bearer s3cret", **message.headers)
    assert heard.changes == [Change("wiki/ü 7")]
    assert heard.contents[0].body == b"hello"
    assert heard.delivery_id == "/cms 1"


def test_a_batch() -> None:
    batch = [
        {"specversion": "1.0", "id": str(at), "source": "/cms", "type": "t", "subject": f"p{at}", "text": "x"}
        for at in range(3)
    ]
    headers: dict[str, Any] = {"Content_Type": "application/cloudevents-batch+json", "Authorization": "Bearer s3cret"}
    assert [change.object_ref for change in hear(clouds(), json.dumps(batch).encode(), **headers).changes] == ["p0", "p1", "p2"]
    assert hear(clouds(), b"[]", **headers).changes == []
    del batch[1]["source"]
    with pytest.raises(InvalidInput) as refused:
        hear(clouds(), json.dumps(batch).encode(), **headers)
    assert refused.value.field == "body[1].source"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "application/json"),
        (b"[]", "application/cloudevents+json"),
        (b"{}", "application/cloudevents-batch+json"),
        (b"7", "application/cloudevents+json"),
    ],
)
def test_what_is_no_cloudevent_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(InvalidInput):
        hear(clouds(), body, Authorization="Bearer s3cret", Content_Type=content_type)


def test_a_sender_asks_first_whether_it_may_deliver() -> None:
    made = clouds(allowed_origins=["events.example"], allowed_rate=120)
    reply = hear(made, b"", "OPTIONS", WebHook_Request_Origin="events.example", WebHook_Request_Rate="1000").reply
    assert reply is not None
    assert reply.headers == {"Allow": "POST", "WebHook-Allowed-Origin": "events.example", "WebHook-Allowed-Rate": "120"}
    with pytest.raises(Unverified):
        hear(made, b"", "OPTIONS", WebHook_Request_Origin="evil.example")
    with pytest.raises(InvalidInput):
        hear(made, b"", "OPTIONS")
