"""Which drives a source is: found by what its config names, asked for once and then remembered for minutes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from sourcebus.connectors.http import Api
from sourcebus.connectors.sharepoint.config import Place
from sourcebus.errors import ConnectorError, ObjectGone, ObjectUnreadable

SEVERAL_UNITS = 2.0
"""What a listing costs, in resource units; one item costs 1 (Microsoft: "Avoid getting throttled", resource units)."""

_LIST_S, _THERE_S = 300.0, 30.0


class Drives:
    """The drives of one source. Safe between threads."""

    def __init__(self, api: Api, place: Place) -> None:
        self._api, self._place = api, place
        self._lock = threading.Lock()
        self._ids: tuple[str, ...] = (place.drive,) if place.drive else ()
        self._asked_s = time.monotonic() if place.drive else float("-inf")
        self._there_s: dict[str, float] = {}

    @property
    def many(self) -> bool:
        """The source is all libraries of a site, so a reference names the drive too."""
        return self._place.site is not None and self._place.library is None

    def ids(self, *, fresh: bool = False) -> Sequence[str]:
        """The ids. What can change (a site's libraries) is asked for anew after five minutes."""
        with self._lock:
            age_s = time.monotonic() - self._asked_s
            if not self._ids or (self.many and age_s > (0 if fresh else _LIST_S)):
                self._ids, self._asked_s = tuple(self._find()), time.monotonic()
            return self._ids

    def check(self, drive_id: str) -> None:
        """The drive is there and open to us, else ConnectorError. Asked when one of its items is missing or refused, so
        that a deleted site or a withdrawn permission does not pass for the end of each of its files."""
        if time.monotonic() - self._there_s.get(drive_id, float("-inf")) < _THERE_S:
            return
        self._get(f"drives/{quote(drive_id, safe='!')}?$select=id", f"the drive {drive_id}")
        self._there_s[drive_id] = time.monotonic()

    def _find(self) -> list[str]:
        place = self._place
        if place.user is not None:
            return [self._get(f"users/{quote(place.user, safe='@')}/drive?$select=id", f"the OneDrive of {place.user}")["id"]]
        site = quote(place.site or "", safe=":/,")
        if "," not in site:
            site = self._get(f"sites/{site}?$select=id", f"the site {place.site}")["id"]
        found = self._libraries(site)
        if place.library is None:
            return [library["id"] for library in found]
        named = [library["id"] for library in found if library.get("name") == place.library]
        if not named:
            names = ", ".join(sorted(str(library.get("name")) for library in found)) or "none"
            raise ConnectorError(f"the site has no library {place.library!r}; it has: {names}")
        return named[:1]

    def _libraries(self, site_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        link: str | None = f"sites/{quote(site_id, safe=',')}/drives?$select=id,name"
        while link:
            page = self._get(link, "the site's libraries", SEVERAL_UNITS)
            found += page.get("value", [])
            link = page.get("@odata.nextLink")
        return found

    def _get(self, path: str, what: str, cost: float = 1.0) -> Any:
        # A plain ConnectorError: one site that is gone must not make the bus pause the quota that all sites share.
        try:
            return self._api.json("GET", path, cost=cost)
        except ObjectGone as error:
            raise ConnectorError(f"{what} does not exist any more, or the app may not see it: {error}") from error
        except ObjectUnreadable as error:
            raise ConnectorError(f"the app has no permission to read {what}: {error.detail}") from error
