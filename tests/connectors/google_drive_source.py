"""Connectors on the simulated Drive, for the tests of `google_drive`."""

from __future__ import annotations

from typing import Any

from sourcebus.connectors.google_drive import GoogleDriveConnector
from sourcebus.testing import SourceUnderTest
from sourcebus.testing.providers.google_drive import GoogleDriveSimulator
from sourcebus.testing.providers.google_drive_files import SimDrive
from sourcebus.testing.providers.server import Answer

_KEY_FILES: dict[str, str] = {}


def key_file(google: GoogleDriveSimulator) -> str:
    """The one key that a simulator's tests share: making one takes a tenth of a second."""
    if google.url not in _KEY_FILES:
        _KEY_FILES[google.url] = google.key_file()
    return _KEY_FILES[google.url]


def config(google: GoogleDriveSimulator, **more: Any) -> dict[str, Any]:
    """What a source on the simulated Drive needs besides its place."""
    return {"drive_url": google.drive_url, "token_url": google.token_url, **more}


def connect(google: GoogleDriveSimulator, **more: Any) -> GoogleDriveConnector:
    return GoogleDriveConnector.create(config(google, **more), key_file(google))


class DriveSource(SourceUnderTest):
    """A drive of its own, whole or by a folder, on a shared simulator. Its outage is Google's."""

    def __init__(self, google: GoogleDriveSimulator, held: SimDrive, /, **place: Any) -> None:
        self.google, self.drive, self.place = google, held, place

    def connect(self) -> GoogleDriveConnector:
        return connect(self.google, **self.place)

    def write(self, name: str, text: str) -> str:
        return self.google.put(self.drive, f"folder/{name}.txt", text).id

    def delete(self, ref: str) -> None:
        with self.google.lock:
            self.drive.delete(ref)

    def break_off(self) -> None:
        self.google.refuse(Answer(500, {"error": {"code": 500, "message": "Backend Error"}}), times=1000, path="/drive/v3/.*")

    def mend(self) -> None:
        self.google.accept_again()


class Document(DriveSource):
    """The same with Google's own documents: no hash, no revision, only a text that is exported."""

    def write(self, name: str, text: str) -> str:
        return self.google.put(self.drive, f"folder/{name}", text, "application/vnd.google-apps.document").id
