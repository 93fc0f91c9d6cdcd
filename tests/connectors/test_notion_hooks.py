"""Notion's handshake and events: over real HTTP from the simulator, forged as nobody may, and what each kind asks for."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest
from tests.connectors.notion_source import connect

from sourcebus.connectors.notion import NotionConnector
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import SECRET_HERE, WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, Subscription
from sourcebus.testing.providers.courier import Faults
from sourcebus.testing.providers.notion import NotionSimulator
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)
PAGE, ROW, SOURCE = (f"{digit * 8}-aaaa-4aaa-8aaa-aaaaaaaaaaaa" for digit in "123")
TOKEN = "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"
KNOWN = Subscription("webhook", None, TOKEN, {"confirmed": True})


class Hook(ProviderServer):
    """A receiver that answers with the connector alone, and keeps what it is told to keep, as the gateway does."""

    def __init__(self, connector: NotionConnector) -> None:
        super().__init__()
        self.connector, self.kept = connector, dict[str, Subscription]()
        self.heard: list[Heard] = []
        self.on("POST", "/hooks/notes", self._hear)

    def _hear(self, asked: Asked) -> Answer:
        try:
            heard = self.connector.parse_webhook(Delivery("POST", asked.headers, asked.body, 0), list(self.kept.values()))
        except Unverified as error:
            return Answer(401, {"title": str(error)})
        if heard.keep is not None:
            self.kept[heard.keep.id] = heard.keep
        self.heard.append(heard)
        return Answer(202) if heard.reply is None else Answer(heard.reply.status, heard.reply.body)

    @property
    def address(self) -> str:
        return f"{self.url}/hooks/notes"


@pytest.fixture(scope="module")
def shared() -> Generator[NotionSimulator]:
    with NotionSimulator(enforce=False, pace=100_000) as simulated:
        yield simulated


@pytest.fixture
def notion(shared: NotionSimulator) -> NotionSimulator:
    shared.clear()
    return shared


@pytest.fixture
def connector(notion: NotionSimulator) -> Generator[NotionConnector]:
    with closing(connect(notion)) as made:
        yield made


@pytest.fixture
def hook(connector: NotionConnector) -> Generator[Hook]:
    with Hook(connector) as receiver:
        yield receiver


def delivery(body: bytes | dict[str, Any], token: str | None = TOKEN, **headers: str) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery("POST", {**{k.lower(): v for k, v in NotionSimulator.headers(raw, token).items()}, **headers}, raw, 0)


def event(notion: NotionSimulator, kind: str, entity: str = PAGE, **more: Any) -> dict[str, Any]:
    return notion.event(kind, entity, **more)


# the handshake


def test_from_the_handshake_to_an_event(notion: NotionSimulator, hook: Hook) -> None:
    """The token is shown, for a person to paste it at Notion, until the first event that is signed with it."""
    assert notion.subscribe(hook.address).status_code == 200
    (kept,) = hook.kept.values()
    assert notion.hook
    assert kept.secret == (token := notion.hook[1])
    assert kept.state["to_do"] == f"paste this verification token at Notion: {SECRET_HERE}"
    assert token not in hook.heard[0].note
    page = notion.write("page", "text")
    notion.courier.settle()
    assert list(hook.heard[-1].changes) == [Change(page.id, ChangeKind.CREATED)]
    (confirmed,) = hook.kept.values()
    assert (confirmed.id, confirmed.secret) == (kept.id, kept.secret)
    assert token not in repr(confirmed.state)
    notion.trash(page.id)
    notion.courier.settle()
    assert list(hook.heard[-1].changes) == [Change(page.id, ChangeKind.DELETED)]
    assert hook.heard[-1].keep is None


def test_a_handshake_may_be_signed_with_the_token_that_it_brings(notion: NotionSimulator, hook: Hook) -> None:
    """As Notion's documentation shows it."""
    assert notion.subscribe(hook.address, signed=True).status_code == 200
    assert hook.kept


def test_a_second_handshake_is_refused(notion: NotionSimulator, hook: Hook) -> None:
    """Whoever could replace the token could speak for Notion. Not the same one again, which a person may ask Notion for."""
    notion.subscribe(hook.address)
    before = dict(hook.kept)
    assert notion.subscribe(hook.address).status_code == 401
    assert notion.subscribe(hook.address, signed=True).status_code == 401
    assert hook.kept == before
    (kept,) = before.values()
    again = json.dumps({"verification_token": kept.secret}).encode()
    for token in (None, kept.secret):
        heard = hook.connector.parse_webhook(delivery(again, token), [kept])
        assert heard.keep is None
        assert heard.reply is not None


