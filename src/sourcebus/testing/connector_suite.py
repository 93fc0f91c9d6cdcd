"""The suite that every connector must pass, built in or a stranger's.

Subclass `ConnectorSuite` in a test module and give it a fixture `source`::

    class TestMyConnector(ConnectorSuite):
        @pytest.fixture
        def source(self) -> SourceUnderTest:
            return MySource()

Each test says in its docstring which promise of `sourcebus.connectors.Connector` it checks, and what goes wrong without it.
"""

from __future__ import annotations

import abc
import queue
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from sourcebus.connectors import Connector, Watches
from sourcebus.errors import ConnectorError, InvalidInput, ObjectGone, ObjectUnreadable
from sourcebus.model import MAX_REF_BYTES, WHOLE_SOURCE, Change, ChangeKind, Cursor

PATIENCE_S = 10.0
"""How long a watch may take before a test calls it silent. A working one needs milliseconds."""

STRANGE_REFS = ("no-such-object", "../../etc/passwd", "a\nb", "a\x1fb", "\N{PILE OF POO}", "x" * 255, "/", ".", "%00", "\udcff")


class SourceUnderTest(abc.ABC):
    """An outside system in a known state, empty at first, that the suite may change. Real, or as near as a test can have it."""

    window = False
    """True: the source only ever shows its newest objects (a feed), so that what it does not show may be there all the same.
    Its listings are then never complete, and of an object that it never showed nothing can be said."""

    @abc.abstractmethod
    def connect(self) -> Connector:
        """A new connector to this source."""

    @abc.abstractmethod
    def write(self, name: str, text: str) -> str:
        """Create or replace the object of that name (letters and digits) and return its `object_ref`."""

    @abc.abstractmethod
    def delete(self, ref: str) -> None:
        """Remove the object."""

    def break_off(self) -> None:
        """Make the whole source unavailable, as an outage would; `mend` undoes it. Left out: these tests are skipped."""
        pytest.skip("this source defines no break_off(): an outage cannot be shown")

    def mend(self) -> None:  # noqa: B027 - belongs to break_off(), which may be left out
        """End the outage; all objects are as before."""


@dataclass
class Pass:
    """What one listing said: the objects that are there, those it called deleted, the last cursor, and if it was complete."""

    found: dict[str, Change] = field(default_factory=dict[str, Change])
    deleted: set[str] = field(default_factory=set[str])
    cursor: str | None = None
    complete: bool = False


def listing(connector: Connector, cursor: str | None = None, scope: str = WHOLE_SOURCE) -> Pass:
    """One pass of `changes`, checked for what holds of every listing."""
    result, ended = Pass(), False
    for item in connector.changes(cursor, scope):
        if isinstance(item, Cursor):
            result.cursor, result.complete, ended = item.value, result.complete or item.complete, True
            continue
        ended = False
        ref = item.object_ref
        assert isinstance(ref, str), f"{ref!r} is no text"
        assert ref or item.change_kind is ChangeKind.SCAN, "an object needs a name"
        assert len(ref.encode("utf-8", "surrogatepass")) <= MAX_REF_BYTES, f"{ref[:80]!r}… is too long"
        if item.change_kind is ChangeKind.DELETED:
            result.deleted.add(ref)
            result.found.pop(ref, None)
        else:
            result.deleted.discard(ref)
            result.found[ref] = item
    assert ended, "a listing ends with a Cursor"
    return result


class ConnectorSuite:
    """The tests. A fixture `source` of the subclass gives the `SourceUnderTest`."""

    @pytest.fixture
    def connector(self, source: SourceUnderTest) -> Generator[Connector]:
        connector = source.connect()
        yield connector
        connector.close()

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

    # outages

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

    # watching

    def test_a_connector_that_watches_is_held_to_the_watching_suite(self, connector: Connector) -> None:
        assert not isinstance(connector, Watches) or isinstance(self, WatchingConnectorSuite)


class WatchingConnectorSuite(ConnectorSuite):
    """`ConnectorSuite`, and what a connector promises beyond it that pushes changes (`Watches`)."""

    def test_a_watch_begins_with_a_scan(self, connector: Connector) -> None:
        """What changed between the last listing and the beginning of the watch is in neither."""
        with watching(connector) as batches:
            assert any(change == Change(WHOLE_SOURCE, ChangeKind.SCAN) for change in batches.get(timeout=PATIENCE_S))

    def test_a_watch_announces_every_change(self, source: SourceUnderTest, connector: Connector) -> None:
        """By the object's own name, or by a scan of a scope that it lies in."""
        old = source.write("old", "text")
        with watching(connector) as batches:
            batches.get(timeout=PATIENCE_S)
            announced(connector, batches, source.write("new", "text"))
            announced(connector, batches, source.write("old", "other text"))
            source.delete(old)
            announced(connector, batches, old)


def announced(connector: Connector, batches: queue.Queue[Sequence[Change]], ref: str) -> None:
    """Wait until a batch covers the object; fails after `PATIENCE_S` without one."""
    while True:
        try:
            batch = batches.get(timeout=PATIENCE_S)
        except queue.Empty:
            pytest.fail(f"the watch says nothing of {ref!r}")
        for change in batch:
            scan = change.change_kind is ChangeKind.SCAN
            if change.object_ref == ref or (scan and ref.startswith(connector.scope_prefix(change.object_ref))):
                return


@contextmanager
def watching(connector: Connector, *, step_ms: int = 5) -> Generator[queue.Queue[Sequence[Change]]]:
    """The batches of the connector's watch, while the block runs."""
    assert isinstance(connector, Watches)
    batches: queue.Queue[Sequence[Change]] = queue.Queue()
    stop = threading.Event()

    def run() -> None:
        for batch in connector.watch(stop, step_ms=step_ms):
            batches.put(batch)

    thread = threading.Thread(target=run, name="watch", daemon=True)
    thread.start()
    try:
        yield batches
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive(), "a watch ends when it is told to"
