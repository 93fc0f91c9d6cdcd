"""A source's settings and secrets, checked without talking to anybody; and logging in with them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx
from imapclient.exceptions import IMAPClientError

from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.imap.names import Mailboxes
from sourcebus.connectors.imap.oauth import Grant, GrantedToken
from sourcebus.connectors.imap.session import Server
from sourcebus.connectors.imap.watching import WatchSettings
from sourcebus.errors import InvalidInput, NeedsAuth

SETTINGS = (
    "host", "port", "tls", "allow_plaintext", "ca_file", "user", "auth", "token_url", "client_id", "scope",
    "include", "exclude", "exclude_special_use", "max_bytes", "connections", "idle_mailboxes", "idle_s", "poll_s",
)  # fmt: skip
SECRETS = ("password", "access_token", "refresh_token", "client_secret")

TLS_PORTS = {"implicit": 993, "starttls": 143, "none": 143}
AUTH = ("password", "xoauth2")
SPECIAL_USES = ("all", "archive", "drafts", "flagged", "important", "junk", "sent", "trash")
"""RFC 6154, and ``\\Important`` of RFC 8457."""

DEFAULT_SKIPPED = ("drafts", "flagged", "important", "junk", "trash")
"""Flagged and important are views of messages that lie elsewhere."""

LONGEST_IDLE_S = 29 * 60
"""RFC 2177: a server may log out who has been idle for half an hour."""


class Account:
    """Who logs in, and with what."""

    def __init__(self, user: str, *, password: str | None = None, token: str | None = None, grant: Grant | None = None) -> None:
        self._user, self._password, self._token = user, password, token
        self._granted = GrantedToken(grant) if grant else None

    def login(self, client: Any) -> None:
        """Log an `IMAPClient` in. Raises `NeedsAuth` without anything to do it with, its own errors where it is refused."""
        if self._granted is not None:
            token = self._granted.get()
            try:
                client.oauth2_login(self._user, token)
            except IMAPClientError:
                self._granted.refused(token)
                raise
        elif self._token is not None:
            client.oauth2_login(self._user, self._token)
        elif self._password is not None:
            client.login(self._user, self._password)
        else:
            raise NeedsAuth(f"the source has no secret: set the password, or a token, of {self._user}")

    def close(self) -> None:
        if self._granted is not None:
            self._granted.close()


def account_of(config: Mapping[str, Any], secret: str | None) -> Account:
    user, auth = config.get("user"), config.get("auth", "password")
    if not isinstance(user, str) or not user or any(char in user for char in "\r\n\0\1"):
        raise InvalidInput("config.user", "is missing" if user is None else f"is {user!r}", "give the name that logs in")
    if auth not in AUTH:
        raise InvalidInput("config.auth", f"is {auth!r}", "use one of " + ", ".join(AUTH))
    secrets = Credentials.parse(secret, SECRETS if auth == "password" else ("access_token", *SECRETS))
    if auth == "password":
        return Account(user, password=secrets.one("password"))
    return Account(user, token=secrets.one("access_token"), grant=_grant(config, secrets))


def _grant(config: Mapping[str, Any], secrets: Credentials) -> Grant | None:
    url, client_id, scope = config.get("token_url"), config.get("client_id"), config.get("scope")
    if url is None:
        return None
    if not isinstance(url, str) or not _is_safe(url):
        raise InvalidInput("config.token_url", f"is {url!r}", "give an https address")
    if not isinstance(client_id, str) or not client_id:
        raise InvalidInput("config.client_id", f"is {client_id!r}", "give the application's id")
    if scope is not None and not isinstance(scope, str):
        raise InvalidInput("config.scope", f"is {scope!r}", "give the scopes as one text, with spaces between them")
    return Grant(url, client_id, secrets.one("client_secret"), secrets.one("refresh_token"), scope)


def _is_safe(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        return False
    return bool(url.host) and not url.userinfo and (url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.host)))


def mailboxes_of(config: Mapping[str, Any]) -> Mailboxes:
    skip = _texts(config, "exclude_special_use", DEFAULT_SKIPPED, SPECIAL_USES)
    return Mailboxes(_texts(config, "include", ()), _texts(config, "exclude", ()), skip)


def watch_of(config: Mapping[str, Any]) -> WatchSettings:
    return WatchSettings(
        int(number(config, "idle_mailboxes", 4, 0, 100)),
        number(config, "idle_s", 540, 1, LONGEST_IDLE_S),
        number(config, "poll_s", 60, 0.05, 86_400),
    )


_NOT_IN_HOSTS = re.compile(r"[\s/@\[\]]|^[^:]*:[^:]*$")
"""A port, a URL or brackets beside the name. Two colons or more are an IPv6 address."""


def server_of(config: Mapping[str, Any]) -> Server:
    host, tls, ca_file = config.get("host"), config.get("tls", "implicit"), config.get("ca_file")
    if not isinstance(host, str) or not host or _NOT_IN_HOSTS.search(host):
        raise InvalidInput(
            "config.host", "is missing" if host is None else f"is {host!r}", 'give a name, such as "imap.example.org"'
        )
    if tls not in TLS_PORTS:
        raise InvalidInput("config.tls", f"is {tls!r}", "use one of " + ", ".join(TLS_PORTS))
    if not isinstance(config.get("allow_plaintext", False), bool):
        raise InvalidInput("config.allow_plaintext", f"is {config['allow_plaintext']!r}", "give true or false")
    if tls == "none" and not (_is_loopback(host) or config.get("allow_plaintext")):
        raise InvalidInput(
            "config.tls", "is none: the password would cross the network in clear", "use starttls, or set allow_plaintext"
        )
    if ca_file is not None and not isinstance(ca_file, str):
        raise InvalidInput("config.ca_file", f"is {ca_file!r}", "give the path of a PEM file")
    return Server(host, int(number(config, "port", TLS_PORTS[tls], 1, 65_535)), tls, ca_file)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def number(config: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidInput(f"config.{key}", f"is {value!r}", f"give a number from {least:g} to {most:g}")
    return value


def _texts(config: Mapping[str, Any], key: str, default: Sequence[str], allowed: Sequence[str] = ()) -> Sequence[str]:
    value = config.get(key, default)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in cast("list[Any]", value)):
        raise InvalidInput(f"config.{key}", f"is {value!r}", "give a list of texts")
    texts = cast("Sequence[str]", value)
    for text in texts:
        if allowed and text not in allowed:
            raise InvalidInput(f"config.{key}", f"has {text!r}", "use any of " + ", ".join(allowed))
    return texts
