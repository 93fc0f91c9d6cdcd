"""The connector feed: the suite, and what is particular to a window on the newest entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from sourcebus.connectors import Connector, Hears, Subscribes
from sourcebus.connectors.feed import FeedConnector, feed
from sourcebus.errors import (
    ConnectorError,
    InvalidInput,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
    Throttled,
)
from sourcebus.model import MAX_REF_BYTES
from sourcebus.testing import ConnectorSuite, SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.feed import FeedSite
from sourcebus.testing.providers.server import Answer, ProviderServer

OUTAGE = Answer(502)


class Blog(SourceUnderTest):
    """A site whose feed says what was deleted, and answers 502 in an outage."""

    window = True

    def __init__(self, site: FeedSite) -> None:
        self.site = site

    def connect(self) -> Connector:
        return feed({"url": self.site.feed_url})

    def write(self, name: str, text: str) -> str:
        return self.site.write(name, text)

    def delete(self, ref: str) -> None:
        self.site.delete(ref)

    def break_off(self) -> None:
        self.site.refuse(OUTAGE, times=100)

    def rename(self, ref: str, name: str) -> str:
        self.site.items[ref] = replace(self.site.items[ref], title=name)
        return ref

    def break_half_way(self) -> None:
        not_applicable("a feed is one document")

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        forms = {"429": Answer(429, headers={"Retry-After": "3"}), "503": Answer(503, headers={"Retry-After": "3"})}
        return {form: lambda answer=answer: self.site.refuse(answer, times=100) for form, answer in forms.items()}

    def revoke(self) -> None:
        self.site.refuse(Answer(401), times=100)

    def forbid(self, ref: str) -> None:
        not_applicable("who may read a feed may read all of it")

    def mend(self) -> None:
        self.site.accept_again()


class TestAtomWithETags(ConnectorSuite):
    @pytest.fixture
    def source(self) -> Iterator[SourceUnderTest]:
        with FeedSite() as site:
            yield Blog(site)


class TestAtomWithTimes(ConnectorSuite):
    """All changes happen within one second of the server's clock: Last-Modified must not be believed then."""

    @pytest.fixture
    def source(self) -> Iterator[SourceUnderTest]:
        with FeedSite(validator="modified") as site:
            yield Blog(site)


@pytest.fixture
def site() -> Iterator[FeedSite]:
    with FeedSite() as site:
        yield site


@pytest.fixture
def connector(site: FeedSite) -> Iterator[FeedConnector]:
    connector = feed({"url": site.feed_url})
    yield connector
    connector.close()


def served(body: bytes, **config: Any) -> tuple[ProviderServer, FeedConnector]:
    provider = ProviderServer()
    provider.on("GET", "/feed", lambda _asked: Answer(200, body))
    return provider, feed({"url": f"{provider.url}/feed", **config})


# the window


def test_what_falls_out_of_the_window_is_not_deleted(connector: FeedConnector, site: FeedSite) -> None:
    site.window = 2
    first = site.write("first", "text")
    cursor, version = listing(connector).cursor, connector.version(first)
    for number in range(3):
        site.write(f"n{number}", "text")
    later = listing(connector, cursor)
    assert (first in later.found, first in later.deleted, later.complete) == (False, False, False)
    assert connector.version(first) == version  # as it was last seen
    assert connector.extract(first).version == version


def test_of_an_entry_that_fell_out_before_anybody_looked_nothing_is_said(site: FeedSite) -> None:
    site.window = 1
    old = site.write("old", "text")
    site.write("new", "text")
    connector = feed({"url": site.feed_url})
    with pytest.raises(ConnectorError, match="not in the feed") as unknown:
        connector.version(old)
    assert type(unknown.value) is ConnectorError  # tried again, then shown; never a delete
    connector.close()


def test_a_feed_that_ended_deletes_nothing(connector: FeedConnector, site: FeedSite) -> None:
    ref = site.write("doc", "text")
    listing(connector)
    site.refuse(Answer(410), times=3)
    for ask in (lambda: listing(connector), lambda: connector.version(ref), lambda: connector.extract(ref)):
        with pytest.raises(SourceUnavailable, match="has ended"):
            ask()


