"""One provider's HTTP API, as connectors use it: what an answer means, what it cost, what is left, and where it may lead.

Retries are the bus's work, so a call is made once. A URL that came in a payload (a next page, a download, a callback) is only
followed to the configured server or to a public address, so nobody can have sourcebus read from inside its own network
(OWASP, "Server-Side Request Forgery Prevention").
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx

from sourcebus.errors import ConnectorError, NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable, Throttled
from sourcebus.model import QuotaLeft

MAX_OBJECT_BYTES = 64_000_000
"""A larger answer is not read to its end: `ObjectUnreadable` (``too_large``)."""

_THROTTLED = (429, 529)
_LONGEST_WAIT_S = 86_400.0
_CARRYING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))  # NAT64, IPv4-compatible
_PORTS = {"http": 80, "https": 443}

Judge = Callable[[httpx.Response], ConnectorError | None]
"""What an unsuccessful answer means where a provider has words of its own; None: what HTTP says."""


class Api:
    """Calls below `base_url`, from any thread. Keeps connections; `close` lets go of them.

    `headers` go with every call to the configured server, and `auth` signs them; neither goes anywhere else. `judge` is asked
    first what a failure means. `cost` is what a call is counted as where the caller does not say, in the quota's units.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        judge: Judge | None = None,
        cost: float = 1.0,
        timeout_s: float = 30.0,
        max_bytes: int = MAX_OBJECT_BYTES,
        trusted: tuple[str, ...] = (),
    ) -> None:
        self._base = httpx.URL(base_url)
        self._judge, self._cost, self._max_bytes = judge, cost, max_bytes
        self._own_headers, self._auth = dict(headers or {}), auth
        self._origins = {_origin(self._base), *(_origin(httpx.URL(url)) for url in trusted)}
        self._client = httpx.Client(
            transport=_Guard(self._origins), timeout=timeout_s, follow_redirects=True, headers={"User-Agent": "sourcebus"}
        )
        self._spent = threading.local()
        self._left = threading.local()

    def close(self) -> None:
        self._client.close()

    def take_cost(self) -> float:
        """See `Costly`."""
        spent = getattr(self._spent, "units", 0.0)
        self._spent.units = 0.0
        return spent

    def spend(self, units: float) -> None:
        """Account for `units` beside what calls are counted as; below zero takes back what a call turned out not to cost."""
        self._spent.units = getattr(self._spent, "units", 0.0) + units

    def quota_left(self) -> QuotaLeft | None:
        """See `Metered`."""
        left = getattr(self._left, "quota", None)
        self._left.quota = None
        return left

    def url(self, path_or_url: str) -> httpx.URL:
        """A path below the base, or a whole URL as it is."""
        if path_or_url.startswith(("http://", "https://")):
            return httpx.URL(path_or_url)
        return httpx.URL(str(self._base).rstrip("/") + "/" + path_or_url.lstrip("/"))

    def call(
        self,
        method: str,
        path_or_url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = None,
        cost: float | None = None,
        accept: tuple[int, ...] = (),
    ) -> httpx.Response:
        """The answer, read whole, if it is 2xx or one of `accept`; else the `ConnectorError` that it means."""
        url = self.url(path_or_url)
        own = _origin(url) in self._origins
        self.spend(self._cost if cost is None else cost)
        request = self._client.build_request(
            method,
            url,
            params=params,
            headers={**(self._own_headers if own else {}), **(headers or {})},
            content=content,
            json=json,
        )
        try:
            response = self._client.send(request, auth=self._auth if own else None, stream=True)
            try:
                _read(response, self._max_bytes)
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"{method} {_shown(url)}: {type(error).__name__}: {error}") from error
        if own:
            self._left.quota = quota_of(response.headers) or getattr(self._left, "quota", None)
        if response.is_success or response.status_code in accept:
            return response
        raise (self._judge(response) if self._judge else None) or meaning(response)

    def json(self, method: str, path_or_url: str, **options: Any) -> Any:
        """`call`, its answer parsed. SourceUnavailable where it is no JSON (a proxy's error page, mostly)."""
        response = self.call(method, path_or_url, **options)
        try:
            return response.json()
        except ValueError as error:
            raise SourceUnavailable(f"{method} {_shown(response.url)}: the answer is no JSON") from error


