"""Microsoft Graph and the sign-in in front of it, for one tenant: sites, drives, deltas, subscriptions, throttling.

Real HTTP on loopback. Sign-in answers under an ``https`` address to whoever asks for its discovery document, because MSAL
takes no other; the connector asks it over plain HTTP on loopback (`sourcebus.connectors.sharepoint.signin`). Sources:
Microsoft's pages on driveItem: delta, subscriptions, change notifications and throttling, and `graph_meter.GraphFacts`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote

from sourcebus.testing.providers.courier import Courier, Faults
from sourcebus.testing.providers.graph_drive import SimDrive, SimItem, Span, parse_time
from sourcebus.testing.providers.graph_hooks import Hooks
from sourcebus.testing.providers.graph_meter import GraphFacts, Meter
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

_DELTA = "root/delta"
_RETRY_S = (10.0, 30.0, 60.0, *[600.0] * 23)
"""A notification that was not accepted is sent again for up to four hours."""


class GraphSimulator(ProviderServer):
    """One tenant with one app. `drive` and `site` make what it holds; changes go through `change`, which also notifies.

    `meter` counts resource units (`enforce=False`: without ever refusing). `courier.faults` lose, repeat and delay
    notifications; `pace` divides the waits of retries and of the rule against slow receivers. Every answer takes `latency_s`.
    """

    def __init__(
        self,
        *,
        facts: GraphFacts | None = None,
        faults: Faults | None = None,
        enforce: bool = True,
        pace: float = 1.0,
        token_s: float = 3599.0,
        lanes: int = 4,
    ) -> None:
        super().__init__()
        self.facts = facts or GraphFacts()
        self.tenant, self.client_id = "8f5a7a1e-0000-4000-8000-00000000c0de", "5b1d2c3e-0000-4000-8000-0000000000a1"
        self.secrets = [secrets.token_urlsafe(12)]
        self.token_s = token_s
        self.tokens: dict[str, float] = {}
        self.meter = Meter(self.facts, enforce=enforce)
        self.courier = Courier(faults=faults, retry_s=_RETRY_S, pace=pace, timeout_s=self.facts.ack_deadline_s, lanes=lanes)
        self.hooks = Hooks(self.courier, self.facts, self.tenant, pace=pace)
        self.drives: dict[str, SimDrive] = {}
        self.page_size, self.latency_s = self.facts.page_size, 0.0
        self.graph_url, self.host = f"{self.url}/v1.0", "contoso.sharepoint.com"
        self._sites: dict[str, tuple[str, list[str]]] = {}  # site id -> its path, its drives
        self._users: dict[str, str] = {}
        self._route()

    def close(self) -> None:
        self.courier.close()
        super().close()

    def _answer(self, asked: Asked) -> Answer:
        if self.latency_s:
            time.sleep(self.latency_s)  # outside of the lock: calls wait side by side
        return super()._answer(asked)

    # what the tenant holds

    def site(self, path: str, *libraries: str) -> list[SimDrive]:
        """A site under this path (``sites/team``) with these document libraries; the first is its default one."""
        site_id = f"{self.host},{secrets.token_hex(8)},{secrets.token_hex(8)}"
        made = [self._drive(library, "documentLibrary") for library in libraries or ("Documents",)]
        with self.lock:
            self._sites[site_id] = (path, [drive.id for drive in made])
        return made

    def drive(self) -> SimDrive:
        """The only library of a site of its own."""
        return self.site(f"sites/{secrets.token_hex(4)}")[0]

    def user(self, name: str) -> SimDrive:
        """A user's OneDrive."""
        drive = self._drive("OneDrive", "business")
        with self.lock:
            self._users[name] = drive.id
        return drive

    def add_library(self, path: str, name: str) -> SimDrive:
        """One more library of a site that there is."""
        drive = self._drive(name, "documentLibrary")
        with self.lock:
            next(drives for of, drives in self._sites.values() if of == path).append(drive.id)
        return drive

    def remove_drive(self, drive: SimDrive) -> None:
        """The library, or the site with it, is deleted."""
        with self.lock:
            del self.drives[drive.id]
            for _path, drives in self._sites.values():
                if drive.id in drives:
                    drives.remove(drive.id)

    def change(self, drive: SimDrive, act: Callable[[SimDrive], SimItem | None]) -> SimItem | None:
        """One change by a user, announced to the drive's subscriptions."""
        with self.lock:
            result = act(drive)
            self.hooks.changed(drive.id)
        return result

    def put(self, drive: SimDrive, path: str, text: str, **facets: Any) -> SimItem:
        """A file is written."""
        item = self.change(drive, lambda one: one.put(path, text.encode(), **facets))
        assert item is not None
        return item

    def revoke_tokens(self) -> None:
        """No access token handed out until now is good any more."""
        with self.lock:
            self.tokens.clear()

    def _drive(self, name: str, drive_type: str) -> SimDrive:
        drive = SimDrive("b!" + secrets.token_urlsafe(32), name, drive_type=drive_type)
        with self.lock:
            self.drives[drive.id] = drive
        return drive

    # routes

    def _route(self) -> None:
        segment, prefix = "([^/]+)", "/v1.0"
        self.on("GET", f"/{segment}/v2.0/.well-known/openid-configuration", self._discovery)
        self.on("POST", f"/{segment}/oauth2/v2.0/token", self._token)
        self.on("GET", f"/download/{segment}/{segment}/{segment}", self._download)
        for path, cost, route in (
            ("/sites/([^/]+):/(.+)", self.facts.single, self._site_by_path),
            (f"/sites/{segment}/drive", self.facts.single, self._site_drive),
            (f"/sites/{segment}/drives", self.facts.several, self._site_drives),
            (f"/users/{segment}/drive", self.facts.single, self._user_drive),
            (f"/drives/{segment}", self.facts.single, self._get_drive),
            (f"/drives/{segment}/{_DELTA}", 0.0, self._delta),
            (f"/drives/{segment}/items/{segment}", self.facts.single, self._item),
            (f"/drives/{segment}/items/{segment}/children", self.facts.several, self._children),
            (f"/drives/{segment}/items/{segment}/content", self.facts.single, self._content),
        ):
            self.on("GET", prefix + path, self._charged(route, cost))
        self.on("POST", f"{prefix}/subscriptions", self._charged(self._subscribe, 1.0))
        self.on("GET", f"{prefix}/subscriptions/{segment}", self._charged(self._subscription, 1.0))
        self.on("PATCH", f"{prefix}/subscriptions/{segment}", self._charged(self._renew, 1.0))
        self.on("DELETE", f"{prefix}/subscriptions/{segment}", self._charged(self._unsubscribe, 1.0))

    def _charged(self, route: Callable[[Asked], Answer], cost: float) -> Callable[[Asked], Answer]:
        """The route for those who are signed in and have units left. A delta's cost depends on its token."""

        def answer(asked: Asked) -> Answer:
            if self.tokens.get(asked.headers.get("authorization", "").removeprefix("Bearer "), 0.0) < time.monotonic():
                return _error(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
            granted, headers = self.meter.charge(cost or self._delta_cost(asked))
            told = route(asked) if granted else _error(429, "activityLimitReached", "The app or user has been throttled.")
            return Answer(told.status, told.body, {**told.headers, **headers})

        return answer

    def _delta_cost(self, asked: Asked) -> float:
        return self.facts.single if asked.query.get("token") else self.facts.several

    # sign-in

    def _discovery(self, asked: Asked) -> Answer:
        secure = self.url.replace("http://", "https://")
        base = f"{secure}/{quote(asked.args[0])}"
        return Answer(
            body={
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            }
        )

    def _token(self, asked: Asked) -> Answer:
        form = dict(parse_qsl(asked.body.decode()))
        if asked.args[0] != self.tenant:
            return _refused(400, "invalid_request", f"AADSTS90002: Tenant '{asked.args[0]}' not found.")
        if form.get("grant_type") != "client_credentials" or form.get("scope") != f"{self.url}/.default":
            return _refused(400, "invalid_scope", "AADSTS1002012: The provided value for scope is not valid.")
        if form.get("client_id") != self.client_id:
            return _refused(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if form.get("client_secret") not in self.secrets:
            return _refused(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        token = secrets.token_urlsafe(48)
        self.tokens[token] = time.monotonic() + self.token_s
        return Answer(body={"token_type": "Bearer", "expires_in": int(self.token_s), "access_token": token})

    # sites and drives

    def _site_by_path(self, asked: Asked) -> Answer:
        host, path = asked.args
        found = next((key for key, (of, _drives) in self._sites.items() if of == path and host == self.host), None)
        return Answer(body={"id": found, "displayName": path}) if found else _no_item()

    def _site_drive(self, asked: Asked) -> Answer:
        _path, drives = self._sites.get(asked.args[0], ("", []))
        return Answer(body=_drive_json(self.drives[drives[0]])) if drives else _no_item()

    def _site_drives(self, asked: Asked) -> Answer:
        found = self._sites.get(asked.args[0])
        return Answer(body={"value": [_drive_json(self.drives[key]) for key in found[1]]}) if found else _no_item()

    def _user_drive(self, asked: Asked) -> Answer:
        drive_id = self._users.get(asked.args[0])
        return Answer(body=_drive_json(self.drives[drive_id])) if drive_id else _no_item()

    def _get_drive(self, asked: Asked) -> Answer:
        drive = self._open(asked)
        return drive if isinstance(drive, Answer) else Answer(body=_drive_json(drive))

    def _open(self, asked: Asked) -> SimDrive | Answer:
        drive = self.drives.get(asked.args[0])
        if drive is None:
            return _no_item()
        return _error(403, "accessDenied", "Access denied") if drive.forbidden else drive

    # items

    def _delta(self, asked: Asked) -> Answer:
        drive = self._open(asked)
        if isinstance(drive, Answer):
            return drive
        token = asked.query.get("token", "")
        if token == "latest":
            return Answer(body={"value": [], "@odata.deltaLink": self._link(drive, drive.latest())})
        span = Span.parse(token) if token else drive.start()
        if span is None:
            return _error(400, "invalidRequest", "The provided token is not valid.")
        if span.epoch != drive.epoch:
            afresh = {"Location": f"{self.graph_url}/drives/{quote(drive.id)}/{_DELTA}"}
            return Answer(410, _error(410, drive.resync_code, "Resync required.").body, afresh)
        size = min(int(asked.query.get("$top", self.page_size)), self.page_size)
        page = drive.page(span, size)
        told: dict[str, Any] = {"value": [drive.facet(item, in_delta=True) for item in page.items]}
        if "deltaexcludeparent" not in asked.headers and not span.full:
            told["value"] += [drive.facet(item, in_delta=True) for item in _ancestors(drive, page.items)]
        if page.rest is not None:
            told["@odata.nextLink"] = self._link(drive, page.rest)
        else:
            told["@odata.deltaLink"] = self._link(drive, page.latest)
        return Answer(body=told)

    def _link(self, drive: SimDrive, span: Span) -> str:
        return f"{self.graph_url}/drives/{quote(drive.id)}/{_DELTA}?token={span.token()}"

    def _find(self, asked: Asked) -> tuple[SimDrive, SimItem] | Answer:
        drive = self._open(asked)
        if isinstance(drive, Answer):
            return drive
        item = drive.living(asked.args[1])
        if item is None:
            return _no_item()
        return _error(403, "accessDenied", "Access denied") if item.forbidden else (drive, item)

    def _item(self, asked: Asked) -> Answer:
        found = self._find(asked)
        if isinstance(found, Answer):
            return found
        drive, item = found
        told = drive.facet(item)
        if "file" in told and "malware" not in told:
            told["@microsoft.graph.downloadUrl"] = self._download_url(drive, item)
        return Answer(body=told)

    def _children(self, asked: Asked) -> Answer:
        found = self._find(asked)
        if isinstance(found, Answer):
            return found
        drive, item = found
        children, start = drive.children(item.id), int(asked.query.get("$skiptoken", "0"))
        told: dict[str, Any] = {"value": [drive.facet(child) for child in children[start : start + self.page_size]]}
        if start + self.page_size < len(children):
            told["@odata.nextLink"] = f"{self.url}{asked.path}?$skiptoken={start + self.page_size}"
        return Answer(body=told)

    def _content(self, asked: Asked) -> Answer:
        found = self._find(asked)
        return found if isinstance(found, Answer) else Answer(302, b"", {"Location": self._download_url(*found)})

    def _download_url(self, drive: SimDrive, item: SimItem) -> str:
        """Good by itself, for an hour: no token goes with it."""
        return f"{self.url}/download/{quote(drive.id)}/{item.id}/{secrets.token_urlsafe(8)}"

    def _download(self, asked: Asked) -> Answer:
        drive_id, item_id, _key = asked.args
        if "authorization" in asked.headers:
            return _error(401, "unauthenticated", "A download URL carries its own proof; a token has no business here.")
        granted, headers = self.meter.charge(self.facts.single)
        if not granted:
            return Answer(429, b"Too many requests", headers)
        item = self.drives[drive_id].living(item_id) if drive_id in self.drives else None
        if item is None or item.content is None:
            return Answer(404, b"", headers)
        return Answer(200, item.content, {"Content-Type": "application/octet-stream", **headers})

    # subscriptions

    def _subscribe(self, asked: Asked) -> Answer:
        given: Mapping[str, Any] = asked.json()
        parts = str(given.get("resource", "")).strip("/").split("/")
        if len(parts) != 3 or parts[0] != "drives" or parts[2] != "root" or parts[1] not in self.drives:
            return _error(400, "ExtensionError", "Operation: Create; Exception: [Status Code: NotFound; Reason: Not Found]")
        if self.drives[parts[1]].forbidden:
            return _error(403, "accessDenied", "Access denied")
        if given.get("changeType") != "updated":
            return _error(400, "InvalidRequest", "Only changeType 'updated' is supported for driveItem.")
        if len(given.get("clientState") or "") > self.facts.client_state_chars:
            return _error(400, "InvalidRequest", "clientState is longer than 128 characters.")
        expires = self._expiry(given)
        if isinstance(expires, Answer):
            return expires
        made = self.hooks.create(parts[1], given, expires)
        return _error(400, "ValidationError", made) if isinstance(made, str) else Answer(201, made.to_json())

    def _expiry(self, given: Mapping[str, Any]) -> datetime | Answer:
        try:
            asked_for = parse_time(given["expirationDateTime"])
        except (KeyError, ValueError, TypeError, AttributeError):
            return _error(400, "InvalidRequest", "expirationDateTime is missing or not a time.")
        longest = timedelta(seconds=self.facts.longest_subscription_s)
        if not timedelta(0) < asked_for - datetime.now(UTC) <= longest + timedelta(seconds=5):
            return _error(400, "ValidationError", "Subscription expiration can only be 42300 minutes in the future.")
        return asked_for

    def _subscription(self, asked: Asked) -> Answer:
        found = self.hooks.living(asked.args[0])
        return Answer(body=found.to_json()) if found else _error(404, "ResourceNotFound", "The object was not found.")

    def _renew(self, asked: Asked) -> Answer:
        found = self.hooks.living(asked.args[0])
        if found is None:
            return _error(404, "ResourceNotFound", "The object was not found.")
        expires = self._expiry(asked.json())
        if isinstance(expires, Answer):
            return expires
        found.expires = expires
        return Answer(body=found.to_json())

    def _unsubscribe(self, asked: Asked) -> Answer:
        found = self.hooks.living(asked.args[0])
        if found is None:
            return _error(404, "ResourceNotFound", "The object was not found.")
        del self.hooks.subscriptions[found.id]
        return Answer(204)


def _ancestors(drive: SimDrive, items: list[SimItem]) -> list[SimItem]:
    """The folders above, which a delta tells too unless it is asked not to (``deltaExcludeParent``)."""
    found: dict[str, SimItem] = {}
    for item in items:
        at = drive.items.get(item.parent or "")
        while at is not None and at.id not in found and not at.deleted:
            found[at.id] = at
            at = drive.items.get(at.parent or "")
    told = {item.id for item in items}
    return [item for item in found.values() if item.id not in told]


def _drive_json(drive: SimDrive) -> dict[str, Any]:
    return {"id": drive.id, "name": drive.name, "driveType": drive.type}


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message, "innerError": {"request-id": secrets.token_hex(8)}}})


def _refused(status: int, code: str, description: str) -> Answer:
    return Answer(status, {"error": code, "error_description": description})


def _no_item() -> Answer:
    return _error(404, "itemNotFound", "The resource could not be found.")