def test_only_a_tombstone_deletes(connector: FeedConnector, site: FeedSite) -> None:
    gone, dropped = site.write("gone", "text"), site.write("dropped", "text")
    cursor = listing(connector).cursor
    site.delete(gone)
    with site.lock:
        del site.items[dropped]  # without a word
    assert listing(connector, cursor).deleted == {gone}
    assert connector.version(gone) is None
    with pytest.raises(ObjectGone):
        connector.extract(gone)
    assert connector.version(dropped) is not None


def test_several_tombstones_and_one_for_an_entry_that_is_back() -> None:
    tombstones = b"".join(b'<t:deleted-entry ref="tag:%d" when="2024-01-01T00:00:00Z"/>' % number for number in range(3))
    body = b'<feed xmlns="http://www.w3.org/2005/Atom" xmlns:t="http://purl.org/atompub/tombstones/1.0"><id>x</id>'
    body += tombstones + b"<entry><id>tag:1</id><title>back</title></entry></feed>"
    provider, connector = served(body)
    with provider:
        assert listing(connector).deleted == {"tag:0", "tag:2"}
        assert connector.version("tag:1") is not None
        connector.close()


# asking


def test_nothing_new_is_asked_conditionally(connector: FeedConnector, site: FeedSite) -> None:
    site.write("doc", "text")
    cursor = listing(connector).cursor
    assert "if-none-match" not in site.asked[0].headers
    again = listing(connector, cursor)
    assert site.asked[1].headers["if-none-match"]
    assert set(again.found) == set(site.items)  # known from before


def test_after_a_restart_the_cursor_asks_conditionally(connector: FeedConnector, site: FeedSite) -> None:
    site.write("doc", "text")
    cursor = listing(connector).cursor
    restarted = feed({"url": site.feed_url})
    unchanged = listing(restarted, cursor)
    assert (unchanged.found, unchanged.cursor) == ({}, cursor)
    assert site.asked[-1].headers["if-none-match"]
    ref = site.write("new", "text")
    assert ref in listing(restarted, cursor).found
    assert len(site.asked) == 3
    with_pages = feed({"url": site.feed_url, "full_text": True})
    assert set(listing(with_pages, cursor).found) == set(site.items)  # another setting: everything anew
    restarted.close()
    with_pages.close()


@pytest.mark.parametrize("cursor", ["", "nonsense", "[]", '{"If-None-Match": 7}', "[" * 10_000, '{"Authorization": "x"}'])
def test_a_cursor_that_is_none_lists_everything(connector: FeedConnector, site: FeedSite, cursor: str) -> None:
    ref = site.write("doc", "text")
    assert set(listing(connector, cursor).found) == {ref}
    assert not {"if-none-match", "authorization"} & set(site.asked[-1].headers)


def test_a_time_is_believed_once_its_second_is_over(site: FeedSite) -> None:
    site.validator = "modified"
    site.write("doc", "one")
    connector = feed({"url": site.feed_url})
    listing(connector)
    listing(connector)
    assert "if-modified-since" not in site.asked[-1].headers  # it may have changed again within that second
    site.age_s = 60
    listing(connector)
    listing(connector)
    assert "if-modified-since" in site.asked[-1].headers
    connector.close()


def test_a_batch_costs_one_request(connector: FeedConnector, site: FeedSite) -> None:
    refs = [site.write(f"doc{number}", f"text {number}") for number in range(20)]
    connector.begin_batch()
    assert all(connector.version(ref) == connector.extract(ref).version for ref in refs)
    assert (connector.take_cost(), len(site.asked)) == (1, 1)
    site.write("doc7", "changed")
    connector.begin_batch()
    assert "changed" in connector.extract(refs[7]).documents[0].text


# reading


RSS = """<?xml version="1.0" encoding="iso-8859-1"?><rss version="2.0"><channel><title>c</title>
<item><guid isPermaLink="false">{guid}</guid><title>Caf\u00e9 &amp;amp; bar</title><link>/a?x=1</link>
<description>&lt;p&gt;Some &lt;b&gt;bold&lt;/b&gt; words&lt;/p&gt;</description><pubDate>Tue, 10 Jun 2003 04:00:00 GMT</pubDate>
<category>food</category></item>
<item><link>https://example.org/no-guid</link><title>linked</title></item>
<item><title>neither</title></item></channel></rss>"""