def meaning(response: httpx.Response) -> ConnectorError:
    """What an unsuccessful answer means by HTTP itself (RFC 9110, RFC 6585)."""
    status, asked = (
        response.status_code,
        f"{response.request.method} {_shown(response.request.url)}: HTTP {response.status_code}",
    )
    wait_ms = retry_after_ms(response.headers)
    if status in _THROTTLED or (status == 503 and wait_ms is not None):
        return Throttled(asked, wait_ms)
    if status in (404, 410):
        return ObjectGone(asked)
    if status == 401:
        return NeedsAuth(asked)
    if status == 403:
        return ObjectUnreadable("forbidden", asked)
    if status >= 500 or status == 408:
        return SourceUnavailable(asked)
    return ObjectUnreadable("refused", asked)


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """``Retry-After`` in seconds or as a date (RFC 9110 §10.2.3), as milliseconds from now; None where there is none."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return round(min(max(wait_s, 0.0), _LONGEST_WAIT_S) * 1000) if wait_s == wait_s else None


def quota_of(headers: Mapping[str, str]) -> QuotaLeft | None:
    """``RateLimit-Remaining`` and ``RateLimit-Reset`` in seconds from now (draft-ietf-httpapi-ratelimit-headers-07), or the
    ``X-RateLimit-`` pair, whose reset may also be seconds since the epoch (GitHub)."""
    for prefix in ("ratelimit-", "x-ratelimit-"):
        try:
            left, reset_s = float(headers[prefix + "remaining"]), float(headers[prefix + "reset"])
        except (KeyError, ValueError):
            continue
        if reset_s > 1_000_000_000:
            reset_s -= time.time()
        if 0 <= left < 1e15 and 0 < reset_s <= _LONGEST_WAIT_S:
            return QuotaLeft(left, reset_s * 1000)
    return None


def _read(response: httpx.Response, max_bytes: int) -> None:
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise ObjectUnreadable("too_large", f"is {declared[:19]} bytes long, more than {max_bytes}")
    read, chunks = 0, list[bytes]()
    for chunk in response.iter_bytes():
        read += len(chunk)
        if read > max_bytes:
            raise ObjectUnreadable("too_large", f"is longer than {max_bytes} bytes")
        chunks.append(chunk)
    response._content = b"".join(chunks)  # pyright: ignore[reportPrivateUsage]  what Response.read() does, but bounded


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _shown(url: httpx.URL) -> str:
    """Without the query and the user: keys stand there."""
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))


@cache
def _trust() -> ssl.SSLContext:
    """Whom TLS connections trust. One for the process: reading the certificates takes 20 ms and a megabyte, per client."""
    return httpx.create_ssl_context()


class _Guard(httpx.BaseTransport):
    """Lets requests through to the configured servers, and elsewhere only to public addresses.

    The name is resolved here, once, and the request goes to the address that was checked: a name that answers differently
    the next time (DNS rebinding) gains nothing.
    """

    def __init__(self, origins: set[tuple[str, str, int | None]]) -> None:
        self._origins, self._inner = origins, httpx.HTTPTransport(retries=1, verify=_trust())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if _origin(request.url) in self._origins:
            return self._inner.handle_request(request)
        address = public_address(request.url.host, request.url.port or _PORTS.get(request.url.scheme, 443))
        if address is None:
            raise httpx.UnsupportedProtocol(f"{request.url.host} is not a public address, so it is not asked", request=request)
        extensions = {**request.extensions, "sni_hostname": request.url.host}
        aimed = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions=extensions,
        )
        return self._inner.handle_request(aimed)

    def close(self) -> None:
        self._inner.close()


def public_address(host: str, port: int) -> str | None:
    """One address of `host`, if all that it resolves to are public ones; else None, also where it does not resolve."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return None
    addresses = [ipaddress.ip_address(str(address).partition("%")[0]) for address in sorted(map(str, found))]
    if not addresses or not all(_is_public(address) for address in addresses):
        return None
    return str(addresses[0])


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = _carried(address) if isinstance(address, ipaddress.IPv6Address) else None
    return all(one.is_global and not one.is_multicast for one in (address, inner or address))


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a translating router would make of this one (RFC 4291, 3056, 6052), if it is of such a kind."""
    if any(address in network for network in _CARRYING):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
