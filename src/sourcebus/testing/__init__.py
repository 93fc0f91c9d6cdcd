"""What tests of sourcebus, and of what others build on it, are made with. Needs pytest."""

from sourcebus.bus.embedded import running_server, server_binary
from sourcebus.testing.clock import ManualClock
from sourcebus.testing.connector import FakeConnector
from sourcebus.testing.connector_suite import ConnectorSuite, Hook, SourceUnderTest, WatchingConnectorSuite, not_applicable
from sourcebus.testing.depot import MemoryDepot

__all__ = [
    "ConnectorSuite",
    "FakeConnector",
    "Hook",
    "ManualClock",
    "MemoryDepot",
    "SourceUnderTest",
    "WatchingConnectorSuite",
    "not_applicable",
    "running_server",
    "server_binary",
]