def test_rss_in_an_old_encoding() -> None:
    provider, connector = served(RSS.format(guid="id-1").encode("latin-1"))
    with provider:
        found = listing(connector).found
        assert "id-1" in found
        assert "https://example.org/no-guid" in found
        assert len([ref for ref in found if ref.startswith("sha256:")]) == 1
        document = connector.extract("id-1").documents[0]
        assert (document.title, document.metadata["tags"]) == ("Caf\u00e9 & bar", "food")
        assert "Some **bold** words" in document.text
        connector.close()


def test_rdf() -> None:
    body = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/">
    <channel rdf:about="https://x/"><title>c</title></channel>
    <item rdf:about="https://x/1"><title>one</title><link>https://x/1</link><description>text</description></item></rdf:RDF>"""
    provider, connector = served(body)
    with provider:
        assert set(listing(connector).found) == {"https://x/1"}
        connector.close()


def test_states_of_one_entry_are_one_object() -> None:
    """RFC 4287, 4.1.1: the newest counts, wherever it stands."""
    entries = b"".join(
        b"<entry><id>same</id><title>state %d</title><updated>2024-01-0%dT00:00:00Z</updated></entry>" % (day, day)
        for day in (2, 3, 1)
    )
    provider, connector = served(b'<feed xmlns="http://www.w3.org/2005/Atom"><id>x</id>' + entries + b"</feed>")
    with provider:
        assert connector.extract("same").documents[0].title == "state 3"
        connector.close()


def test_a_counter_beside_an_entry_is_no_new_version() -> None:
    """Comment counts change all the time, and nobody reads them in a search."""
    versions: set[str | None] = set()
    for count in (1, 2):
        body = RSS.format(guid="id-1").replace("</item>", f"<comments_count>{count}</comments_count></item>", 1)
        provider, connector = served(body.encode("latin-1"))
        with provider:
            versions.add(connector.version("id-1"))
            connector.close()
    assert len(versions) == 1


def test_an_endless_id_is_shortened() -> None:
    provider, connector = served(RSS.format(guid="x" * (MAX_REF_BYTES + 1)).encode("latin-1"))
    with provider:
        (ref,) = [ref for ref in listing(connector).found if ref.startswith("sha256:")][:1]
        assert connector.version(ref) is not None
        connector.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Sign in</body></html>",
        b"/etc/passwd",
        b"http://127.0.0.1:1/feed",
        b"\0\xff\xfe",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><rss version="2.0"><channel><title>&b;</title></channel></rss>',
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss version="2.0"><channel><title>&a;</title></channel></rss>',
        b"<a>" * 50_000,
    ],
)
def test_what_is_no_feed_is_an_outage_and_opens_nothing(body: bytes) -> None:
    """An error page served with 200 must not pass for a feed without entries, nor a body for the name of a file."""
    provider, connector = served(body)
    with provider:
        with pytest.raises(SourceUnavailable):
            listing(connector)
        connector.close()


def test_a_feed_that_is_cut_off_still_gives_what_it_has() -> None:
    whole = RSS.format(guid="id-1").encode("latin-1")
    provider, connector = served(whole[: whole.index(b"<item><link>") + 20])
    with provider:
        assert "id-1" in listing(connector).found
        connector.close()


def test_a_feed_over_the_limit_is_not_read() -> None:
    provider, connector = served(RSS.format(guid="id-1").encode("latin-1"), max_bytes=100)
    with provider:
        with pytest.raises(ConnectorError) as refused:
            listing(connector)
        assert isinstance(refused.value, SourceUnavailable | ObjectUnreadable)
        connector.close()


# the linked page


def test_the_linked_page_is_read_if_wished(site: FeedSite) -> None:
    ref = site.write("doc", "teaser", page="<html><head><title>Doc</title></head><body><p>The whole story.</p></body></html>")
    plain, full = feed({"url": site.feed_url}), feed({"url": site.feed_url, "full_text": True})
    assert plain.extract(ref).documents[0].text == "teaser"
    document = full.extract(ref).documents[0]
    assert "The whole story." in document.text
    assert document.metadata["page"].endswith("/page/doc")
    assert plain.version(ref) != full.version(ref) == full.extract(ref).version
    plain.close()
    full.close()


