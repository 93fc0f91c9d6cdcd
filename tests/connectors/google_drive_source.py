"""Connectors on the simulated Drive, for the tests of `google_drive`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from sourcebus.connectors.google_drive import GoogleDriveConnector
from sourcebus.model import Cursor, Delivery, Subscription
from sourcebus.testing import Hook, SourceUnderTest, not_applicable
from sourcebus.testing.providers.google_drive import GoogleDriveSimulator, refusal
from sourcebus.testing.providers.google_drive_files import SimDrive
from sourcebus.testing.providers.server import Answer

_FILES = "/drive/v3/.*"
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
        self.google.refuse(refusal(500, "backendError", "Backend Error"), times=1000, path=_FILES)

    def rename(self, ref: str, name: str) -> str:
        with self.google.lock:
            self.drive.rename(ref, f"{name}.txt")
        return ref

    def break_half_way(self) -> None:
        """One page of the listing is told, the next is not."""
        self.google.page_size = 5
        self.google.refuse(refusal(500, "backendError", "Backend Error"), times=1000, path="/drive/v3/files", after=1)

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        told = "Rate Limit Exceeded"
        late = refusal(429, "rateLimitExceeded", told, domain="usageLimits")
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED"}
        forms = {
            "a user's rate, 403": refusal(403, "userRateLimitExceeded", told, domain="usageLimits"),
            "the project's rate, 403": refusal(403, "rateLimitExceeded", told, domain="usageLimits"),
            "429": late,
            "429 with a time": Answer(429, late.body, {"Retry-After": "7"}),
            "Google's newer words, 403": Answer(403, {"error": {"code": 403, "message": told, "details": [info]}}),
            "the day's quota, 403": refusal(403, "dailyLimitExceeded", "Daily Limit Exceeded", domain="usageLimits"),
            "503 with a time": Answer(503, refusal(503, "backendError", "Backend Error").body, {"Retry-After": "7"}),
        }
        return {
            form: lambda answer=answer: self.google.refuse(answer, times=1000, path=_FILES) for form, answer in forms.items()
        }

    def revoke(self) -> None:
        """Somebody disables the service account."""
        self.google.disabled = True

    def forbid(self, ref: str) -> None:
        self.drive.files[ref].forbidden = True

    def mend(self) -> None:
        self.google.accept_again()
        self.google.disabled, self.google.page_size = False, self.google.facts.page_size
        for file in self.drive.files.values():
            file.forbidden = False

    def expire_cursor(self, cursor: str | None) -> str | None:
        """The feed's tokens last. Those of a listing, from one that was cut off after a page, are hours old."""
        del cursor
        self.google.page_size = 1
        with closing(self.connect()) as connector:
            cut = next(item for item in connector.changes(None) if isinstance(item, Cursor))
        self.google.page_size = self.google.facts.page_size
        self.google.expire_listings()
        return cut.value

    def listen(self, hook: Hook) -> None:
        hook.subscribe()

    def settle(self, hook: Hook) -> None:
        self.google.courier.settle()

    def forged(self, delivery: Delivery) -> Sequence[Delivery]:
        """Google signs nothing and sends no body: what proves a message is the token of its channel."""
        without = {name: value for name, value in delivery.headers.items() if name != "x-goog-channel-token"}
        tokens = ("guessed", "", delivery.headers["x-goog-channel-id"])
        return [
            replace(delivery, headers=without),
            *(replace(delivery, headers={**without, "x-goog-channel-token": token}) for token in tokens),
        ]

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        """A message of another source's channel, with a token that is good here."""
        other = {"x-goog-channel-id": "7f105c7d-2dc5-4530-97cd-4e7ae6534c07"}
        return [replace(delivery, headers={**delivery.headers, **other}) for delivery in hook.deliveries]

    def endings(self) -> Mapping[str, Callable[[Subscription], None]]:
        not_applicable("a renewal opens a new channel, whether or not the old one has ended")


class Document(DriveSource):
    """The same with Google's own documents: no hash, no revision, only a text that is exported."""

    def write(self, name: str, text: str) -> str:
        return self.google.put(self.drive, f"folder/{name}", text, "application/vnd.google-apps.document").id
