"""Connectors on the simulated tenant, for the tests of `sharepoint`."""

from __future__ import annotations

from typing import Any

from sourcebus.connectors.sharepoint import SharePointConnector
from sourcebus.testing import SourceUnderTest
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_drive import SimDrive
from sourcebus.testing.providers.server import Answer


def config(tenant: GraphSimulator, **more: Any) -> dict[str, Any]:
    """What a source on the simulated tenant needs besides its place."""
    return {
        "tenant": tenant.tenant,
        "client_id": tenant.client_id,
        "authority": tenant.url,
        "graph_url": tenant.graph_url,
        **more,
    }


def connect(tenant: GraphSimulator, **more: Any) -> SharePointConnector:
    return SharePointConnector.create(config(tenant, **more), tenant.secrets[0])


class Library(SourceUnderTest):
    """A document library of its own on a shared tenant. Its outage is Graph's."""

    def __init__(self, tenant: GraphSimulator, drive: SimDrive, **place: Any) -> None:
        self.tenant, self.drive = tenant, drive
        self.place = place or {"drive": drive.id}

    def connect(self) -> SharePointConnector:
        return connect(self.tenant, **self.place)

    def write(self, name: str, text: str) -> str:
        return self.ref(self.tenant.put(self.drive, f"folder/{name}.txt", text).id)

    def ref(self, item_id: str) -> str:
        return item_id

    def delete(self, ref: str) -> None:
        self.tenant.change(self.drive, lambda drive: drive.delete(ref.rpartition("/")[2]))

    def break_off(self) -> None:
        self.tenant.refuse(Answer(500, {"error": {"code": "generalException"}}), times=1000, path="/v1.0/.*|/download/.*")

    def mend(self) -> None:
        self.tenant.accept_again()


class SiteLibraries(Library):
    """The same through a source that is the whole site: references name the drive."""

    def ref(self, item_id: str) -> str:
        return f"{self.drive.id}/{item_id}"
