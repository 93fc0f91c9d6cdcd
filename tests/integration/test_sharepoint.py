"""SharePoint through the whole product: what a change, a renamed folder and a listing without changes lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.working import found, work

from sourcebus.model import Signal, Source, SourceChanged
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_drive import SimDrive


@dataclass
class Desk:
    """A library that has been indexed, and the product around it."""

    tenant: GraphSimulator
    drive: SimDrive
    runtime: Runtime

    def scan(self) -> None:
        """What a notification asks for; then works until nothing is ready."""
        self.runtime.sources.scan("s", Signal.WEBHOOK)
        self.work()

    def work(self) -> None:
        work(self.runtime)

    def found(self, word: str) -> list[str]:
        return found(self.runtime, word)


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with GraphSimulator(enforce=False) as tenant:
        drive = tenant.drive()
        tenant.put(drive, "birds/heron.txt", "The heron stands in the shallow water.")
        tenant.put(drive, "birds/small/kingfisher.txt", "The kingfisher waits on a branch.")
        config = {
            "tenant": tenant.tenant,
            "client_id": tenant.client_id,
            "drive": drive.id,
            "authority": tenant.url,
            "graph_url": tenant.graph_url,
        }
        with build(settings.model_copy(update={"waiting_consumers": 0})) as runtime:
            runtime.sources.add(Source("s", "sharepoint", config=config, secret=tenant.secrets[0], window_ms=0))
            made = Desk(tenant, drive, runtime)
            made.work()
            yield made


def test_a_change_is_found_and_a_delete_is_gone(desk: Desk) -> None:
    (heron,) = desk.found("heron")
    desk.tenant.put(desk.drive, "birds/heron.txt", "It has flown to the estuary.")
    desk.scan()
    assert (desk.found("estuary"), desk.found("shallow")) == ([heron], [])
    desk.tenant.change(desk.drive, lambda drive: drive.delete(heron))
    desk.scan()
    assert desk.found("estuary") == []


def test_a_renamed_folder_brings_every_path_below_it_up_to_date(desk: Desk) -> None:
    desk.tenant.change(desk.drive, lambda drive: drive.rename(drive.folder("birds").id, "waterfowl"))
    assert not desk.runtime.desk.verify("s").ok
    desk.scan()
    assert desk.runtime.desk.verify("s").ok


def test_an_object_of_nowhere_is_only_noted(desk: Desk) -> None:
    desk.runtime.intake.accept([SourceChanged("s", ref) for ref in ("01NOPE", "../x", "\N{PILE OF POO}")])
    desk.work()
    assert desk.runtime.bus.dead_letters("s") == []
    assert desk.runtime.desk.verify("s").ok


def test_a_listing_without_changes_reads_nothing(desk: Desk) -> None:
    """Reconcile: the fingerprints prove it."""
    desk.runtime.catalog.listings.forget("s")
    desk.tenant.meter.spent = 0.0
    desk.scan()
    assert desk.tenant.meter.spent == 2, "one page of a delta without a token"