def test_a_page_that_cannot_be_read_leaves_the_entrys_own_text(site: FeedSite) -> None:
    ref = site.write("doc", "teaser")
    connector = feed({"url": site.feed_url, "full_text": True})
    document = connector.extract(ref).documents[0]
    assert (document.text, "404" in document.metadata["page"]) == ("teaser", True)
    site.refuse(Answer(429, headers={"Retry-After": "5"}), path="/page/.*")
    with pytest.raises(ConnectorError) as later:
        connector.extract(ref)
    assert not isinstance(later.value, Throttled | SourceUnavailable)  # which would hold up the feed itself
    connector.close()


def test_a_link_into_the_network_is_not_followed(site: FeedSite) -> None:
    with ProviderServer() as internal:
        internal.on("GET", "/secret", lambda _asked: Answer(200, b"internal"))
        ref = site.write("doc", "teaser")
        with site.lock:
            item = site.items[ref]
            site.items[ref] = type(item)(item.id, item.title, item.text, f"{internal.url}/secret", item.changed_s)
        connector = feed({"url": site.feed_url, "full_text": True})
        assert connector.extract(ref).documents[0].text == "teaser"
        assert not internal.asked
        connector.close()


# refusals


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (Answer(401), NeedsAuth),
        (Answer(403), NeedsAuth),
        (Answer(404), SourceUnavailable),
        (Answer(500), SourceUnavailable),
        (Answer(429, headers={"Retry-After": "3"}), Throttled),
        (Answer(503, headers={"Retry-After": "3"}), Throttled),
        (Answer(304), SourceUnavailable),  # to a question without a condition
        (Answer(400), SourceUnavailable),
    ],
)
def test_what_the_server_refuses_is_never_about_one_entry(
    connector: FeedConnector, site: FeedSite, answer: Answer, meaning: type[ConnectorError]
) -> None:
    ref = site.write("doc", "text")
    site.refuse(answer, times=3)
    for ask in (lambda: listing(connector), lambda: connector.version(ref), lambda: connector.extract(ref)):
        with pytest.raises(meaning):
            ask()
    assert connector.version(ref)


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (None, None),
        ("only for the hub", None),
        ('{"token": "t0k"}', "Bearer t0k"),
        ('{"user": "u", "password": "p"}', "Basic dTpw"),
    ],
)
def test_credentials(site: FeedSite, secret: str | None, expected: str | None) -> None:
    connector = feed({"url": site.feed_url}, secret)
    listing(connector)
    assert site.asked[-1].headers.get("authorization") == expected
    connector.close()


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("config.url", {}),
        ("config.url", {"url": "file:///etc/passwd"}),
        ("config.url", {"url": "https://"}),
        ("config.url", {"url": "https://u:p@host/feed"}),
        ("config.url", {"url": "https://[::1/feed"}),
        ("config.full_text", {"url": "https://host/feed", "full_text": "yes"}),
        ("config.trusted_hubs", {"url": "https://host/feed", "trusted_hubs": "https://hub"}),
        ("config.trusted_hubs", {"url": "https://host/feed", "trusted_hubs": ["hub"]}),
        ("config.max_bytes", {"url": "https://host/feed", "max_bytes": 0}),
        ("config.urls", {"url": "https://host/feed", "urls": []}),
    ],
)
def test_a_setting_that_is_wrong_is_named(field: str, config: dict[str, Any]) -> None:
    for secret in (None, "websub secret"):
        with pytest.raises(InvalidInput) as refused:
            feed(config, secret)
        assert refused.value.field == field


@pytest.mark.parametrize("secret", ['{"user": "u"}', '{"password": "hidden"}', '{"token": "hid\\nden"}', '{"x": "hidden"}'])
def test_a_secret_that_is_wrong_is_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        feed({"url": "https://host/feed"}, secret)
    assert refused.value.field == "secret"
    assert "hid" not in str(refused.value)


def test_only_a_source_with_a_secret_subscribes() -> None:
    plain, pushed = feed({"url": "https://host/feed"}), feed({"url": "https://host/feed"}, "websub secret")
    assert not isinstance(plain, Hears | Subscribes)
    assert isinstance(pushed, Hears)
    assert isinstance(pushed, Subscribes)
    plain.close()
    pushed.close()
