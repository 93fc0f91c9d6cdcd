"""The connector itself: its settings, and the calls of `Connector`, `Hears`, `Costly` and `Metered`."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

import httpx

from sourcebus.connectors.base import Connector, Recommended, refuse_unknown
from sourcebus.connectors.cards import CARD_SUFFIXES, card
from sourcebus.connectors.config import patterns_at
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.documents import document
from sourcebus.connectors.http import Api
from sourcebus.connectors.patterns import Selection
from sourcebus.connectors.refs import is_ref
from sourcebus.connectors.signing import check_token
from sourcebus.connectors.webdav.listing import Listing
from sourcebus.connectors.webdav.members import Member, hash_of, quoted
from sourcebus.connectors.webdav.paths import Paths
from sourcebus.errors import InvalidInput, NeedsAuth, ObjectGone, ObjectUnreadable
from sourcebus.model import (
    WHOLE_SOURCE,
    Change,
    ChangeKind,
    Cursor,
    Delivery,
    Document,
    Extraction,
    Heard,
    Quota,
    QuotaLeft,
    Subscription,
)

SETTINGS = ("url", "auth", "user", "allow_plaintext", "include", "exclude", "max_bytes", "version", "sync")
SECRETS = ("password", "token", "webhook")
AUTH = ("none", "basic", "digest", "bearer")
VERSIONS = ("content", "etag")
SYNC = ("auto", "never")

MAX_ANSWER_BYTES = 128_000_000
"""A listing of about 300,000 members of one collection."""

MAX_PATHS = 10_000
"""Paths that one delivery may name."""


class WebdavConnector(Connector):
    """What is below a collection. A reference is the path below it, percent-decoded; a scope is one that ends with a slash."""

    name = "webdav"
    recommended = Recommended(quota=Quota(rate=20.0, burst=40.0, concurrency=4), window_ms=5_000, poll_interval_s=300.0)

    def __init__(
        self,
        api: Api,
        paths: Paths,
        selection: Selection,
        *,
        webhook_tokens: Sequence[str] = (),
        max_bytes: int = 20_000_000,
        trusts_etags: bool = False,
        uses_sync: bool = True,
    ) -> None:
        self._api, self._paths, self._max_bytes = api, paths, max_bytes
        self._webhook_tokens, self._trusts_etags = webhook_tokens, trusts_etags
        self._listing = Listing(api, paths, selection, trusts_etags=trusts_etags, uses_sync=uses_sync)

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        """See docs/connectors/webdav.md for the settings."""
        refuse_unknown(config, SETTINGS)
        url, secrets = _url(config), Credentials.parse(secret, SECRETS)
        headers, auth = _auth(config, secrets)
        selection = Selection(patterns_at(config, "include"), patterns_at(config, "exclude"))
        return cls(
            Api(url, headers=headers, auth=auth, max_bytes=MAX_ANSWER_BYTES),
            Paths(url),
            selection,
            webhook_tokens=secrets.all("webhook"),
            max_bytes=_max_bytes(config),
            trusts_etags=_choice(config, "version", VERSIONS) == "etag",
            uses_sync=_choice(config, "sync", SYNC) == "auto",
        )

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        return self._listing.changes(cursor, scope)

    def version(self, ref: str) -> str | None:
        try:
            member = self._listing.look(ref)
            version = member.version(self._trusts_etags)
            if version is None and _is_too_long(member, self._max_bytes):
                return _version_unread(member)
            return version or hash_of(self._get(ref).content)
        except ObjectGone:
            return None

    def fingerprint(self, ref: str) -> str | None:
        try:
            member = self._listing.look(ref)
        except ObjectGone:
            return None
        return None if member.version(self._trusts_etags) else member.fingerprint()

    def extract(self, ref: str) -> Extraction:
        member = self._listing.look(ref)
        if _is_too_long(member, self._max_bytes):
            version = member.version(self._trusts_etags) or _version_unread(member)
            raise ObjectUnreadable("too_large", f"has {member.length} bytes, more than {self._max_bytes}", version=version)
        answer = self._get(ref)
        data = answer.content
        read = Member(ref, quoted(answer.headers.get("etag")), len(data), answer.headers.get("last-modified"), None)
        etag = read.version(self._trusts_etags)
        version = etag or hash_of(data)
        fingerprint = member.fingerprint() if etag is None and _same(member, read) else None
        try:
            return Extraction([_document(ref, data)], version, fingerprint)
        except ObjectUnreadable as unreadable:
            raise ObjectUnreadable(
                unreadable.reason, unreadable.detail, version=version, fingerprint=fingerprint
            ) from unreadable

    def scope_prefix(self, scope: str) -> str:
        return scope if scope == WHOLE_SOURCE or scope.endswith("/") else f"{scope}/"

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        """A server's own hook (Radicale's storage hook, a script): a token, and the paths that changed, if it knows them.

        The token stands in ``Authorization: Bearer``, or in the query as ``token``. The body is empty, or JSON: ``{"path": …}``
        or ``{"paths": [...]}``, below `url`; one that ends with a slash is a collection. Without any, the source is scanned.
        """
        del subscriptions
        scheme, _, bearer = delivery.headers.get("authorization", "").partition(" ")
        check_token(bearer if scheme.lower() == "bearer" else delivery.query.get("token"), self._webhook_tokens)
        return Heard([self._named(path) for path in _paths_in(delivery)] or [Change(WHOLE_SOURCE, ChangeKind.SCAN)])

    def _named(self, path: str) -> Change:
        ref = path.lstrip("/")
        if ref == WHOLE_SOURCE or (ref.endswith("/") and is_ref(ref[:-1])):
            return Change(ref, ChangeKind.SCAN)
        if not is_ref(ref):
            raise InvalidInput("path", f"{path!r} is no path below config.url", "send it percent-decoded, without . and ..")
        return Change(ref)

    def take_cost(self) -> float:
        """Requests. See `Costly`."""
        return self._api.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        """See `Metered`."""
        return self._api.quota_left()

    def close(self) -> None:
        self._api.close()

    def _get(self, ref: str) -> httpx.Response:
        # identity: a server that compresses on the fly gives another ETag, and no length
        return self._api.call("GET", str(self._paths.url(ref)), headers={"Accept-Encoding": "identity"})


def _is_too_long(member: Member, max_bytes: int) -> bool:
    return member.length is not None and member.length > max_bytes


def _version_unread(member: Member) -> str:
    """Of an object that is too long to be read: only what is said of it."""
    return f"unread {member.etag or ''} {member.length} {member.modified or ''}"


def _same(member: Member, read: Member) -> bool:
    """Whether PROPFIND and GET saw one state: only then does the fingerprint of the one vouch for the bytes of the other."""
    seen, got = (member.etag, member.modified), (read.etag, read.modified)
    return member.length in (None, read.length) and all(
        a is None or b is None or a == b for a, b in zip(seen, got, strict=True)
    )


def _document(ref: str, data: bytes) -> Document:
    name = ref.rpartition("/")[2].encode("utf-8", "replace").decode()
    return card(name, data) if name.lower().endswith(CARD_SUFFIXES) else document(name, data)


def _paths_in(delivery: Delivery) -> list[str]:
    if not delivery.body.strip():
        return []
    try:
        said = json.loads(delivery.body)
    except (ValueError, RecursionError):
        raise InvalidInput("body", "is no JSON", 'send nothing, {"path": "a/b.txt"} or {"paths": [...]}') from None
    body = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    paths = body.get("paths", [body["path"]] if "path" in body else [])
    if not isinstance(paths, list) or len(cast("list[Any]", paths)) > MAX_PATHS:
        raise InvalidInput("paths", "is no list, or one that is too long", f"send at most {MAX_PATHS} paths")
    for path in cast("list[Any]", paths):
        if not isinstance(path, str):
            raise InvalidInput("paths", f"has {path!r}", "send texts")
    return cast("list[str]", paths)


def _url(config: Mapping[str, Any]) -> str:
    given = config.get("url")
    fix = "give the address of a collection, such as https://cloud.example.org/remote.php/dav/files/ada/"
    if not isinstance(given, str) or not given:
        raise InvalidInput("config.url", "is missing" if given is None else f"is {given!r}", fix)
    try:
        url = httpx.URL(given)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput("config.url", f"is no URL ({error})", fix) from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise InvalidInput("config.url", "is no plain http or https address", fix)
    if url.userinfo:
        raise InvalidInput("config.url", "has a user in it", "set config.user, and the password as the source's secret")
    allowed = config.get("allow_plaintext", False)
    if not isinstance(allowed, bool):
        raise InvalidInput("config.allow_plaintext", f"is {allowed!r}", "give true or false")
    if (
        url.scheme == "http"
        and config.get("auth", "basic") in ("basic", "bearer")
        and not allowed
        and not _is_loopback(url.host)
    ):
        raise InvalidInput(
            "config.url", "is http: the secret would cross the network in clear", "use https, or set allow_plaintext"
        )
    return given if given.endswith("/") else given + "/"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Missing(httpx.Auth):
    """Stands for credentials that the source does not have: no request is sent without them."""

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise NeedsAuth("the source has no secret: set its password or token")
        yield request


def _auth(config: Mapping[str, Any], secrets: Credentials) -> tuple[dict[str, str], httpx.Auth | None]:
    kind, user = config.get("auth", "basic"), config.get("user")
    if kind not in AUTH:
        raise InvalidInput("config.auth", f"is {kind!r}", "use one of " + ", ".join(AUTH))
    password, token = secrets.one("password"), secrets.one("token") or secrets.one("password")
    if kind == "none":
        return {}, None
    if kind == "bearer":
        return ({"Authorization": f"Bearer {token}"}, None) if token else ({}, _Missing())
    if not isinstance(user, str) or not user:
        raise InvalidInput(
            "config.user", "is missing" if user is None else f"is {user!r}", 'give a name, or set auth to "none"'
        )
    if password is None:
        return {}, _Missing()
    return {}, httpx.BasicAuth(user, password) if kind == "basic" else httpx.DigestAuth(user, password)


def _max_bytes(config: Mapping[str, Any]) -> int:
    value = config.get("max_bytes", 20_000_000)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ANSWER_BYTES:
        raise InvalidInput("config.max_bytes", f"is {value!r}", f"give a whole number from 1 to {MAX_ANSWER_BYTES}")
    return value


def _choice(config: Mapping[str, Any], key: str, choices: Sequence[str]) -> str:
    value = config.get(key, choices[0])
    if value not in choices:
        raise InvalidInput(f"config.{key}", f"is {value!r}", "use one of " + ", ".join(choices))
    return value
