"""A source that fails: it is down, half-way down, asked too often, closed to us, or has forgotten where we were."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from sourcebus.connectors import Connector
from sourcebus.errors import (
    ConnectorError,
    CursorExpired,
    NeedsAuth,
    ObjectGone,
    ObjectUnreadable,
    SourceUnavailable,
    Throttled,
)
from sourcebus.model import Change, Cursor
from sourcebus.testing.connector_suite.listing import Index, listing
from sourcebus.testing.connector_suite.source import SourceUnderTest

NO_CURSORS = ("garbage", "{}", "[]", "0", "null", "\N{SNOWMAN}", '{"contents": {"head": 7}}')
DOZEN = 12
LONGEST_WAIT_MS = 86_400_000
ATTEMPTS = 4


class FaultTests:
    """Whatever fails, nothing that exists is deleted, and afterwards everything is as before."""

    def test_an_outage_is_not_an_empty_source(self, source: SourceUnderTest, connector: Connector) -> None:
        """An unreachable source that passes for an empty one deletes the whole index."""
        ref = source.write("doc", "text")
        before = connector.version(ref)
        source.break_off()
        try:
            with pytest.raises(ConnectorError):
                listing(connector)
            with pytest.raises(ConnectorError) as version:
                connector.version(ref)
            with pytest.raises(ConnectorError) as extract:
                connector.extract(ref)
            assert not isinstance(version.value, ObjectGone)
            assert not isinstance(extract.value, ObjectGone)
        finally:
            source.mend()
        assert connector.version(ref) == before
        assert ref in listing(connector).found

    def test_an_outage_during_a_listing_deletes_nothing(self, source: SourceUnderTest, connector: Connector) -> None:
        """A listing that was cut off and says that it is complete deletes the rest of the index."""
        refs = {source.write(f"doc{number}", f"text {number}") for number in range(DOZEN)}
        changes = iter(connector.changes(None))
        seen = [next(changes)]
        source.break_off()
        try:
            seen.extend(changes)
        except ConnectorError as error:
            assert not isinstance(error, ObjectGone | ObjectUnreadable)
        finally:
            source.mend()
        if any(isinstance(item, Cursor) and item.complete for item in seen):
            assert {item.object_ref for item in seen if not isinstance(item, Cursor)} == refs
        assert set(_listed_again(connector)) == refs

    def test_a_listing_that_fails_half_way_deletes_nothing(self, source: SourceUnderTest, connector: Connector) -> None:
        """What it did not come to is there all the same, and the next listing finds it."""
        texts = {source.write(f"doc{number}", f"text {number:02}"): f"text {number:02}" for number in range(DOZEN)}
        index = Index(connector)
        index.scan()
        source.break_half_way()
        try:
            with pytest.raises(ConnectorError):
                index.scan(anew=True)
        finally:
            source.mend()
        assert set(index.texts) == set(texts)
        texts[source.write("later", "text of later")] = "text of later"
        index.scan()
        index.scan()
        assert {ref for ref, text in texts.items() if text in index.texts.get(ref, "")} == set(texts) == set(index.texts)

    def test_every_form_of_throttling_is_recognised(self, source: SourceUnderTest, connector: Connector) -> None:
        """One that passes for an error ends in dead letters; one that passes for a refusal calls a person."""
        ref = source.write("doc", "text")
        before = connector.version(ref)
        for form, begin in source.throttles().items():
            begin()
            try:
                for refused in _refusals(connector, ref):
                    assert isinstance(refused, Throttled), f"{form}: {refused!r}"
                    assert refused.retry_after_ms is None or 0 <= refused.retry_after_ms <= LONGEST_WAIT_MS, form
            finally:
                source.mend()
            assert connector.version(ref) == before, form
            assert ref in listing(connector).found, form

    def test_lost_credentials_delete_nothing(self, source: SourceUnderTest, connector: Connector) -> None:
        """Providers answer "not found" to those who may not see: believed, that empties the index."""
        ref = source.write("doc", "text")
        index = Index(connector)
        index.scan()
        before = dict(index.versions)
        source.revoke()
        try:
            for refused in _refusals(connector, ref):
                assert isinstance(refused, NeedsAuth), f"a person has to act: {refused!r}"
        finally:
            source.mend()
        index.scan(anew=True)
        assert index.versions == before

    def test_an_object_that_may_not_be_read_hides_no_other(self, source: SourceUnderTest, connector: Connector) -> None:
        """It may be unreadable or gone, with its text. Everything else goes on, and it is back with the permission."""
        ref, other = source.write("doc", "a text"), source.write("other", "another")
        before = connector.extract(ref).version
        source.forbid(ref)
        try:
            with pytest.raises((ObjectUnreadable, ObjectGone)):
                connector.extract(ref)
            again = source.write("other", "another text")
            index = Index(connector)
            index.scan()
            assert "another text" in index.texts[again]
            assert ref not in index.texts
        finally:
            source.mend()
        assert connector.version(ref) == before
        assert "a text" in connector.extract(ref).documents[0].text
        assert {ref, other} & set(listing(connector).found) == {ref, again}

    def test_a_cursor_that_is_none_leads_to_everything(self, source: SourceUnderTest, connector: Connector) -> None:
        """A damaged one, another version's: it says so before it lists anything, or lists everything."""
        refs = {source.write(f"doc{number}", "text") for number in range(3)}
        for cursor in NO_CURSORS:
            seen: list[Change | Cursor] = []
            try:
                seen.extend(connector.changes(cursor))
            except CursorExpired:
                assert not seen, ascii(cursor)
                continue
            assert {item.object_ref for item in seen if not isinstance(item, Cursor)} == refs, ascii(cursor)
            assert source.window or any(isinstance(item, Cursor) and item.complete for item in seen), ascii(cursor)

    def test_an_expired_cursor_loses_nothing(self, source: SourceUnderTest, connector: Connector) -> None:
        """What was deleted while nobody asked is in no delta any more: only a listing of everything finds it."""
        kept, lost = source.write("kept", "one"), source.write("lost", "two")
        index = Index(connector)
        index.scan()
        source.delete(lost)
        new = source.write("new", "three")
        index.cursors[""] = source.expire_cursor(index.cursors[""])
        index.scan()
        assert set(index.texts) == {kept, new}


def _refusals(connector: Connector, ref: str) -> Iterator[ConnectorError]:
    """What a listing, a question for the version and a reading say, none of which may succeed."""
    for ask in (partial(listing, connector), partial(connector.version, ref), partial(connector.extract, ref)):
        with pytest.raises(ConnectorError) as refused:
            ask()
        yield refused.value


def _listed_again(connector: Connector) -> dict[str, Change]:
    """After an outage: a connection that died in it may be noticed by its next use, and the bus tries again."""
    for _ in range(ATTEMPTS - 1):
        try:
            return listing(connector).found
        except SourceUnavailable:
            continue
    return listing(connector).found
