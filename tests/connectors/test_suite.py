"""The public suite on each connector of this package, and proof that the suite catches broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from sourcebus.connectors import Connector, celery_task_connector, connector_from
from sourcebus.connectors.filesystem import FilesystemConnector
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Document, Extraction
from sourcebus.testing import ConnectorSuite, SourceUnderTest, WatchingConnectorSuite


class Folder(SourceUnderTest):
    """A directory. Its outage is the directory moved away."""

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.root, self.settings = root, settings

    def connect(self) -> Connector:
        return FilesystemConnector.create({"root": str(self.root), **self.settings})

    def write(self, name: str, text: str) -> str:
        (self.root / f"{name}.txt").write_text(text)
        return f"{name}.txt"

    def delete(self, ref: str) -> None:
        (self.root / ref).unlink()

    def rename(self, ref: str, name: str) -> str:
        (self.root / ref).rename(self.root / f"{name}.txt")
        return f"{name}.txt"

    def break_off(self) -> None:
        self.root.rename(self.root.with_name("away"))

    def mend(self) -> None:
        self.root.with_name("away").rename(self.root)


class TestFilesystem(WatchingConnectorSuite):
    @pytest.fixture
    def source(self, root: Path) -> SourceUnderTest:
        return Folder(root, {})


class TestFilesystemThroughWatchfiles(WatchingConnectorSuite):
    """The watch that systems without inotify get."""

    @pytest.fixture
    def source(self, root: Path) -> SourceUnderTest:
        return Folder(root, {"watcher": "watchfiles"})


class TestFilesystemByListing(WatchingConnectorSuite):
    """The watch where the kernel grants none."""

    @pytest.fixture
    def source(self, root: Path) -> SourceUnderTest:
        return Folder(root, {"watcher": "poll", "rescan_s": 0.1})


class Wiki(SourceUnderTest):
    """Pages in memory, read through callables as a team may have them. `connect` is filled by each test class."""

    def __init__(self, make: Callable[[Wiki], Connector]) -> None:
        self.pages: dict[str, tuple[str, int]] = {}
        self.revision, self.down, self.make = 0, False, make

    def connect(self) -> Connector:
        return self.make(self)

    def write(self, name: str, text: str) -> str:
        self.revision += 1
        self.pages[name] = (text, self.revision)
        return name

    def delete(self, ref: str) -> None:
        del self.pages[ref]

    def break_off(self) -> None:
        self.down = True

    def mend(self) -> None:
        self.down = False

    def _up(self) -> None:
        if self.down:
            from sourcebus.errors import SourceUnavailable

            raise SourceUnavailable("the wiki is down")

    def ids(self) -> list[str]:
        self._up()
        return [*self.pages]

    def pairs(self) -> Iterator[tuple[str, str]]:
        self._up()
        yield from ((name, str(revision)) for name, (_, revision) in self.pages.items())

    def text(self, ref: str) -> str:
        self._up()
        return self.pages[ref][0]

    def version(self, ref: str) -> str | None:
        self._up()
        return str(self.pages[ref][1]) if ref in self.pages else None


class TestCallables(ConnectorSuite):
    @pytest.fixture
    def source(self) -> SourceUnderTest:
        return Wiki(lambda wiki: connector_from(list=wiki.ids, version=wiki.version, extract=wiki.text))


class TestCallablesWhoseListingHasVersions(ConnectorSuite):
    @pytest.fixture
    def source(self) -> SourceUnderTest:
        return Wiki(lambda wiki: connector_from(list=wiki.pairs, extract=wiki.text))


class TestCallablesWithoutVersions(ConnectorSuite):
    @pytest.fixture
    def source(self) -> SourceUnderTest:
        return Wiki(lambda wiki: connector_from(list=wiki.ids, extract=wiki.text))


class TestCeleryTask(ConnectorSuite):
    @pytest.fixture
    def source(self) -> SourceUnderTest:
        from celery import Celery

        app: Any = Celery("team", broker="memory://")

        def make(wiki: Wiki) -> Connector:
            def extract_page(self: Any, ref: str) -> str:
                assert self.request.called_directly
                return wiki.text(ref)

            task = app.task(bind=True, name="team.extract_page")(extract_page)
            return celery_task_connector(task, list=wiki.ids, version=wiki.version)

        return Wiki(make)


# what the suite is for


class Faithful(Connector):
    """A correct connector on a `Wiki`, for the broken ones below to differ from in one point."""

    name = "faithful"

    def __init__(self, wiki: Wiki) -> None:
        self.wiki = wiki

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        raise NotImplementedError

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        for ref in self.wiki.ids():
            yield Change(ref)
        yield Cursor(None, complete=True)

    def version(self, ref: str) -> str | None:
        return self.wiki.version(ref)

    def extract(self, ref: str) -> Extraction:
        from sourcebus.errors import ObjectGone

        version = self.wiki.version(ref)
        if version is None:
            raise ObjectGone(ref)
        return Extraction([Document(self.wiki.text(ref))], version)


class LosesOne(Faithful):
    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        yield from [*super().changes(cursor, scope)][1:]


class EmptyWhenDown(Faithful):
    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        return iter([Cursor(None, complete=True)]) if self.wiki.down else super().changes(cursor, scope)


class GoneWhenDown(Faithful):
    def version(self, ref: str) -> str | None:
        return None if self.wiki.down else super().version(ref)


class CoarseVersion(Faithful):
    def version(self, ref: str) -> str | None:
        return super().version(ref) and "today"

    def extract(self, ref: str) -> Extraction:
        return Extraction(super().extract(ref).documents, "today")


class CoarseFingerprint(Faithful):
    def fingerprint(self, ref: str) -> str | None:
        return str(len(self.wiki.text(ref)))


class ForgetsToEnd(Faithful):
    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        return (item for item in super().changes(cursor, scope) if isinstance(item, Change))


class EmptyForTheUnknown(Faithful):
    def extract(self, ref: str) -> Extraction:
        return Extraction([], "") if ref not in self.wiki.pages else super().extract(ref)


SUITE = WatchingConnectorSuite()


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (LosesOne, SUITE.test_every_object_is_listed),
        (EmptyWhenDown, SUITE.test_an_outage_is_not_an_empty_source),
        (GoneWhenDown, SUITE.test_an_outage_is_not_an_empty_source),
        (CoarseVersion, SUITE.test_a_new_content_is_a_new_version),
        (CoarseFingerprint, SUITE.test_equal_fingerprints_prove_equal_contents),
        (EmptyForTheUnknown, SUITE.test_what_is_gone_is_said_to_be_gone),
    ],
)
def test_the_suite_catches(broken: type[Faithful], test: Callable[[SourceUnderTest, Connector], None]) -> None:
    wiki, sound = Wiki(broken), Wiki(Faithful)
    test(sound, sound.connect())
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(wiki, wiki.connect())


def test_the_suite_catches_a_window_that_says_it_is_complete() -> None:
    wiki = Wiki(Faithful)
    wiki.window = True
    with pytest.raises(AssertionError):
        SUITE.test_an_empty_source_lists_nothing_and_says_so(wiki, wiki.connect())
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        SUITE.test_a_reference_to_nothing_is_gone(wiki, wiki.connect(), "none")


def test_the_suite_catches_a_listing_without_an_end() -> None:
    wiki = Wiki(ForgetsToEnd)
    with pytest.raises(AssertionError):
        SUITE.test_an_empty_source_lists_nothing_and_says_so(wiki, wiki.connect())
