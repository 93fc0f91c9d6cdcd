"""The suite that every connector must pass, built in or a stranger's.

Subclass `ConnectorSuite` in a test module and give it a fixture `source`::

    class TestMyConnector(ConnectorSuite):
        @pytest.fixture
        def source(self) -> SourceUnderTest:
            return MySource()

Each test says in its docstring which promise of `sourcebus.connectors.Connector` it checks, and what goes wrong without it.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from sourcebus.connectors import Connector, Watches
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind
from sourcebus.testing.connector_suite.faults import FaultTests
from sourcebus.testing.connector_suite.hook import Hook
from sourcebus.testing.connector_suite.listing import Index, Pass, listing
from sourcebus.testing.connector_suite.objects import ObjectTests
from sourcebus.testing.connector_suite.signals import SignalTests
from sourcebus.testing.connector_suite.source import SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite.watching import PATIENCE_S, announced, watching

__all__ = [
    "PATIENCE_S",
    "ConnectorSuite",
    "Hook",
    "Index",
    "Pass",
    "SourceUnderTest",
    "WatchingConnectorSuite",
    "listing",
    "not_applicable",
    "watching",
]


class ConnectorSuite(ObjectTests, FaultTests, SignalTests):
    """The tests. A fixture `source` of the subclass gives the `SourceUnderTest`."""

    @pytest.fixture
    def connector(self, source: SourceUnderTest) -> Generator[Connector]:
        connector = source.connect()
        yield connector
        connector.close()

    def test_a_connector_that_watches_is_held_to_the_watching_suite(self, connector: Connector) -> None:
        """What pushes changes promises more than what is listed."""
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
