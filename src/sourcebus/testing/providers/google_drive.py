"""Google Drive and the sign-in in front of it: shared drives, users' own, the feed of changes, channels, quota units.

Real HTTP on loopback, as far as `sourcebus.connectors.google_drive` asks. Sources: the discovery document of the Drive API v3
(revision 20261106) and Google's pages on notifications, usage limits and service accounts (RFC 7523).
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from sourcebus.testing.providers.courier import Courier, Faults
from sourcebus.testing.providers.google_drive_files import APPS, DOCUMENT, SimDrive, SimFile
from sourcebus.testing.providers.google_drive_hooks import Channels
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

_RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_RETRY_ON = (0, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class DriveFacts:
    """Google's numbers. `rate_per_s` is for one user of one project, as for all of them."""

    rate_per_s: float = 4_000.0
    burst: float = 20_000.0
    get: float = 5.0
    list: float = 100.0
    download: float = 200.0
    other: float = 5.0
    longest_channel_s: float = 604_800.0
    export_bytes: int = 10_000_000
    page_size: int = 1_000


class Meter:
    """A user's bucket of quota units. Refusals say 403 and 429 in turn: Google's documentation has both."""

    def __init__(self, facts: DriveFacts, *, enforce: bool, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.spent, self.enforce = 0.0, enforce
        self._facts, self._clock_s = facts, clock_s
        self._left, self._at_s, self._refusals = facts.burst, clock_s(), 0

    def charge(self, units: float) -> Answer | None:
        """The refusal, if there is nothing left for this call."""
        now_s = self._clock_s()
        self._left = min(self._facts.burst, self._left + (now_s - self._at_s) * self._facts.rate_per_s)
        self._at_s = now_s
        if self.enforce and self._left < units:
            self._refusals += 1
            if self._refusals % 2:
                return refusal(403, "userRateLimitExceeded", "User Rate Limit Exceeded.", domain="usageLimits")
            return refusal(429, "rateLimitExceeded", "Rate Limit Exceeded", domain="usageLimits")
        self._left -= units
        self.spent += units
        return None


class GoogleDriveSimulator(ProviderServer):
    """One project with one service account, whose key file is `key_file()`. `shared_drive` and `my_drive` make what there is.

    `delegated` are the users that the account may act for. While it is `disabled` nobody signs in, and no token is good.
    Changes go straight to a `SimDrive`, under `lock` or through `put`. `courier.faults` lose, repeat and delay messages;
    `pace` divides the waits of retries.
    """

    def __init__(
        self,
        *,
        facts: DriveFacts | None = None,
        faults: Faults | None = None,
        enforce: bool = True,
        pace: float = 1.0,
        token_s: float = 3_599.0,
    ) -> None:
        super().__init__()
        self.facts = facts or DriveFacts()
        self.project, self.email = "acme-search", "indexer@acme-search.iam.gserviceaccount.com"
        self.delegated: set[str] = set()
        self.disabled = False
        self.token_s, self.tokens = token_s, dict[str, tuple[str, float]]()
        self.meter = Meter(self.facts, enforce=enforce)
        self.courier = Courier(faults=faults, retry_s=_RETRY_S, retry_on=_RETRY_ON, pace=pace)
        self.channels = Channels(self.courier, self.facts.longest_channel_s)
        self.drives: dict[str, SimDrive] = {}
        self.page_size, self.incomplete = self.facts.page_size, False
        self.drive_url, self.token_url = f"{self.url}/drive/v3", f"{self.url}/token"
        self._keys: dict[str, rsa.RSAPublicKey] = {}
        self._log: list[tuple[str, str]] = []
        self._listings = 0
        self._route()

    def close(self) -> None:
        self.courier.close()
        super().close()

    # what there is

    def key_file(self) -> str:
        """A new key of the service account, as the console lets one download it."""
        private, key_id = rsa.generate_private_key(65537, 2048), secrets.token_hex(20)
        pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        with self.lock:
            self._keys[key_id] = private.public_key()
        return json.dumps(
            {
                "type": "service_account",
                "project_id": self.project,
                "private_key_id": key_id,
                "private_key": pem.decode(),
                "client_email": self.email,
                "token_uri": "https://elsewhere.example/token",  # never asked: only the config says where to sign in
            }
        )

    def delete_key(self, key_file: str) -> None:
        with self.lock:
            del self._keys[json.loads(key_file)["private_key_id"]]

    def shared_drive(self) -> SimDrive:
        """A shared drive that the service account is a member of."""
        return self._add(SimDrive(None, {self.email}, self._changed))

    def my_drive(self, user: str) -> SimDrive:
        """A user's own drive, for whom the account may act."""
        self.delegated.add(user)
        return self._add(SimDrive(user, {user}, self._changed))

    def put(self, drive: SimDrive, path: str, content: bytes | str, mime_type: str = "text/plain") -> SimFile:
        """A file is written, while others ask."""
        with self.lock:
            return drive.put(path, content, mime_type)

    def expire_listings(self) -> None:
        """The page tokens of all listings are hours old."""
        with self.lock:
            self._listings += 1

    def _add(self, drive: SimDrive) -> SimDrive:
        with self.lock:
            self.drives[drive.id] = drive
        return drive

    def _changed(self, drive: SimDrive, file_id: str) -> None:
        self._log.append((drive.id, file_id))
        readers = drive.members.union(*drive.shares.values())
        self.channels.changed(drive.id if drive.owner is None else None, readers)

    # routes

    def _route(self) -> None:
        segment, facts = "([^/]+)", self.facts
        self.on("POST", "/token", self._token)
        for method, path, cost, route in (
            ("GET", "/changes/startPageToken", facts.other, self._start),
            ("GET", "/changes", facts.list, self._changes),
            ("POST", "/changes/watch", facts.other, self._watch),
            ("POST", "/channels/stop", facts.other, self._stop),
            ("GET", f"/drives/{segment}", facts.get, self._drive),
            ("GET", "/files", facts.list, self._list),
            ("GET", f"/files/{segment}/export", facts.download, self._export),
            ("GET", f"/files/{segment}", 0.0, self._get),
        ):
            self.on(method, f"/drive/v3{path}", self._charged(route, cost))

    def _charged(self, route: Callable[[Asked, str], Answer], cost: float) -> Callable[[Asked], Answer]:
        """The route for those who are signed in and have units left. What a file costs depends on what is asked of it."""

        def answer(asked: Asked) -> Answer:
            user, until_s = self.tokens.get(asked.headers.get("authorization", "").removeprefix("Bearer "), ("", 0.0))
            if self.disabled or until_s < time.monotonic():
                return refusal(401, "authError", "Invalid Credentials")
            units = cost or (self.facts.download if asked.query.get("alt") == "media" else self.facts.get)
            return self.meter.charge(units) or route(asked, user)

        return answer

    # sign-in

    def _token(self, asked: Asked) -> Answer:
        form = dict(parse_qsl(asked.body.decode()))
        claims = self._claims(form.get("assertion", ""))
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" or claims is None:
            return Answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        if (
            claims["iss"] != self.email
            or claims["aud"] != self.token_url
            or not claims["iat"] <= time.time() + 60 < claims["exp"]
        ):
            return Answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT: check your iat and exp values."})
        if self.disabled:
            return Answer(400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"})
        user = claims.get("sub", self.email)
        if user not in {self.email, *self.delegated} or not claims["scope"].endswith("/auth/drive.readonly"):
            told = (
                "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any scopes."
            )
            return Answer(401, {"error": "unauthorized_client", "error_description": told})
        token = secrets.token_urlsafe(48)
        self.tokens[token] = (user, time.monotonic() + self.token_s)
        return Answer(body={"access_token": token, "expires_in": int(self.token_s), "token_type": "Bearer"})

    def _claims(self, assertion: str) -> dict[str, Any] | None:
        """Of a JWT that one of the account's keys has signed."""
        signed, _, signature = assertion.rpartition(".")
        try:
            head, claims = (json.loads(_unpadded(part)) for part in signed.split("."))
            self._keys[head["kid"]].verify(_unpadded(signature), signed.encode(), padding.PKCS1v15(), SHA256())
        except (ValueError, KeyError, InvalidSignature):
            return None
        return claims if head["alg"] == "RS256" else None

    # files

    def _find(self, asked: Asked, user: str) -> tuple[SimDrive, SimFile] | Answer:
        for drive in self.drives.values():
            file = drive.files.get(asked.args[0])
            if file is not None and drive.seen_by(user, file):
                if file.forbidden:
                    return refusal(403, "insufficientFilePermissions", "The user does not have sufficient permissions.")
                return drive, file
        return refusal(404, "notFound", f"File not found: {asked.args[0]}.")

    def _get(self, asked: Asked, user: str) -> Answer:
        found = self._find(asked, user)
        if isinstance(found, Answer):
            return found
        drive, file = found
        if asked.query.get("alt") != "media":
            return Answer(body=_picked(drive.to_json(file, user), asked.query.get("fields", "")))
        if file.mime_type.startswith(APPS):
            return refusal(403, "fileNotDownloadable", "Only files with binary content can be downloaded.")
        if file.refused:
            return refusal(403, file.refused, "The content of this file is refused.")
        return Answer(200, file.content, {"Content-Type": file.mime_type})

    def _export(self, asked: Asked, user: str) -> Answer:
        found = self._find(asked, user)
        if isinstance(found, Answer):
            return found
        _drive, file = found
        if file.refused:
            return refusal(403, file.refused, "The content of this file is refused.")
        if not file.mime_type.startswith(APPS):
            return refusal(403, "fileNotExportable", "Export only supports Docs Editors files.")
        if len(file.content) > self.facts.export_bytes:
            return refusal(403, "exportSizeLimitExceeded", "This file is too large to be exported.")
        # A picture is encoded anew at each export, so two exports of one document differ.
        picture = f"\n\n[image1]: <data:image/png;base64,{secrets.token_urlsafe(600)}>\n".encode()
        return Answer(200, file.content + (picture if file.mime_type == DOCUMENT else b""))

    def _list(self, asked: Asked, user: str) -> Answer:
        query, asked_drive = asked.query.get("q", ""), asked.query.get("driveId")
        parents = re.findall(r"'([^']+)' in parents", query)
        visible = [
            (drive, file)
            for drive in self.drives.values()
            if asked_drive in (None, drive.id) and (asked_drive is not None or drive.owner)
            for file in drive.files.values()
            if drive.seen_by(user, file)
        ]
        if asked_drive and (asked_drive not in self.drives or user not in self.drives[asked_drive].members):
            return refusal(404, "notFound", f"Shared drive not found: {asked_drive}")
        if not set(parents) <= {file.id for _drive, file in visible} | {asked_drive}:
            return refusal(404, "notFound", "File not found: .")
        found = [
            drive.to_json(file, user)
            for drive, file in visible
            if (not parents or file.parent in parents)
            and ("trashed = false" not in query or not drive.is_trashed(file))
            and ("'me' in owners" not in query or file.owner == user)
        ]
        start = self._page_start(asked.query.get("pageToken"))
        if start is None:
            return refusal(400, "invalid", "Invalid Value", location="pageToken")
        size = min(int(asked.query.get("pageSize", "100")), self.page_size)
        told: dict[str, Any] = {"files": found[start : start + size], "incompleteSearch": self.incomplete}
        if start + size < len(found):
            told["nextPageToken"] = f"{self._listings}.{start + size}"
        return Answer(body=told)

    def _page_start(self, token: str | None) -> int | None:
        if token is None:
            return 0
        epoch, _, start = token.partition(".")
        return int(start) if epoch == str(self._listings) and start.isdecimal() else None

    def _drive(self, asked: Asked, user: str) -> Answer:
        drive = self.drives.get(asked.args[0])
        if drive is None or drive.owner or user not in drive.members:
            return refusal(404, "notFound", f"Shared drive not found: {asked.args[0]}")
        return Answer(body={"id": drive.id})

    # changes

    def _start(self, asked: Asked, user: str) -> Answer:
        return self._lost(asked, user) or Answer(body={"startPageToken": str(len(self._log))})

    def _changes(self, asked: Asked, user: str) -> Answer:
        token, asked_drive = asked.query.get("pageToken", ""), asked.query.get("driveId")
        if refused := self._lost(asked, user):
            return refused
        if not token.isdecimal() or int(token) > len(self._log):
            return refusal(400, "invalid", "Invalid Value", location="pageToken")
        newest = {entry: at for at, entry in enumerate(self._log)}
        due = [
            at
            for at in range(int(token), len(self._log))
            if newest[self._log[at]] == at and self._is_told(at, asked_drive, user)
        ]
        size = min(int(asked.query.get("pageSize", "100")), self.page_size)
        told: dict[str, Any] = {"changes": [self._change(*self._log[at], user) for at in due[:size]]}
        if len(due) > size:
            told["nextPageToken"] = str(due[size])
        else:
            told["newStartPageToken"] = str(len(self._log))
        return Answer(body=told)

    def _is_told(self, at: int, asked_drive: str | None, user: str) -> bool:
        drive = self.drives[self._log[at][0]]
        if asked_drive is not None:
            return drive.id == asked_drive
        return drive.owner is not None and (user in drive.members or any(user in of for of in drive.shares.values()))

    def _change(self, drive_id: str, file_id: str, user: str) -> dict[str, Any]:
        drive = self.drives[drive_id]
        file = drive.files.get(file_id)
        told: dict[str, Any] = {"changeType": "file", "fileId": file_id, "removed": True}
        if file is not None and drive.seen_by(user, file):
            told |= {"removed": False, "file": drive.to_json(file, user)}
        return told

    def _lost(self, asked: Asked, user: str) -> Answer | None:
        """The refusal of a feed of a shared drive that the user is no member of."""
        drive_id = asked.query.get("driveId")
        if drive_id is None or (drive_id in self.drives and user in self.drives[drive_id].members):
            return None
        return refusal(404, "notFound", f"Shared drive not found: {drive_id}")

    # channels

    def _watch(self, asked: Asked, user: str) -> Answer:
        return self._lost(asked, user) or self.channels.open(asked.json(), asked.query.get("driveId"), user)

    def _stop(self, asked: Asked, _user: str) -> Answer:
        given: Mapping[str, Any] = asked.json()
        if self.channels.stop(str(given.get("id")), str(given.get("resourceId"))):
            return Answer(204)
        return refusal(404, "notFound", f"Channel '{given.get('id')}' not found for project '{self.project}'")


def refusal(status: int, reason: str, message: str, *, domain: str = "global", location: str = "") -> Answer:
    """An unsuccessful answer in Google's form."""
    one = {"domain": domain, "reason": reason, "message": message}
    if location:
        one |= {"locationType": "parameter", "location": location}
    return Answer(status, {"error": {"code": status, "message": message, "errors": [one]}})


def _picked(told: Mapping[str, Any], fields: str) -> Mapping[str, Any]:
    wanted: Sequence[str] = fields.split(",") if fields else list(told)
    return {name: told[name] for name in wanted if name in told}


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
