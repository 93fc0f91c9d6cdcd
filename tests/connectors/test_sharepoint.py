"""The connector `sharepoint` on the simulated tenant: the suite, then what is Graph's own."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from tests.connectors.sharepoint_source import Library, SiteLibraries

from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.providers.graph import GraphSimulator


@pytest.fixture(scope="module")
def tenant() -> Generator[GraphSimulator]:
    with GraphSimulator(enforce=False) as simulated:
        yield simulated


class TestLibrary(ConnectorSuite):
    @pytest.fixture
    def source(self, tenant: GraphSimulator) -> SourceUnderTest:
        return Library(tenant, tenant.drive())


class TestSite(ConnectorSuite):
    """All libraries of a site as one source."""

    @pytest.fixture
    def source(self, tenant: GraphSimulator) -> SourceUnderTest:
        drives = tenant.site(f"sites/{len(tenant.drives)}", "Documents", "Archive")
        return SiteLibraries(tenant, drives[1], site=f"{tenant.host}/sites/{len(tenant.drives) - 2}")
