"""The REST API of one repository: what a refusal means, requests that cost nothing while nothing changed, what a 404 is worth.

Sources: docs.github.com, "Rate limits for the REST API", "Best practices for using the REST API" (conditional requests, what to
do when limited), "Troubleshooting the REST API" (404 for what the token may not see).
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sourcebus.connectors.github.settings import CONTENTS, ISSUES, PULLS, Settings
from sourcebus.connectors.http import Api, retry_after_ms
from sourcebus.errors import ConnectorError, NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable, Throttled

PAGE = 100
"""Objects per page: the most that GitHub gives."""

_API_VERSION = "2022-11-28"
_SECONDARY_WAIT_MS = 60_000
_KEPT_BYTES = 4_000_000
_KEPT_ENTRY_BYTES = 1_500_000
_ENTRY_BYTES = 1_000
"""What an entry takes beside its body."""

_PROBES = {CONTENTS: "branches", ISSUES: "issues", PULLS: "pulls"}


@dataclass(frozen=True, slots=True)
class Told:
    """One answer. `at_ms` is the time on GitHub's clock when it was given, also where the body was `kept` from before.

    `more` says that another page follows, `moved` that a redirect led here.
    """

    status: int
    body: bytes
    etag: str
    more: bool
    at_ms: float
    moved: bool
    kept: bool = False

    def items(self) -> tuple[list[Any], bool]:
        """The items of a page, and whether to ask for the next. An ETag is of the page's items: a full page that was not
        changed can have got a successor since."""
        items: list[Any] = self.json()
        return items, self.more or (self.kept and len(items) >= PAGE)

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise SourceUnavailable("GitHub's answer is no JSON: is config.api the API's address?") from error


class Repository:
    """Calls below ``/repos/OWNER/REPO``, from any thread.

    An answer is kept with its ETag (up to 4 MB per source, the longest unused go first) and asked for again with
    ``If-None-Match``: a 304 costs nothing of the primary quota, and is accounted so.
    """

    def __init__(self, settings: Settings, token: str | None) -> None:
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": _API_VERSION}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A blob's JSON is base64: a third longer than the file, and then some.
        longest = max(8_000_000, settings.max_bytes * 3 // 2)
        self.api = Api(settings.api, headers=headers, judge=judge, max_bytes=longest)
        self._root, self._name = f"repos/{settings.full_name}", settings.full_name
        self._kept: OrderedDict[str, Told] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def read(
        self, path: str, *, params: Mapping[str, Any] | None = None, media_type: str = "", accept: tuple[int, ...] = ()
    ) -> Told:
        """GET what is at `path` below the repository (percent-encoded). Raises as `Api.call` does."""
        url = f"{self._root}/{path}".rstrip("/")
        key = f"{url}?{json.dumps(params, sort_keys=True)} {media_type}"
        with self._lock:
            kept = self._kept.get(key)
        headers = {"Accept": media_type} if media_type else {}
        if kept is not None:
            headers["If-None-Match"] = kept.etag
        response = self.api.call("GET", url, params=params, headers=headers, accept=(304, *accept))
        if response.status_code == 304 and kept is not None:
            self.api.spend(-1)
            self._touch(key)
            return replace(kept, at_ms=_date_ms(response), kept=True)
        told = Told(
            response.status_code,
            response.content,
            response.headers.get("etag", ""),
            "next" in response.links,
            _date_ms(response),
            bool(response.history),
        )
        self._keep(key, told)
        return told

    def pages(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """The items of a list, from all of its pages."""
        page = 1
        while True:
            items, more = self.read(path, params={**(params or {}), "per_page": PAGE, "page": page}).items()
            yield from items
            if not more:
                return
            page += 1

    def send(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> httpx.Response:
        """A call that changes something: five units of the secondary quota."""
        return self.api.call(method, f"{self._root}/{path}", json=body, cost=5, accept=accept)

    def home(self) -> Any:
        """The repository itself. NeedsAuth where it is not there for this token."""
        try:
            return self.read("").json()
        except ObjectGone as error:
            raise self._hidden(error) from error

    def confirm_gone(self, kind: str, gone: ObjectGone) -> None:
        """GitHub also answers 404 for what a token may not see, so a 404 is believed only where the token can list that kind.

        Returns if it can; else NeedsAuth.
        """
        try:
            self.read(
                _PROBES[kind], params={"state": "all", "per_page": 1} if kind != CONTENTS else {"per_page": 1}, accept=(410,)
            )
        except ObjectGone:
            raise self._hidden(gone) from gone

    def _hidden(self, error: ObjectGone) -> NeedsAuth:
        return NeedsAuth(
            f"{self._name} is not there for this token ({error}): it was deleted, or the token lost access to it. "
            "GitHub says 404 to both"
        )

    def _keep(self, key: str, told: Told) -> None:
        if not told.etag or told.status != 200 or len(told.body) > _KEPT_ENTRY_BYTES:
            return
        with self._lock:
            self._drop(key)
            self._kept[key] = told
            self._kept_bytes += len(told.body) + _ENTRY_BYTES
            while self._kept_bytes > _KEPT_BYTES:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._kept_bytes -= len(old.body) + _ENTRY_BYTES

    def _touch(self, key: str) -> None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)


def judge(response: httpx.Response) -> ConnectorError | None:
    """What GitHub means by a refusal. Only 403 and 429 are its own; the rest is as HTTP says."""
    status, headers = response.status_code, response.headers
    if status == 451:
        return NeedsAuth("GitHub: the repository is not available for legal reasons (451)")
    if status not in (403, 429):
        return None
    message = _message(response)
    if (wait_ms := retry_after_ms(headers)) is not None:
        return Throttled(f"GitHub: secondary rate limit: {message}", wait_ms)
    if headers.get("x-ratelimit-remaining") == "0":
        return Throttled(f"GitHub: primary rate limit: {message}", _until_reset_ms(response))
    lower = message.lower()
    if status == 429 or "rate limit" in lower or "abuse detection" in lower:
        return Throttled(f"GitHub: secondary rate limit: {message}", _SECONDARY_WAIT_MS)
    if '"too_large"' in response.text:
        return ObjectUnreadable("too_large", f"GitHub: {message}")
    return NeedsAuth(f"GitHub refuses (403): {message}")


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return "without a word"


def _until_reset_ms(response: httpx.Response) -> int | None:
    """Until the primary limit's window ends, by GitHub's own clock: ours may be wrong by more than the window is long."""
    try:
        reset_ms = float(response.headers["x-ratelimit-reset"]) * 1000
    except (KeyError, ValueError):
        return None
    return max(round(reset_ms - _date_ms(response)), 1000)


def _date_ms(response: httpx.Response) -> float:
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() * 1000
    except (KeyError, ValueError, TypeError):
        return time.time() * 1000
