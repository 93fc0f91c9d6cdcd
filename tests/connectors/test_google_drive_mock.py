"""Against somebody else's idea of Google Drive: npm's `google-drive-mock`, where it can serve.

It knows one user's drive and two fixed tokens, so a front on the same loopback stands in for Google's sign-in. It has no
channels, no pages in its feed, and no hash but MD5.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from tests.connectors.google_drive_source import key_file

from sourcebus.connectors.google_drive import GoogleDriveConnector
from sourcebus.errors import ConnectorError, ObjectGone
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.google_drive import GoogleDriveSimulator
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

VERSION = "1.2.0"
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sourcebus-tests" / f"google-drive-mock-{VERSION}"
INSTALL = f"npm install --prefix {FOLDER} google-drive-mock@{VERSION} express@5.2.1 cors@2.8.6"
START = """
const server = require('google-drive-mock').createApp().listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit()).resume();
"""
FOLDER_TYPE = "application/vnd.google-apps.folder"


class Front(ProviderServer):
    """Google's sign-in, and the mock behind it."""

    def __init__(self, mock: httpx.Client) -> None:
        super().__init__()
        self._mock = mock
        self.on("POST", "/token", lambda _asked: Answer(body={"access_token": "valid-token", "expires_in": 3600}))
        for method in ("GET", "POST"):
            self.on(method, "/drive/v3/(.*)", self._forward)

    def _forward(self, asked: Asked) -> Answer:
        query = {name: value for name, value in asked.query.items() if name != "fields"}  # which it understands in part
        headers = {"Authorization": asked.headers.get("authorization", "")}
        told = self._mock.request(asked.method, f"{asked.args[0]}?{urlencode(query)}", headers=headers)
        return Answer(told.status_code, told.content, {"Content-Type": told.headers.get("content-type", "")})


@pytest.fixture(scope="module")
def mock() -> Generator[httpx.Client]:
    """The mock's own address, to change files by, as somebody else would."""
    if not all((FOLDER / "node_modules" / name).exists() for name in ("google-drive-mock", "express", "cors")):
        done = shutil.which("npm") and subprocess.run(
            [*INSTALL.split(), "--silent", "--no-audit", "--no-fund"], stdin=subprocess.DEVNULL, check=False, timeout=120
        )
        if not done or done.returncode:
            pytest.skip(f"needs npm and the mock: {INSTALL}")
    process = subprocess.Popen(
        ["node", "-e", START], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline() or 0)
        if not port:
            pytest.skip(f"the mock does not start; install it anew: {INSTALL}")
        address, headers = f"http://127.0.0.1:{port}", {"Authorization": "Bearer valid-token"}
        with httpx.Client(base_url=f"{address}/drive/v3", headers=headers) as client:
            yield client
        process.terminate()


@pytest.fixture(scope="module")
def secret() -> Generator[str]:
    with GoogleDriveSimulator() as google:
        yield key_file(google)


@pytest.fixture
def front(mock: httpx.Client) -> Generator[Front]:
    with Front(mock) as served:
        yield served


def connect(front: Front, secret: str, **place: Any) -> GoogleDriveConnector:
    place |= {"drive_url": f"{front.url}/drive/v3", "token_url": f"{front.url}/token"}
    return GoogleDriveConnector.create(place, secret)


def create(mock: httpx.Client, **body: Any) -> str:
    return mock.post("files", json=body).raise_for_status().json()["id"]


def write(mock: httpx.Client, file_id: str, text: str) -> None:
    address = f"{str(mock.base_url).replace('/drive/v3', '/upload/drive/v3')}files/{file_id}"
    told = mock.patch(address, params={"uploadType": "media"}, content=text.encode(), headers={"Content-Type": "text/plain"})
    told.raise_for_status()


def test_its_feed_its_hashes_and_its_content(mock: httpx.Client, front: Front, secret: str) -> None:
    """Listed, read, changed, renamed, binned, restored, deleted: each seen from the last token on."""
    ref = create(mock, name="heron.txt", mimeType="text/plain")
    write(mock, ref, "The heron stands in the shallow water.")
    with closing(connect(front, secret)) as connector:
        first = listing(connector)
        assert ref in first.found
        assert first.complete
        read = connector.extract(ref)
        assert read.documents[0].text == "The heron stands in the shallow water."
        assert read.version == connector.version(ref) == first.found[ref].version
        assert listing(connector, first.cursor).found == {}

        write(mock, ref, "It has flown.")
        second = listing(connector, first.cursor)
        assert second.found[ref].version == connector.version(ref) != read.version
        assert connector.extract(ref).documents[0].text == "It has flown."

        mock.patch(f"files/{ref}", json={"name": "crane.txt"}).raise_for_status()
        third = listing(connector, second.cursor)
        assert third.found[ref].version not in (None, second.found[ref].version)

        mock.patch(f"files/{ref}", json={"starred": True}).raise_for_status()
        starred = listing(connector, third.cursor)
        assert starred.found[ref].version == third.found[ref].version
        assert starred.found[ref].fingerprint != third.found[ref].fingerprint

        mock.patch(f"files/{ref}", json={"trashed": True}).raise_for_status()
        binned = listing(connector, starred.cursor)
        assert binned.deleted == {ref}
        assert ref not in listing(connector).found
        mock.patch(f"files/{ref}", json={"trashed": False}).raise_for_status()
        assert ref in listing(connector, binned.cursor).found

        mock.delete(f"files/{ref}").raise_for_status()
        assert listing(connector, binned.cursor).deleted == {ref}
        assert connector.version(ref) is None
        with pytest.raises(ObjectGone):
            connector.extract(ref)


def test_its_folders(mock: httpx.Client, front: Front, secret: str) -> None:
    folder = create(mock, name="in", mimeType=FOLDER_TYPE)
    below = create(mock, name="deep", mimeType=FOLDER_TYPE, parents=[folder])
    inside, outside = (create(mock, name="a.txt", mimeType="text/plain", parents=parents) for parents in ([below], []))
    with closing(connect(front, secret, folders=[folder])) as connector:
        first = listing(connector)
        assert set(first.found) == {inside}
        mock.patch(f"files/{outside}", params={"addParents": below}).raise_for_status()
        mock.patch(f"files/{inside}", params={"removeParents": below}).raise_for_status()
        later = listing(connector, first.cursor)
        assert (set(later.found), later.deleted) == ({outside}, {inside})
        assert connector.version(inside) is None


def test_it_has_no_channels(front: Front, secret: str) -> None:
    """Which is said, and no reason to believe that anything is gone."""
    with closing(connect(front, secret)) as connector, pytest.raises(ConnectorError, match="opens no channel") as refused:
        connector.subscribe("https://sourcebus.example.com/hooks/docs")
    assert type(refused.value) is ConnectorError