def test_another_name_takes_another_handshake(notion: NotionSimulator, hook: Hook) -> None:
    """How a token is replaced: the old one is good until the first event that is signed with the new one."""
    notion.subscribe(hook.address)
    notion.write("page", "text")
    notion.courier.settle()
    (old,) = hook.kept.values()
    renamed = NotionConnector.create({"notion_url": notion.notion_url, "webhook": "second"}, notion.tokens[0])
    with closing(renamed) as hook.connector:
        assert notion.subscribe(hook.address).status_code == 200
        assert notion.subscribe(hook.address).status_code == 401
        living = list(hook.kept.values())
        assert [one.id for one in living] == ["webhook", "second"]
        by_old = renamed.parse_webhook(delivery(event(notion, "page.moved"), old.secret), living)
        assert (len(by_old.changes), by_old.keep, list(by_old.lost)) == (1, None, [])
        by_new = renamed.parse_webhook(delivery(event(notion, "page.moved"), living[1].secret), living)
        assert (len(by_new.changes), list(by_new.lost)) == (1, ["webhook"])
        assert by_new.keep is not None
        assert by_new.keep.id == "second"


def test_a_token_in_the_secret_shuts_the_door(notion: NotionSimulator) -> None:
    """Then no handshake is ever taken, and either of two living tokens proves an event."""
    with closing(connect(notion, verification_token=["new-token-new-token", TOKEN])) as connector:
        with pytest.raises(Unverified):
            connector.parse_webhook(delivery({"verification_token": "another-token-another"}, None), [])
        for token in ("new-token-new-token", TOKEN):
            heard = connector.parse_webhook(delivery(event(notion, "page.created"), token), [])
            assert list(heard.changes) == [Change(PAGE, ChangeKind.CREATED)]
            assert heard.keep is None


@pytest.mark.parametrize(
    "body",
    [
        {"verification_token": "short"},
        {"verification_token": "x" * 513},
        {"verification_token": "secret_with\nnewline_in_it"},
        {"verification_token": ["secret_tMrlL1qK5vuQAh1b"]},
        {"verification_token": TOKEN, "type": "page.created"},
        {"token": TOKEN},
        {},
    ],
    ids=lambda body: str(body)[:60],
)
def test_what_is_no_handshake_brings_no_token(connector: NotionConnector, body: dict[str, Any]) -> None:
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery(body, None), [])


def test_a_handshake_with_a_wrong_signature_is_refused(connector: NotionConnector) -> None:
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery({"verification_token": TOKEN}, "another"), [])


# proofs


def test_the_published_vector(connector: NotionConnector) -> None:
    """Notion's documentation: the signature of the handshake's own body."""
    body = b'{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}'
    signature = "sha256=461e8cbcba8a75c3edd866f0e71280f5a85cbf21eff040ebd10fe266df38a735"
    assert connector.parse_webhook(Delivery("POST", {"x-notion-signature": signature}, body, 0), [KNOWN]).keep is None
    kept = connector.parse_webhook(Delivery("POST", {"x-notion-signature": signature}, body, 0), []).keep
    assert kept is not None
    assert kept.secret == TOKEN


def test_a_wrong_signature_proves_nothing(notion: NotionSimulator, connector: NotionConnector) -> None:
    good = delivery(event(notion, "page.created"))
    right = good.headers["x-notion-signature"]
    altered = right[:-1] + ("0" if right[-1] != "0" else "1")
    bare, other = right.removeprefix("sha256="), right.replace("sha256", "sha1")
    for signature in ("", bare, altered, other, "sha256=" + "\udcff" * 64, f"{right}, {right}"):
        forged = Delivery("POST", {"x-notion-signature": signature}, good.body, 0)
        with pytest.raises(Unverified):
            connector.parse_webhook(forged, [KNOWN])
    assert connector.parse_webhook(good, [KNOWN]).changes


def test_the_raw_bytes_are_proven(notion: NotionSimulator, connector: NotionConnector) -> None:
    """The same JSON with other spaces is another body; an upper-case digest is the same digest."""
    good = delivery(event(notion, "page.created"))
    with pytest.raises(Unverified):
        connector.parse_webhook(Delivery("POST", good.headers, good.body + b" ", 0), [KNOWN])
    digest = "sha256=" + hmac.new(TOKEN.encode(), good.body, hashlib.sha256).hexdigest().upper()
    assert connector.parse_webhook(Delivery("POST", {"x-notion-signature": digest}, good.body, 0), [KNOWN]).changes


def test_an_event_without_a_signature_proves_nothing(notion: NotionSimulator, connector: NotionConnector) -> None:
    for living in ([], [KNOWN]):
        with pytest.raises(Unverified):
            connector.parse_webhook(delivery(event(notion, "page.created"), None), living)
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery(event(notion, "page.created")), [])


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{", b"\xff", b"null", b"[" * 100_000, b'{"type": 7}', b"{}", b'{"type": "page.created"}'),
        b'{"type": "page.created", "entity": {"id": "../x"}}',
        b'{"type": "page.created", "entity": []}',
    ],
    ids=lambda body: repr(body[:50]),
)
def test_a_proven_body_that_makes_no_sense_is_named(connector: NotionConnector, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        connector.parse_webhook(delivery(body), [KNOWN])
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery(body, "another"), [KNOWN])
    with pytest.raises(Unverified):
        connector.parse_webhook(delivery(body, None), [])


