"""Against somebody else's idea of OneDrive: npm's `microsoft-onedrive-mock`, where it can serve.

It knows one drive, under ``/me``, and two fixed tokens; a front on the same loopback gives it an address by drive id and a
sign-in. It never sends notifications, and its cTag changes with every change.
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

from sourcebus.connectors.sharepoint import SharePointConnector
from sourcebus.errors import ObjectGone
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

VERSION = "1.0.5"
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sourcebus-tests" / f"onedrive-mock-{VERSION}"
INSTALL = f"npm install --prefix {FOLDER} microsoft-onedrive-mock@{VERSION} express@5.2.1 cors@2.8.6"
START = """
const server = require('microsoft-onedrive-mock').createApp().listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit()).resume();
"""


class Front(ProviderServer):
    """The directory, and ``/drives/{id}`` in front of the mock's ``/me/drive``."""

    def __init__(self, mock: str) -> None:
        super().__init__()
        self._mock = httpx.Client(base_url=mock)
        self.on("GET", "/t/v2.0/.well-known/openid-configuration", self._discovery)
        self.on("POST", "/t/oauth2/v2.0/token", self._token)
        self.on("GET", "/v1.0/drives/mock", lambda _asked: Answer(body={"id": "mock"}))
        self.on("GET", "/v1.0/drives/mock/(.*)", self._forward)

    def close(self) -> None:
        super().close()
        self._mock.close()

    def _discovery(self, asked: Asked) -> Answer:
        base = self.url.replace("http://", "https://") + "/t/oauth2/v2.0"
        return Answer(body={"issuer": base, "authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token"})

    def _token(self, asked: Asked) -> Answer:
        return Answer(body={"token_type": "Bearer", "expires_in": 3600, "access_token": "valid-token"})

    def _forward(self, asked: Asked) -> Answer:
        headers = {"Authorization": asked.headers.get("authorization", "")}
        query = {key: value for key, value in asked.query.items() if key != "$select"}  # the mock selects roots away
        told = self._mock.get(f"/v1.0/me/drive/{asked.args[0]}?{urlencode(query)}", headers=headers)
        body = told.content.replace(b"/v1.0/me/drive/", b"/v1.0/drives/mock/").replace(
            str(self._mock.base_url).rstrip("/").encode(), self.url.encode()
        )
        return Answer(told.status_code, body, {"Content-Type": told.headers.get("content-type", "")})


@pytest.fixture(scope="module")
def mock() -> Generator[httpx.Client]:
    """The mock's own address, to change files by, as somebody else would."""
    if not (FOLDER / "node_modules" / "express").exists():
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
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}/v1.0/me/drive", headers={"Authorization": "Bearer valid-token"}
        ) as client:
            yield client
        process.terminate()


@pytest.fixture
def connector(mock: httpx.Client) -> Generator[SharePointConnector]:
    with Front(f"http://127.0.0.1:{mock.base_url.port}") as front:
        given = {"tenant": "t", "client_id": "c", "drive": "mock", "authority": front.url, "graph_url": f"{front.url}/v1.0"}
        with closing(SharePointConnector.create(given, "secret")) as made:
            yield made


def write(mock: httpx.Client, name: str, text: str, parent: str = "root") -> dict[str, Any]:
    told = mock.put(f"/items/{parent}:/{name}:/content", content=text.encode(), headers={"Content-Type": "text/plain"})
    return told.raise_for_status().json()


def test_its_delta_its_tags_and_its_content(mock: httpx.Client, connector: SharePointConnector) -> None:
    """Listed, read, changed, renamed, deleted: each seen from the last delta link on."""
    item = write(mock, "heron.txt", "The heron stands in the shallow water.")
    ref: str = item["id"]
    first = listing(connector)
    assert (set(first.found), first.complete) == ({ref}, True)
    read = connector.extract(ref)
    assert read.documents[0].text == "The heron stands in the shallow water."
    assert item["cTag"] in read.version
    assert item["eTag"] in (read.fingerprint or "")
    assert listing(connector, first.cursor).found == {}

    write(mock, "heron.txt", "It has flown.")
    second = listing(connector, first.cursor)
    assert set(second.found) == {ref}
    assert connector.version(ref) != read.version
    assert connector.extract(ref).documents[0].text == "It has flown."

    mock.patch(f"/items/{ref}", json={"name": "crane.txt"}).raise_for_status()
    third = listing(connector, second.cursor)
    assert set(third.found) == {ref}
    assert connector.extract(ref).documents[0].metadata["path"] == "crane.txt"

    mock.delete(f"/items/{ref}").raise_for_status()
    assert listing(connector, third.cursor).deleted == {ref}
    assert connector.version(ref) is None
    with pytest.raises(ObjectGone):
        connector.extract(ref)
