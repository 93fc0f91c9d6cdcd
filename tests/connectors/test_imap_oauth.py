"""XOAUTH2 at a Dovecot that asks a token server about tokens, and the connector that gets them from that server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.connectors.imap_account import Account, mail, walk
from tests.connectors.webdav_servers import WebServer

from sourcebus.connectors.imap import ImapConnector
from sourcebus.errors import ConnectorError, InvalidInput, NeedsAuth, SourceUnavailable, Throttled
from sourcebus.testing.dovecot import INSTALL, Dovecot, installed, running_dovecot

USER = "tokenuser"


@dataclass
class TokenServer:
    """Hands out tokens (RFC 6749) and says whose they are (as RFC 7662)."""

    alive: set[str] = field(default_factory=set[str])
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    answer: tuple[str, str] | None = None
    lives_s: float = 3_600

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            status, body = "200 OK", json.dumps(self._introspected(environ))
        else:
            status, body = self.answer or ("200 OK", json.dumps(self._granted(environ["wsgi.input"].read())))
        data = body.encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
        return [data]

    def _introspected(self, environ: dict[str, Any]) -> dict[str, Any]:
        token = parse_qs(environ["QUERY_STRING"]).get("token", [""])[0]
        return {"active": token in self.alive, "username": USER}

    def _granted(self, form: bytes) -> dict[str, Any]:
        self.asked.append({name: values[0] for name, values in parse_qs(form.decode()).items()})
        token = f"token-{len(self.asked)}"
        self.alive.add(token)
        return {"access_token": token, "expires_in": self.lives_s}


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    server = WebServer(lambda environ, start_response: tokens_now()(environ, start_response))
    yield server
    server.stop()


_current: list[TokenServer] = []


def tokens_now() -> TokenServer:
    return _current[-1]


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    _current.append(TokenServer())
    yield _current[-1]
    _current.pop()


@pytest.fixture(scope="module")
def dovecot(web: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    if not installed():
        pytest.skip(f"Dovecot is not installed: {INSTALL}")
    settings = tmp_path_factory.mktemp("oauth") / "oauth2.conf"
    _write(settings, web.url)
    more = "auth_mechanisms = plain login xoauth2\nauth_cache_size = 0\n"
    more += f"passdb {{\n  driver = oauth2\n  mechanisms = xoauth2\n  args = {settings}\n}}\n"
    with running_dovecot(more=more) as server:
        yield server


def _write(path: Path, url: str) -> None:
    lines = (
        f"introspection_url = {url}introspect?token=",
        "introspection_mode = get",
        "username_attribute = username",
        "active_attribute = active",
        "active_value = true",
    )
    path.write_text("\n".join(lines) + "\n")
    for folder in (path, *path.parents[:3]):
        folder.chmod(0o755)


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    account = Account(dovecot, auth="xoauth2")
    account.user = USER
    return account


def granted(account: Account, web: WebServer, secret: dict[str, str], **settings: Any) -> ImapConnector:
    config = account.config(token_url=web.url + "token", client_id="app", **settings)
    return ImapConnector.create(config, json.dumps(secret))


def test_a_token_that_was_given_logs_in(account: Account, tokens: TokenServer) -> None:
    ref = account.append(mail("text"))
    tokens.alive.add("given")
    for secret in ("given", '{"access_token": "given"}'):
        connector = ImapConnector.create(account.config(), secret)
        assert ref in walk(connector)[0].found
        connector.close()


def test_a_token_that_has_ended_needs_a_person(account: Account, tokens: TokenServer) -> None:
    connector = ImapConnector.create(account.config(), "ended-token")
    with pytest.raises(NeedsAuth) as refused:
        walk(connector)
    assert "ended-token" not in str(refused.value)
    connector.close()


def test_a_refresh_token_brings_one_access_token_for_all_connections(
    account: Account, web: WebServer, tokens: TokenServer
) -> None:
    connector = granted(account, web, {"refresh_token": "r", "client_secret": "s"}, scope="mail")
    walk(connector)
    connector.version(account.append(mail("text")))
    wanted = {"grant_type": "refresh_token", "refresh_token": "r", "client_id": "app", "client_secret": "s", "scope": "mail"}
    assert tokens.asked == [wanted]
    connector.close()


def test_without_one_the_application_asks_in_its_own_name(account: Account, web: WebServer, tokens: TokenServer) -> None:
    connector = granted(account, web, {"client_secret": "s"})
    walk(connector)
    assert tokens.asked == [{"grant_type": "client_credentials", "client_id": "app", "client_secret": "s"}]
    connector.close()


def test_a_token_that_is_refused_is_replaced(account: Account, web: WebServer, tokens: TokenServer) -> None:
    """It was withdrawn before its time: the next login asks for another."""
    connector = granted(account, web, {"refresh_token": "r"}, connections=1)
    walk(connector)
    tokens.alive.clear()
    account.server.cut()
    account.server.start()
    answers: list[bool] = []
    for _ in range(3):
        try:
            answers.append(walk(connector)[0].complete)
        except ConnectorError:
            pass  # the connection that was cut, and the login with the token that was withdrawn
    assert answers[-1:] == [True]
    assert len(tokens.asked) == 2
    connector.close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("400 Bad Request", '{"error": "invalid_grant", "error_description": "the-refresh-token is void"}', NeedsAuth),
        ("401 Unauthorized", '{"error": "invalid_client"}', NeedsAuth),
        ("200 OK", "{}", NeedsAuth),
        ("200 OK", "[]", NeedsAuth),
        ("200 OK", "<html>", SourceUnavailable),
        ("429 Too Many Requests", "", Throttled),
        ("500 Server Error", "", SourceUnavailable),
    ],
)
def test_what_the_token_server_refuses(
    account: Account, web: WebServer, tokens: TokenServer, status: str, body: str, kind: type[ConnectorError]
) -> None:
    tokens.answer = status, body
    connector = granted(account, web, {"refresh_token": "the-refresh-token"})
    with pytest.raises(kind) as refused:
        walk(connector)
    assert "the-refresh-token" not in str(refused.value)
    connector.close()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"token_url": "http://example.org/token", "client_id": "a"}, "token_url"),
        ({"token_url": "https://a:b@example.org/token", "client_id": "a"}, "token_url"),
        ({"token_url": 3}, "token_url"),
        ({"token_url": "https://example.org/token"}, "client_id"),
        ({"token_url": "https://example.org/token", "client_id": "a", "scope": ["x"]}, "scope"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ImapConnector.create({"host": "example.org", "user": "a", "auth": "xoauth2", **config}, None)
    assert refused.value.field == f"config.{field}"