# what events say


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("page.created", [Change(PAGE, ChangeKind.CREATED)]),
        ("page.content_updated", [Change(PAGE)]),
        ("page.properties_updated", [Change(PAGE)]),
        ("page.moved", [Change(PAGE)]),
        ("page.deleted", [Change(PAGE, ChangeKind.DELETED)]),
        ("page.undeleted", [Change(PAGE, ChangeKind.CREATED)]),
        ("page.locked", [Change(PAGE)]),
        ("page.unlocked", [Change(PAGE)]),
        ("page.transcription_block.transcript_deleted", [Change(PAGE)]),
        ("page.something_new", [Change(PAGE)]),
        ("data_source.created", [Change(f"data_source:{PAGE}", ChangeKind.SCAN)]),
        ("data_source.schema_updated", [Change(f"data_source:{PAGE}", ChangeKind.SCAN)]),
        ("data_source.content_updated", [Change(f"data_source:{PAGE}", ChangeKind.SCAN)]),
        ("data_source.moved", [Change(f"data_source:{PAGE}", ChangeKind.SCAN)]),
        ("database.created", [SCAN]),
        ("database.deleted", [SCAN]),
        ("database.content_updated", [SCAN]),
        ("comment.created", []),
        ("view.updated", []),
        ("file_upload.completed", []),
        ("meeting.held", [SCAN]),
    ],
)
def test_what_an_event_asks_for(notion: NotionSimulator, connector: NotionConnector, kind: str, changes: list[Change]) -> None:
    told = event(notion, kind)
    heard = connector.parse_webhook(delivery(told), [KNOWN])
    assert list(heard.changes) == changes
    assert heard.delivery_id == told["id"]
    assert bool(heard.note) is (not changes or kind == "meeting.held")


def test_rows_that_are_named_are_looked_at(notion: NotionSimulator, connector: NotionConnector) -> None:
    """And nothing else is listed, unless some of what changed is no row."""
    rows = [{"id": ROW, "type": "page"}, {"id": PAGE.replace("-", ""), "type": "page"}]
    for kind in ("data_source.content_updated", "database.content_updated"):
        heard = connector.parse_webhook(delivery(event(notion, kind, SOURCE, updated_blocks=rows)), [KNOWN])
        assert list(heard.changes) == [Change(ROW), Change(PAGE)]
    for block in ({"id": ROW, "type": "block"}, {"id": "x", "type": "page"}, "no object"):
        told = event(notion, "data_source.content_updated", SOURCE, updated_blocks=[*rows, block])
        heard = connector.parse_webhook(delivery(told), [KNOWN])
        assert list(heard.changes) == [Change(f"data_source:{SOURCE}", ChangeKind.SCAN)]
    many = event(notion, "data_source.content_updated", SOURCE, updated_blocks=rows * 5_000)
    assert [change.change_kind for change in connector.parse_webhook(delivery(many), [KNOWN]).changes] == [ChangeKind.SCAN]


def test_an_event_that_comes_again_has_the_same_name(notion: NotionSimulator, connector: NotionConnector) -> None:
    told = event(notion, "page.content_updated")
    first = connector.parse_webhook(delivery(told), [KNOWN])
    again = connector.parse_webhook(delivery(told | {"attempt_number": 3}), [KNOWN])
    assert first.delivery_id == again.delivery_id == told["id"]
    assert (first.note, again.note) == ("", "attempt 3")
    nameless = {name: value for name, value in told.items() if name != "id"}
    assert connector.parse_webhook(delivery(nameless), [KNOWN]).delivery_id is None


def test_events_out_of_order_and_twice_do_no_harm() -> None:
    """Each only says: go and look."""
    faults = Faults(seed=7, duplicate=0.5, delay_ms=(0, 20))
    with (
        NotionSimulator(enforce=False, faults=faults) as notion,
        closing(connect(notion)) as connector,
        Hook(connector) as hook,
    ):
        notion.subscribe(hook.address)
        page = notion.write("page", "text 0")
        for number in range(1, 20):
            notion.write("page", f"text {number}", page_id=page.id)
        notion.courier.settle()
        assert {change.object_ref for heard in hook.heard for change in heard.changes} == {page.id}
        assert len({heard.delivery_id for heard in hook.heard if heard.changes}) == 20
        assert connector.extract(page.id).documents[0].text == "text 19"


def test_a_receiver_that_is_down_is_tried_again(notion: NotionSimulator, hook: Hook) -> None:
    notion.subscribe(hook.address)
    hook.refuse(Answer(503), times=3)
    page = notion.write("page", "text")
    notion.courier.settle()
    assert notion.courier.sent[-1].statuses == [503, 503, 503, 202]
    assert [change.object_ref for change in hook.heard[-1].changes] == [page.id]


def test_the_address_has_to_be_unguessable(connector: NotionConnector) -> None:
    """The first handshake is believed, whoever sends it."""
    assert connector.needs_secret_path
