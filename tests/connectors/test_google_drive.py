"""The connector `google_drive` on the simulated Drive: the suite, in each kind of place and for each kind of file."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from tests.connectors.google_drive_source import Document, DriveSource

from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.providers.google_drive import GoogleDriveSimulator


@pytest.fixture(scope="module")
def google() -> Generator[GoogleDriveSimulator]:
    with GoogleDriveSimulator(enforce=False, pace=1_000) as simulated:
        yield simulated


class TestSharedDrive(ConnectorSuite):
    @pytest.fixture
    def source(self, google: GoogleDriveSimulator) -> SourceUnderTest:
        drive = google.shared_drive()
        return DriveSource(google, drive, drive=drive.id)


class TestDocuments(ConnectorSuite):
    @pytest.fixture
    def source(self, google: GoogleDriveSimulator) -> SourceUnderTest:
        drive = google.shared_drive()
        return Document(google, drive, drive=drive.id)


class TestMyDrive(ConnectorSuite):
    """Through domain-wide delegation."""

    @pytest.fixture
    def source(self, google: GoogleDriveSimulator) -> SourceUnderTest:
        user = f"ada{len(google.drives)}@example.com"
        return DriveSource(google, google.my_drive(user), subject=user)


class TestSharedFolder(ConnectorSuite):
    """A folder of somebody's My Drive, shared with the service account's address."""

    @pytest.fixture
    def source(self, google: GoogleDriveSimulator) -> SourceUnderTest:
        drive = google.my_drive(f"ben{len(google.drives)}@example.com")
        with google.lock:
            folder = drive.folder("folder")
            drive.shares[folder] = {google.email}
            drive.put("elsewhere.txt", "text of no interest")
        return DriveSource(google, drive, folders=[folder])
