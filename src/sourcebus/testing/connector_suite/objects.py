"""Objects of a source that works: listed, versioned, read, renamed, deleted and written again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sourcebus.connectors import Connector
from sourcebus.errors import ConnectorError, InvalidInput, ObjectGone, ObjectUnreadable, SourcebusError
from sourcebus.model import WHOLE_SOURCE
from sourcebus.testing.connector_suite.listing import Index, listing
from sourcebus.testing.connector_suite.source import SourceUnderTest

STRANGE_REFS = ("no-such-object", "../../etc/passwd", "a\nb", "a\x1fb", "\N{PILE OF POO}", "x" * 255, "/", ".", "%00", "\udcff")
STRANGE_SCOPES = ("no-such-scope/", "../", "%00/", "\N{SNOWMAN}/")


class ObjectTests:
    """What is listed, which version it has, and what is read."""

    # listing

    def test_an_empty_source_lists_nothing_and_says_so(self, source: SourceUnderTest, connector: Connector) -> None:
        """Empty and complete differs from failed: only the first may delete. And a window is never complete."""
        result = listing(connector)
        assert not result.found
        assert result.complete is not source.window

    def test_every_object_is_listed(self, source: SourceUnderTest, connector: Connector) -> None:
        """What a complete listing leaves out is deleted from the index."""
        refs = {source.write(f"doc{number}", f"text {number}") for number in range(12)}
        result = listing(connector)
        assert set(result.found) == refs
        assert result.complete is not source.window

    def test_references_last(self, source: SourceUnderTest, connector: Connector) -> None:
        """Another process, listing later, names the same objects by the same references."""
        ref = source.write("doc", "one")
        again = source.connect()
        try:
            assert set(listing(connector).found) == set(listing(again).found) == {ref}
        finally:
            again.close()

    def test_a_listing_goes_on_from_its_cursor(self, source: SourceUnderTest, connector: Connector) -> None:
        """A change after the pass is in the next one, whether that lists everything or only the delta."""
        source.write("first", "one")
        cursor = listing(connector).cursor
        second = source.write("second", "two")
        later = listing(connector, cursor)
        assert second in later.found

    def test_a_deleted_object_leaves_the_listing(self, source: SourceUnderTest, connector: Connector) -> None:
        """Deletes arrive as absence from a complete listing, or are said."""
        kept, lost = source.write("kept", "one"), source.write("lost", "two")
        cursor = listing(connector).cursor
        source.delete(lost)
        result = listing(connector, cursor)
        assert lost not in result.found
        assert lost in result.deleted or (result.complete and kept in result.found)

    def test_a_listing_may_be_given_up(self, source: SourceUnderTest, connector: Connector) -> None:
        """A consumer that stops half-way (shutdown) leaves the connector usable."""
        for number in range(5):
            source.write(f"doc{number}", "text")
        for _ in range(50):
            changes = iter(connector.changes(None))
            next(changes)
            del changes
        assert len(listing(connector).found) == 5

    def test_every_listed_object_lies_in_the_whole_scope(self, source: SourceUnderTest, connector: Connector) -> None:
        """`scope_prefix` decides what a scan may delete."""
        source.write("doc", "text")
        assert all(ref.startswith(connector.scope_prefix(WHOLE_SOURCE)) for ref in listing(connector).found)

    # versions

    def test_a_version_holds_while_nothing_changes(self, source: SourceUnderTest, connector: Connector) -> None:
        """Else every event extracts."""
        ref = source.write("doc", "text")
        assert connector.version(ref) == connector.version(ref) == connector.extract(ref).version

    def test_the_listing_gives_the_same_version(self, source: SourceUnderTest, connector: Connector) -> None:
        """A scan skips an object whose listed version equals the stored one."""
        ref = source.write("doc", "text")
        listed = listing(connector).found[ref].version
        assert listed is None or listed == connector.version(ref)

    def test_a_new_content_is_a_new_version(self, source: SourceUnderTest, connector: Connector) -> None:
        """Also at once and at the same length: a clock's resolution must not hide a change."""
        seen: set[str | None] = set()
        for number in range(30):
            ref = source.write("doc", f"text {number:04}")
            version, extraction = connector.version(ref), connector.extract(ref)
            assert version == extraction.version
            assert f"{number:04}" in "".join(document.text for document in extraction.documents)
            seen.add(version)
        assert len(seen) == 30
        assert None not in seen

    def test_equal_fingerprints_prove_equal_contents(self, source: SourceUnderTest, connector: Connector) -> None:
        """A fingerprint that survives a change hides it from every later listing."""
        stored: set[str | None] = set()
        for number in range(30):
            ref = source.write("doc", f"text {number:04}")
            now = [connector.fingerprint(ref), connector.extract(ref).fingerprint, listing(connector).found[ref].fingerprint]
            for fingerprint in now:
                assert fingerprint is None or fingerprint not in stored
            stored.update(now)

    # reading

    def test_documents_are_what_was_written(self, source: SourceUnderTest, connector: Connector) -> None:
        """Text that a database can store, each part once."""
        ref = source.write("doc", "Grüße aus dem Süden \N{SNOWMAN}")
        documents = connector.extract(ref).documents
        assert "Grüße aus dem Süden \N{SNOWMAN}" in "\n".join(document.text for document in documents)
        assert len({document.part for document in documents}) == len(documents)
        for document in documents:
            assert "\0" not in document.text + document.title
            assert (document.text + document.title).encode(), "a document needs a text or a title"

    def test_what_is_gone_is_said_to_be_gone(self, source: SourceUnderTest, connector: Connector) -> None:
        """None and `ObjectGone` delete; nothing else does."""
        ref = source.write("doc", "text")
        assert connector.version(ref) is not None
        source.delete(ref)
        assert connector.version(ref) is None
        with pytest.raises(ObjectGone):
            connector.extract(ref)

    def test_what_came_back_is_there(self, source: SourceUnderTest, connector: Connector) -> None:
        """Nothing remembers that the object was gone."""
        source.delete(source.write("doc", "text"))
        ref = source.write("doc", "text again")
        assert connector.version(ref) == connector.extract(ref).version
        assert ref in listing(connector).found

    @pytest.mark.parametrize("ref", STRANGE_REFS, ids=ascii)
    def test_a_reference_to_nothing_is_gone(self, source: SourceUnderTest, connector: Connector, ref: str) -> None:
        """Anyone may send any reference: it names no object here, and breaks nothing. A window cannot say that it is gone."""
        source.write("doc", "text")
        if source.window:
            for ask in (connector.version, connector.extract):
                with pytest.raises(ConnectorError) as refused:
                    ask(ref)
                assert not isinstance(refused.value, ObjectGone | ObjectUnreadable), "that would delete its documents"
            return
        assert connector.version(ref) is None
        with pytest.raises(ObjectGone):
            connector.extract(ref)

    def test_several_threads_share_one_connector(self, source: SourceUnderTest, connector: Connector) -> None:
        """A worker's slots use one connector at the same time."""
        refs = [source.write(f"doc{number}", f"text {number:04}") for number in range(8)]

        def read(turn: int) -> bool:
            number = turn % len(refs)
            extraction = connector.extract(refs[number])
            text = "".join(document.text for document in extraction.documents)
            return f"{number:04}" in text and connector.version(refs[number]) == extraction.version

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(64)))

    # names

    def test_a_name_may_be_of_any_alphabet(self, source: SourceUnderTest, connector: Connector) -> None:
        """A reference that comes back otherwise than it was listed is an object that is never found."""
        index = Index(connector)
        for name in ("größe", "中文", "имя", "عنوان"):
            ref = source.write(name, f"text of {name}")
            index.scan(anew=True)
            assert f"text of {name}" in index.texts[ref]
            source.delete(ref)
            assert connector.version(ref) is None

    def test_a_rename_loses_nothing_and_leaves_nothing(self, source: SourceUnderTest, connector: Connector) -> None:
        """Where the reference stays, nothing is gone; where it changes, the old one is, and the new one is there."""
        index = Index(connector)
        old, other = source.write("old", "a text"), source.write("other", "another")
        index.scan()
        new = source.rename(old, "new")
        for anew in (False, True):
            index.scan(anew=anew)
            if anew or index.connector.version(old) is not None:
                assert set(index.texts) == {new, other}
            assert "a text" in index.texts[new]

    def test_deleted_and_written_again_between_two_listings(self, source: SourceUnderTest, connector: Connector) -> None:
        """A delta that remembers the delete alone would leave the index without the object."""
        index = Index(connector)
        ref, other = source.write("doc", "first"), source.write("other", "text")
        index.scan()
        source.delete(ref)
        again = source.write("doc", "second")
        index.scan()
        assert "second" in index.texts[again]
        index.scan(anew=True)
        assert set(index.texts) == {again, other}

    def test_a_scope_that_is_not_there_deletes_nothing(self, source: SourceUnderTest, connector: Connector) -> None:
        """A delivery may name any scope: an old one, another source's."""
        index = Index(connector)
        ref = source.write("doc", "text")
        index.scan()
        for scope in STRANGE_SCOPES:
            try:
                index.scan(scope)
            except SourcebusError:
                pass  # an answer too, as long as nothing follows from it
            assert set(index.texts) == {ref}, ascii(scope)

    # settings

    def test_an_unknown_setting_is_named(self, connector: Connector) -> None:
        """A mistyped key that is ignored looks like a setting that has no effect."""
        with pytest.raises(InvalidInput) as refused:
            type(connector).create({"no_such_setting": 1}, None)
        assert refused.value.field.startswith("config")
        assert "no_such_setting" in str(refused.value)

    def test_recommendations_can_be_kept(self, connector: Connector) -> None:
        """They are used as they are, where a source sets nothing."""
        recommended = connector.recommended
        assert recommended.window_ms >= 0
        assert recommended.poll_interval_s > 0
        assert recommended.quota.concurrency >= 1
        assert recommended.quota.rate is None or recommended.quota.rate > 0

    def test_closing_twice_is_closing_once(self, source: SourceUnderTest) -> None:
        """Shutdown paths meet."""
        connector = source.connect()
        connector.close()
        connector.close()
