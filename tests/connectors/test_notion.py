"""The connector `notion` on the simulated Notion: the suite, then listings, contents, versions and refusals."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from tests.connectors.notion_source import Workspace, connect

from sourcebus.connectors import Costly, Hears, Metered, Subscribes, create
from sourcebus.connectors.notion import NotionConnector
from sourcebus.connectors.notion.connector import BURST, CONCURRENCY, RATE_PER_S
from sourcebus.connectors.notion.reader import MAX_SUBTREES
from sourcebus.errors import (
    ConnectorError,
    CursorExpired,
    InvalidInput,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
    Throttled,
)
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.notion import NotionFacts, NotionSimulator, refusal
from sourcebus.testing.providers.server import Answer

NOWHERE = "00000000-0000-4000-8000-000000000000"


class TestWorkspace(ConnectorSuite):
    @pytest.fixture
    def source(self, notion: NotionSimulator) -> SourceUnderTest:
        return Workspace(notion)


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


def text(connector: NotionConnector, ref: str) -> str:
    return connector.extract(ref).documents[0].text


def test_it_hears_and_counts_but_cannot_subscribe(connector: NotionConnector) -> None:
    """Webhooks are entered by hand, at Notion."""
    for protocol in (Hears, Metered, Costly):
        assert isinstance(connector, protocol)
    assert not isinstance(connector, Subscribes)


# listings


def test_a_pass_may_be_cut_after_any_page(notion: NotionSimulator, connector: NotionConnector) -> None:
    """Whatever cursor it is taken up from, nothing is missing, and the last says that it was everything."""
    sources = [notion.data_source() for _ in range(2)]
    refs = {notion.write(f"{number}", "text", data_source=sources[number % 2]).id for number in range(5)}
    notion.page_size = 2
    told = list(connector.changes(None))
    cuts = [at for at, item in enumerate(told) if isinstance(item, Cursor)]
    assert len(cuts) > 5
    for cut in cuts[:-1]:
        item = told[cut]
        assert isinstance(item, Cursor)
        assert not item.complete
        rest = listing(connector, item.value)
        assert {item.object_ref for item in told[:cut] if isinstance(item, Change)} | set(rest.found) == refs
        assert rest.complete


def test_a_delta_ends_a_quarter_of_an_hour_before_the_last_one_began(
    notion: NotionSimulator, connector: NotionConnector
) -> None:
    """So much may search lag behind; what it gives again is known by its fingerprint."""
    ages = {"old": timedelta(hours=2), "late": timedelta(minutes=20), "new": timedelta(minutes=10)}
    refs: dict[str, str] = {}
    for name, notion.age in ages.items():
        refs[name] = notion.write(name, "text").id
    first = listing(connector)
    assert set(first.found) == set(refs.values())
    assert first.complete
    later = listing(connector, first.cursor)
    assert set(later.found) == {refs["late"], refs["new"]}
    assert not later.complete
    assert all(change.fingerprint == connector.extract(ref).fingerprint for ref, change in later.found.items())


def test_search_that_lags_is_waited_for(notion: NotionSimulator, connector: NotionConnector) -> None:
    """A page that turns up late is in the next pass, although others were edited after it."""
    notion.age, notion.indexing = timedelta(minutes=5), False
    late = notion.write("late", "text").id
    notion.age, notion.indexing = timedelta(0), True
    first = notion.write("first", "text").id
    before = listing(connector)
    assert set(before.found) == {first}
    notion.index()
    assert late in listing(connector, before.cursor).found


def test_rows_that_search_does_not_know_are_listed(notion: NotionSimulator, connector: NotionConnector) -> None:
    notion.indexing, notion.page_size = False, 2
    source = notion.data_source()
    rows = {notion.write(f"{number}", "text", data_source=source).id for number in range(5)}
    assert set(listing(connector).found) == rows


def test_an_incomplete_search_is_not_complete(notion: NotionSimulator, connector: NotionConnector) -> None:
    """What it left out is not gone."""
    notion.write("page", "text")
    notion.incomplete = True
    assert not listing(connector).complete


def test_the_trash_is_a_delete_and_its_way_out_none(notion: NotionSimulator, connector: NotionConnector) -> None:
    ref = notion.write("page", "text").id
    cursor = listing(connector).cursor
    notion.trash(ref)
    assert listing(connector, cursor).deleted == {ref}
    assert connector.version(ref) is None
    notion.trash(ref, in_trash=False)
    assert ref in listing(connector, cursor).found
    assert text(connector, ref) == "text"


def test_without_the_trash_filter_only_complete_passes_tell(notion: NotionSimulator, connector: NotionConnector) -> None:
    ref = notion.write("page", "text").id
    cursor = listing(connector).cursor
    notion.trash(ref)
    notion.knows_trash_filter = False
    later = listing(connector, cursor)
    assert (later.found, later.deleted, later.complete) == ({}, set(), False)
    assert listing(connector).complete


def test_a_page_that_is_not_shared_any_more_is_gone(notion: NotionSimulator, connector: NotionConnector) -> None:
    """Notion answers 404, and who may not see it shall not find it."""
    ref = notion.write("page", "text").id
    notion.share(ref, shared=False)
    assert connector.version(ref) is None
    with pytest.raises(ObjectGone):
        connector.extract(ref)
    assert listing(connector).found == {}
    notion.share(ref, shared=True)
    assert connector.version(ref) is not None


@pytest.mark.parametrize(
    "cursor", ["", "{}", "[1]", '{"since": 3}', '{"since": null, "todo": ["x/../y"]}', '{"since": "", "phase": "x"}', "\udcff"]
)
def test_a_cursor_that_cannot_be_read_is_an_expired_one(connector: NotionConnector, cursor: str) -> None:
    with pytest.raises(CursorExpired):
        list(connector.changes(cursor))


def test_a_cursor_that_notion_has_forgotten_is_an_expired_one(connector: NotionConnector) -> None:
    with pytest.raises(CursorExpired):
        list(connector.changes('{"since": null, "page": "forgotten"}'))


@pytest.mark.parametrize("body", [b"<html>a proxy's page", [], {}], ids=repr)
def test_an_answer_that_is_no_list_is_no_empty_source(notion: NotionSimulator, connector: NotionConnector, body: Any) -> None:
    notion.refuse(Answer(200, body), path=".*/search")
    with pytest.raises(ConnectorError):
        listing(connector)


def test_the_rows_of_one_data_source_are_a_scope(notion: NotionSimulator, connector: NotionConnector) -> None:
    source = notion.data_source()
    rows = {notion.write(f"{number}", "text", data_source=source).id for number in range(5)}
    notion.write("elsewhere", "text")
    notion.page_size = 2
    assert set(listing(connector, None, f"data_source:{source}").found) == rows
    assert list(connector.changes(None, f"data_source:{NOWHERE}")) == [Cursor(None)]
    for scope in ("data_source:../../x", "elsewhere"):
        with pytest.raises(InvalidInput):
            list(connector.changes(None, scope))


# contents


def test_properties_are_part_of_the_text(notion: NotionSimulator, connector: NotionConnector) -> None:
    properties: dict[str, Any] = {
        "Status": {"type": "status", "status": {"name": "Done"}},
        "Kind": {"type": "select", "select": None},
        "Tags": {"type": "multi_select", "multi_select": [{"name": "bird"}, {"name": "water"}]},
        "Seen": {"type": "date", "date": {"start": "2026-05-01", "end": "2026-05-03"}},
        "Note": {"type": "rich_text", "rich_text": [{"plain_text": "grey "}, {"plain_text": "heron"}]},
        "Count": {"type": "number", "number": 0},
        "Sum": {"type": "formula", "formula": {"type": "string", "string": "0 herons"}},
        "Key": {"type": "unique_id", "unique_id": {"prefix": "BIRD", "number": 7}},
        "By": {"type": "people", "people": [{"object": "user", "id": "x", "name": "Ada"}, {"object": "user", "id": "y"}]},
        "Edited": {"type": "last_edited_time", "last_edited_time": "2026-05-01T10:00:00.000Z"},
        "Odd": {"type": "relation", "relation": [{"id": "x"}]},
        "Broken": "no object",
    }
    document = connector.extract(notion.write("Heron", "# Content", properties=properties).id).documents[0]
    assert document.title == "Heron"
    assert document.text == (
        "Status: Done\nTags: bird, water\nSeen: 2026-05-01 – 2026-05-03\nNote: grey heron\nCount: 0\nSum: 0 herons\n"
        "Key: BIRD-7\nBy: Ada\n\n# Content"
    )
    assert document.metadata["url"].startswith("https://www.notion.so/")


def test_a_long_page_is_read_subtree_by_subtree(notion: NotionSimulator, connector: NotionConnector) -> None:
    ref = notion.write("long", *[f"part {number}" for number in range(4)]).id
    read = connector.extract(ref).documents[0]
    assert read.text == "part 0\n\npart 1\n\npart 2\n\npart 3"
    assert "truncated" not in read.metadata
    assert connector.take_cost() == 1 + 4


def test_a_page_without_end_is_read_to_a_bound(notion: NotionSimulator, connector: NotionConnector) -> None:
    ref = notion.write("endless", *[f"part {number}" for number in range(MAX_SUBTREES + 10)]).id
    read = connector.extract(ref).documents[0]
    assert read.metadata["truncated"] is True
    assert f"part {MAX_SUBTREES}" in read.text
    assert connector.take_cost() == 1 + 1 + MAX_SUBTREES


def test_a_subtree_that_is_closed_to_us_is_left_out(notion: NotionSimulator, connector: NotionConnector) -> None:
    page = notion.write("page", "part 0", "part 1", "part 2")
    notion.refuse(refusal(404, "object_not_found", "no"), path=f".*/{page.subtrees[0]}/markdown")
    read = connector.extract(page.id).documents[0]
    assert (read.text, read.metadata["truncated"]) == ("part 0\n\npart 2", True)


def test_a_page_that_is_too_large_is_unreadable(notion: NotionSimulator) -> None:
    secret, settings = notion.tokens[0], {"notion_url": notion.notion_url, "max_bytes": 10}
    ref = notion.write("page", "x" * 6, "x" * 6).id
    with closing(create("notion", settings, secret)) as connector:
        with pytest.raises(ObjectUnreadable) as error:
            connector.extract(ref)
        with pytest.raises(ObjectUnreadable) as again:
            connector.version(ref)
    assert error.value.reason == "too_large"
    assert error.value.version == again.value.version is not None


def test_content_that_is_missing_is_no_delete(notion: NotionSimulator, connector: NotionConnector) -> None:
    """Notion has just said that the page is there."""
    ref = notion.write("page", "text").id
    notion.refuse(refusal(404, "object_not_found", "no"), path=".*/markdown")
    with pytest.raises(ConnectorError) as error:
        connector.version(ref)
    assert type(error.value) is ConnectorError
    notion.refuse(Answer(200, {"object": "page_markdown"}), path=".*/markdown")
    with pytest.raises(SourceUnavailable):
        connector.version(ref)


# versions


def test_edits_within_one_minute_have_versions_of_their_own(notion: NotionSimulator, connector: NotionConnector) -> None:
    """Notion gives them one time, so until that minute is over it proves nothing."""
    ref = notion.write("page", "one").id
    seen: set[tuple[str | None, str | None]] = set()
    for content in ("two", "three", "four"):
        notion.write("page", content, page_id=ref)
        seen.add((connector.fingerprint(ref), connector.version(ref)))
    assert len({version for _fingerprint, version in seen}) == 3
    assert {fingerprint for fingerprint, _version in seen} == {None}
    assert listing(connector).found[ref].fingerprint is None


def test_once_the_minute_is_over_a_listing_proves_it_unchanged(notion: NotionSimulator, connector: NotionConnector) -> None:
    notion.age = timedelta(minutes=3)
    ref = notion.write("page", "text").id
    read = connector.extract(ref)
    assert read.fingerprint == listing(connector).found[ref].fingerprint is not None
    notion.age = timedelta(minutes=2)
    notion.write("page", "other text", page_id=ref)
    assert connector.fingerprint(ref) not in (None, read.fingerprint)


def test_addresses_that_are_signed_anew_are_no_new_version(notion: NotionSimulator, connector: NotionConnector) -> None:
    ref = notion.write("page", "See https://example.com/a?b=c too.", picture=True).id
    before = connector.version(ref)
    connector.fingerprint(ref)
    assert connector.version(ref) == before
    assert text(connector, ref) == "See https://example.com/a?b=c too.\n![heron](https://files.example.com/heron.png)"


def test_a_new_title_or_property_is_a_new_version(notion: NotionSimulator, connector: NotionConnector) -> None:
    ref = notion.write("old", "text").id
    versions = [connector.version(ref)]
    notion.write("nëw", "text", page_id=ref)
    versions.append(connector.version(ref))
    notion.write("nëw", "text", page_id=ref, properties={"Done": {"type": "checkbox", "checkbox": True}})
    versions.append(connector.version(ref))
    assert len(set(versions)) == 3
    assert connector.extract(ref).documents[0].title == "nëw"


def test_what_a_look_costs(notion: NotionSimulator, connector: NotionConnector) -> None:
    """One request for the state, one for the content, however often it is asked within the look."""
    ref = notion.write("page", "text").id
    connector.take_cost()
    connector.fingerprint(ref)
    connector.version(ref)
    connector.extract(ref)
    assert connector.take_cost() == 2


# refusals


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (refusal(429, "rate_limited", "slower", rate_limit_reason="workspace"), Throttled),
        (refusal(529, "service_overload", "slower"), Throttled),
        (Answer(429, b"slower"), Throttled),
        (Answer(503, b"", {"Retry-After": "3"}), Throttled),
        (refusal(503, "service_unavailable", "sorry"), SourceUnavailable),
        (refusal(504, "gateway_timeout", "sorry"), SourceUnavailable),
        (refusal(409, "conflict_error", "again"), ConnectorError),
        (refusal(400, "validation_error", "what?"), ConnectorError),
        (refusal(403, "restricted_resource", "no"), ObjectUnreadable),
        (Answer(200, {"object": "user"}), SourceUnavailable),
        (Answer(200, {"object": "page", "id": "no id"}), SourceUnavailable),
        (Answer(400, ["no object"]), ConnectorError),
    ],
    ids=lambda value: str(getattr(value, "body", value))[:70],
)
def test_what_a_refusal_means(
    notion: NotionSimulator, connector: NotionConnector, answer: Answer, meaning: type[Exception]
) -> None:
    notion.refuse(answer)
    with pytest.raises(ConnectorError) as refused:
        connector.version(NOWHERE)
    assert type(refused.value) is meaning


def test_why_it_is_throttled_is_told(notion: NotionSimulator, connector: NotionConnector) -> None:
    told = refusal(429, "rate_limited", "slower", rate_limit_reason="workspace_request_limit")
    notion.refuse(Answer(told.status, told.body, {"Retry-After": "17"}))
    with pytest.raises(Throttled, match="workspace_request_limit") as throttled:
        connector.version(NOWHERE)
    assert throttled.value.retry_after_ms == 17_000


def test_a_page_that_is_closed_to_us_is_unreadable(notion: NotionSimulator, connector: NotionConnector) -> None:
    ref = notion.write("page", "text", forbidden=True).id
    with pytest.raises(ObjectUnreadable) as error:
        connector.version(ref)
    assert (error.value.reason, error.value.version) == ("forbidden", "forbidden")


def test_a_token_that_is_refused_needs_a_person(notion: NotionSimulator) -> None:
    """Never a delete of everything."""
    ref = notion.write("page", "text").id
    with closing(connect(notion, token="ntn_another")) as connector:
        for ask in (lambda: listing(connector), lambda: connector.version(ref), lambda: connector.extract(ref)):
            with pytest.raises(NeedsAuth) as refused:
                ask()
            assert "ntn_" not in str(refused.value)


def test_either_of_two_living_tokens_is_good(notion: NotionSimulator) -> None:
    good = notion.tokens[0]
    for tokens in (["ntn_old", good], [good, "ntn_old"]):
        with closing(connect(notion, token=tokens)) as connector:
            listing(connector)
            before = len(notion.asked)
            listing(connector)
            assert len(notion.asked) == before + 1, "the one that works is asked first from then on"


def test_an_overdrawn_quota_stops_a_listing_where_it_can_go_on() -> None:
    """By 429 and by 529, each with the rest of the minute to wait."""
    now_s = [0.0]
    with NotionSimulator(facts=NotionFacts(requests=3), clock_s=lambda: now_s[0]) as notion:
        refs = {notion.write(f"{number}", "text").id for number in range(11)}
        notion.page_size = 2
        told: list[Change | Cursor] = []
        with closing(connect(notion)) as connector:
            with pytest.raises(Throttled) as throttled:
                for item in connector.changes(None):
                    told.append(item)
            assert (throttled.value.retry_after_ms or 0) > 59_000
            cut = next(item for item in reversed(told) if isinstance(item, Cursor))
            with pytest.raises(Throttled):
                listing(connector, cut.value)
            now_s[0] += (throttled.value.retry_after_ms or 0) / 1000
            rest = listing(connector, cut.value)
        assert rest.complete
        assert {item.object_ref for item in told if isinstance(item, Change)} | set(rest.found) == refs


# settings


@pytest.mark.parametrize(
    ("config", "secret", "field"),
    [
        ({}, None, "secret"),
        ({}, "", "secret"),
        ({}, '{"verification_token": "s3cret"}', "secret"),
        ({}, '{"token": []}', "secret"),
        ({}, "s3cret\nX-Header: y", "secret"),
        ({"notion_url": "http://notion.example.com"}, "s3cret", "config.notion_url"),
        ({"webhook": "two words"}, "s3cret", "config.webhook"),
        ({"max_bytes": 0}, "s3cret", "config.max_bytes"),
        ({"max_bytes": True}, "s3cret", "config.max_bytes"),
        ({"database": "x"}, "s3cret", "config.database"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(config: dict[str, Any], secret: str | None, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        create("notion", config, secret)
    assert refused.value.field == field
    assert "s3cret" not in str(refused.value)


def test_sources_of_one_token_share_one_quota() -> None:
    secrets = ("ntn_one", '{"token": "ntn_one"}', "ntn_two")
    made = [create("notion", {}, secret) for secret in secrets]
    one, two, other = (connector.recommended.quota for connector in made)
    assert one == two
    assert (one.rate, one.burst, one.concurrency) == (RATE_PER_S, BURST, CONCURRENCY) == (2.5, 30, 3)
    assert one.bucket != other.bucket
    for connector in made:
        assert "ntn_" not in repr(vars(connector)) + str(connector.recommended)
        connector.close()


def test_ids_are_of_one_form(notion: NotionSimulator, connector: NotionConnector) -> None:
    """Two names for one page would be two objects."""
    ref = notion.write("page", "text").id
    for other in (ref.replace("-", ""), ref.upper(), f"{{{ref}}}", f"urn:uuid:{ref}", f"{ref}?x=1"):
        assert connector.version(other) is None
    assert Change(ref, ChangeKind.UPDATED) in [item for item in connector.changes(None) if isinstance(item, Change)]
