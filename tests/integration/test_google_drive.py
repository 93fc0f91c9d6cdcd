"""Google Drive through the whole product: what a change, a binned or moved folder, a view and a quiet listing lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.working import found, work

from sourcebus.model import Signal, Source, SourceChanged
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing.providers.google_drive import GoogleDriveSimulator
from sourcebus.testing.providers.google_drive_files import DOCUMENT, SimDrive


@dataclass
class Desk:
    """A folder of a shared drive that has been indexed, and the product around it."""

    google: GoogleDriveSimulator
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
    with GoogleDriveSimulator(enforce=False) as google:
        drive = google.shared_drive()
        google.put(drive, "in/birds/heron.txt", "The heron stands in the shallow water.")
        google.put(drive, "in/birds/small/kingfisher", "The kingfisher waits on a branch.", DOCUMENT)
        google.put(drive, "out/crane.txt", "The crane dances.")
        config = {
            "drive": drive.id,
            "folders": [drive.folder("in")],
            "drive_url": google.drive_url,
            "token_url": google.token_url,
        }
        with build(settings.model_copy(update={"waiting_consumers": 0})) as runtime:
            runtime.sources.add(Source("s", "google_drive", config=config, secret=google.key_file(), window_ms=0))
            made = Desk(google, drive, runtime)
            made.work()
            yield made


def test_a_change_is_found_and_a_delete_is_gone(desk: Desk) -> None:
    (heron,) = desk.found("heron")
    desk.google.put(desk.drive, "in/birds/heron.txt", "It has flown to the estuary.")
    desk.scan()
    assert (desk.found("estuary"), desk.found("shallow")) == ([heron], [])
    desk.drive.trash(heron)
    desk.scan()
    assert desk.found("estuary") == []


def test_a_folder_takes_what_lies_in_it_along(desk: Desk) -> None:
    """Out of the source and in again, into the bin and out of it: Google tells the folder alone."""
    birds, here, there = desk.drive.folder("in/birds"), desk.drive.folder("in"), desk.drive.folder("out")
    for leave, come_back in (
        (lambda: desk.drive.move(birds, there), lambda: desk.drive.move(birds, here)),
        (lambda: desk.drive.trash(birds), lambda: desk.drive.trash(birds, trashed=False)),
    ):
        leave()
        desk.scan()
        assert (desk.found("heron"), desk.found("kingfisher")) == ([], [])
        assert desk.runtime.desk.verify("s").ok
        come_back()
        desk.scan()
        assert len(desk.found("heron")) == len(desk.found("kingfisher")) == 1
        assert desk.runtime.desk.verify("s").ok
    desk.drive.move(there, here)
    desk.scan()
    assert len(desk.found("crane")) == 1


def test_a_view_of_a_document_indexes_nothing(desk: Desk) -> None:
    (ref,) = desk.found("kingfisher")
    before = desk.runtime.catalog.versions([("s", ref)])["s", ref]
    desk.drive.touch(ref)
    desk.scan()
    after = desk.runtime.catalog.versions([("s", ref)])["s", ref]
    assert after.version == before.version
    assert after.fingerprint != before.fingerprint, "so that the next listing skips it"


def test_an_object_of_nowhere_is_only_noted(desk: Desk) -> None:
    desk.runtime.intake.accept([SourceChanged("s", ref) for ref in ("1nonexistent", "../x", "\N{PILE OF POO}")])
    desk.work()
    assert desk.runtime.bus.dead_letters("s") == []
    assert desk.runtime.desk.verify("s").ok


def test_a_listing_without_changes_reads_nothing(desk: Desk) -> None:
    """Reconcile: versions and fingerprints prove it."""
    desk.runtime.catalog.listings.forget("s")
    desk.google.meter.spent = 0.0
    desk.scan()
    assert desk.google.meter.spent == 5 + 5 + 3 * 100 + 100, "the folder, the feed's start, three levels, the feed"
